"""The diagonal empirical Fisher information of a model's weights."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_flag, check_number
from pyspectra._support.progress import progress_bar
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.blocks import coverage
from pyspectra.finetune.choice import Predicate, chosen
from pyspectra.finetune.processes import Processes
from pyspectra.optim._fused import sharded

__all__ = ["fisher_diag"]

_SHARE = 0.9  # of the weights: a default choice below it is worth a warning


def fisher_diag(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: Callable[[nn.Module, Any], Tensor],
    *,
    params: Predicate | Iterable[str] | None = None,
    max_grad_norm: float | None = 1.0,
    per_sample: bool = False,
    process_group: Any = "auto",
    progress: bool | str = "auto",
) -> dict[str, Tensor]:
    """Score weights by the diagonal of the empirical Fisher information (true labels).

    Parameters
    ----------
    model : torch.nn.Module
        Run in training mode. Its modes, gradients, buffers and the random state of torch are
        afterwards as they were, after an exception too; its parameters do not move.
    loader : iterable
        Batches, each visited once.
    loss_fn : callable
        ``loss_fn(model, batch)``, the mean loss of a batch as a scalar tensor, with the labels of
        the data. It also moves the batch to the model's device.
    params : callable or iterable of str, optional
        Which parameters to score, among those with ``requires_grad``: a predicate
        ``(name, parameter) -> bool``, or names. By default every weight inside the blocks, stacks
        of them (experts) included; biases, convolutions, embeddings, pooler and head are left out.
        If that is less than 90 % of the weights between embeddings and head, there is a warning;
        `coverage` tells the share.
    max_grad_norm : float, optional
        Each tensor's gradient is clipped to this norm, on its own, before it is squared. None clips
        nothing.
    per_sample : bool
        Square the gradient of each sample instead of each batch. Batches are then tensors, or
        mappings, tuples and lists of tensors, with the samples along the first axis; every sample
        costs a backward pass.
    process_group : {"auto", None} or process group
        The processes whose scores are added up, where several train together: "auto" takes those
        of DistributedDataParallel, else all of the run. Each then gives its own mini-batches, and
        each gets the scores of all; all of them have to call. None: this process alone.
    progress : {"auto", True, False}
        A progress bar on standard error for what takes longer than two seconds.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> float32 scores of the parameter's shape, on its device; whole, also where
        parameters are sharded (FSDP2, DTensor). A parameter that no loss depends on scores zero.

    Raises
    ------
    ValueError
        If nothing is chosen, a name is unknown or frozen, the loader is empty, a loss is not a
        scalar, a gradient is not finite (naming the parameter and the batch), or all scores are
        zero.
    TypeError
        If arguments are of the wrong kind, or `per_sample` meets a batch that it cannot split.
    RuntimeError
        If another process has failed.

    Notes
    -----
    F_i = 1/B sum_b g_bi^2, where g_b is the gradient of the mean loss over mini-batch b, clipped:
    g = g min(1, max_grad_norm / (|g| + 1e-6)). Squares and sums are float32 whatever the type of
    the parameters. Every mini-batch counts the same, so F depends on their size;
    ``per_sample=True`` is the mean over samples of squared gradients, which does not.

    In several processes B counts the mini-batches of all, and g_b is of one process alone, not the
    mean over them: the scores are those of one process that visits all of these mini-batches,
    within rounding, and the same bits in each process. Under FSDP2 each process holds whole
    gradients of the chosen parameters for the length of a mini-batch.

    References
    ----------
    Xu et al., "Raise a Child in Large Language Model: Towards Effective and Generalizable
    Fine-tuning", EMNLP 2021, arXiv 2109.05687, section 2.3.2 and the released code.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import fisher_diag
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0]])  # the second input is never used
    >>> def loss(model, batch):
    ...     return (model(batch) - 1.0).square().mean()
    >>> scores = fisher_diag(model, [x], loss, params=["weight"])
    >>> (scores["weight"] > 0).tolist()
    [[True, False]]
    """
    for name, value, fits, needed in (
        ("model", model, isinstance(model, nn.Module), "be a torch.nn.Module"),
        ("loader", loader, isinstance(loader, Iterable), "be an iterable of batches"),
        ("loss_fn", loss_fn, callable(loss_fn), "be a function of model and batch"),
    ):
        if not fits:
            got = f"an object of type {type(value).__name__}"
            raise ArgumentTypeError("fisher_diag", name, needed, got)
    if max_grad_norm is not None:
        max_grad_norm = check_number("fisher_diag", "max_grad_norm", max_grad_norm, above=0.0)
    per_sample = check_flag("fisher_diag", "per_sample", per_sample)
    processes = Processes("fisher_diag", model, process_group)
    names = chosen("fisher_diag", model, params)
    if params is None:
        _warn_of_the_rest(model, names)
    leaves = processes.leaves(names)
    fisher = {n: torch.zeros(p.shape, device=p.device) for n, p in leaves.items()}
    total = len(loader) if isinstance(loader, Sized) else None
    count = 0
    with (
        _as_it_was(model),
        progress_bar(total, "Fisher", progress, function="fisher_diag") as advance,
        processes.together(),
    ):
        model.train()
        for (number, part), counts in processes.rounds(_parts(loader, per_sample, advance)):
            grads = _gradients(processes.model, part, loss_fn, leaves)
            if counts:
                _accumulate(fisher, grads, max_grad_norm, number)
                count += 1
    count = processes.add(fisher, count)
    if count == 0:
        raise ArgumentValueError("fisher_diag", "loader", "give at least one batch", "none")
    if not any(f.any() for f in fisher.values()):
        raise ArgumentValueError(
            "fisher_diag",
            "loss_fn",
            "depend on the parameters that are scored",
            f"gradients of zero for all {len(fisher)} of them",
            "compute the loss with the model that it is given",
        )
    return {name: f.div_(count) for name, f in fisher.items()}


def _warn_of_the_rest(model: nn.Module, names: list[str]) -> None:
    """Warn where the default choice leaves much of the model out."""
    covered = coverage(model, names)
    if covered.share < _SHARE:
        largest = ", ".join(map(repr, covered.left_out[:3]))
        warnings.warn(
            f"fisher_diag: the default choice of parameters has {covered.share:.1%} of the weights "
            f"of {type(model).__name__}; the rest, such as {largest}, will be trained without a "
            "mask. Hint: choose them with params.",
            UserWarning,
            stacklevel=3,
        )


def _parts(
    loader: Iterable[Any], per_sample: bool, advance: Callable[[str], None]
) -> Iterator[tuple[int, Any]]:
    """Yield what one gradient is taken of, with the number of its batch."""
    for number, batch in enumerate(loader):
        for part in _samples(batch) if per_sample else [batch]:
            yield number, part
        advance("")


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Give modes, buffers and torch's random state back as they were.

    Training mode moves running statistics, dropout and shuffling draw random numbers: neither
    should change the run that follows. Gradients are never stored on the parameters at all.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, b, b.detach().clone())
        for module in model.modules()
        for name, b in module.named_buffers(recurse=False)
    ]
    devices = {p.get_device() for p in model.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(sorted(devices)):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                if not torch.equal(buffer, value):  # expanded ones cannot be written
                    buffer.copy_(value)
                setattr(module, name, buffer)  # it may hold another tensor by now


def _gradients(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    leaves: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    with torch.enable_grad():
        loss = loss_fn(model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        if isinstance(loss, Tensor) and not loss.requires_grad:
            got += " without a gradient"
        raise ArgumentValueError(
            "fisher_diag", "loss_fn", "return a scalar tensor with a gradient", got
        )
    one = [torch.ones_like(loss)]
    grads = torch.autograd.grad([loss], list(leaves.values()), one, allow_unused=True)
    found = zip(leaves, grads, strict=True)
    return {name: sharded.whole(grad) for name, grad in found if grad is not None}


def _accumulate(
    fisher: Mapping[str, Tensor],
    grads: Mapping[str, Tensor],
    max_grad_norm: float | None,
    batch: int,
) -> None:
    """Add the squares of the clipped gradients."""
    for name, grad in grads.items():
        norm = float(torch.linalg.vector_norm(grad, dtype=torch.float32))
        if not math.isfinite(norm):
            raise ValueError(
                f"fisher_diag: the gradient of {name!r} must be finite, got norm {norm} in batch "
                f"{batch}. Hint: check the data and the loss of that batch."
            )
        scale = 1.0 if max_grad_norm is None else min(1.0, max_grad_norm / (norm + 1e-6))
        clipped = grad.to(torch.float32) * scale
        fisher[name].addcmul_(clipped, clipped)


def _samples(batch: Any) -> Iterator[Any]:
    """Split a batch into batches of one."""
    lengths = {len(t) if t.ndim else None for t in _tensors(batch)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "fisher_diag: with per_sample=True the tensors of a batch must agree in the length of "
            f"their first axis, got lengths {sorted(map(str, lengths))}."
        )
    for i in range(lengths.pop() or 0):
        yield _sample(batch, i)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for item in batch.values():
            yield from _tensors(item)
    elif isinstance(batch, (tuple, list)):
        for item in batch:
            yield from _tensors(item)
    else:
        raise TypeError(
            "fisher_diag: with per_sample=True a batch must be made of tensors in mappings, tuples "
            f"and lists, got an object of type {type(batch).__name__}."
        )


def _sample(batch: Any, i: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[i : i + 1]
    kind: Any = type(batch)
    if isinstance(batch, Mapping):
        return kind({key: _sample(item, i) for key, item in batch.items()})
    items = [_sample(item, i) for item in batch]
    return kind(*items) if hasattr(batch, "_fields") else kind(items)
