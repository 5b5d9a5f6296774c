"""A battery of checks before training: it tries the model out, and puts everything back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.findings import Finding
from pyspectra.training.collect.forward import first_tensor
from pyspectra.training.collect.graph import loss_graph
from pyspectra.training.collect.losses import Targets
from pyspectra.training.memory import Memory
from pyspectra.training.preserve import preserved
from pyspectra.training.rules import Thresholds
from pyspectra.training.rules import facts as f
from pyspectra.training.run_report import RunReport
from pyspectra.training.watch import Watch
from pyspectra.types import FloatArray

__all__ = ["OverfitResult", "augmentation", "check", "overfit_one_batch"]

INPUT_STEPS = 60


@dataclass(frozen=True, eq=False)
class OverfitResult:
    """How the training on a single batch went.

    Attributes
    ----------
    verdict : {"fits", "rises", "explodes", "oscillates", "plateaus"}
    losses : ndarray of float64
        Loss of each step.
    findings : tuple of Finding
        The verdict, unless it fits, and what `Watch` said of the trial, causes first.
    baseline : float or None
        Loss of predicting the class frequencies of the batch, or the mean of its targets.
    """

    verdict: str
    losses: FloatArray
    findings: tuple[Finding, ...]
    baseline: float | None

    def __bool__(self) -> bool:
        return self.verdict == "fits"


def overfit_one_batch(
    model: torch.nn.Module,
    loss_fn: Callable[[Any, Any], Tensor],
    batch: tuple[Any, Any],
    *,
    optimizer: Any = None,
    steps: int = 300,
    lr: float = 1e-3,
) -> OverfitResult:
    """Train on one batch until it is known by heart: a model that cannot do that has a fault.

    Dropout is off, and so is weight decay unless the optimizer is given. Weights, buffers, modes,
    gradients, the state of the optimizer and the random generators are restored.

    Parameters
    ----------
    model : torch.nn.Module
    loss_fn : callable
        ``loss_fn(outputs, targets)``.
    batch : (inputs, targets)
    optimizer : torch.optim.Optimizer, optional
        The one of the training; Adam by default.
    steps : int
    lr : float
        Learning rate of Adam.

    Returns
    -------
    OverfitResult
        Its verdict; it counts as true if the model fits the batch.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.training import sanity
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    ... )
    >>> batch = torch.randn(16, 4), torch.randint(0, 3, (16,))
    >>> sanity.overfit_one_batch(
    ...     model, torch.nn.functional.cross_entropy, batch, lr=1e-2
    ... ).verdict
    'fits'
    """
    name = "sanity.overfit_one_batch"
    inputs, targets = _checked(name, model, batch)
    count = check_count(name, "steps", steps, least=20)
    rate = check_number(name, "lr", lr, above=0.0)
    with preserved(model, [] if optimizer is None else [optimizer]):
        _prepare(model)
        used = optimizer or torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad], lr=rate
        )
        watch = Watch(model, used, on="collect", every=20)
        losses, dots = [], []
        for _ in range(count):
            used.zero_grad()
            out = model(inputs)
            loss = loss_fn(out, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            used.step()
            dots.append(watch.last_slope())
            watch.step(loss, targets=targets)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
        said = tuple(x for x in watch.report() if x.severity == "error")
        graph = loss_graph(loss, 1)
        watch.close()
    values = np.array(losses)
    seen = Targets()
    seen.add(targets)
    baseline = seen.baseline(graph.kind)
    fact = f.OverfitTrial(
        values, baseline, graph.kind, _mean_slope(dots), graph.n_classes,
        _accuracy(graph.kind, first_tensor(out), targets),
    )  # fmt: skip
    memory = Memory(Thresholds(), (), patience=1)
    memory.judge([fact])
    verdict = str(memory.found[0].evidence["verdict"]) if memory.found else "fits"
    return OverfitResult(verdict, values, (*said, *memory.found), baseline)


def _accuracy(kind: str | None, outputs: Tensor | None, targets: Any) -> float | None:
    known = kind in ("cross_entropy", "nll") and outputs is not None and outputs.dim() > 1
    if not known or not isinstance(targets, Tensor) or targets.is_floating_point():
        return None
    assert outputs is not None
    return float((outputs.detach().argmax(1) == targets).float().mean())


def _mean_slope(dots: Iterable[float | None]) -> float | None:
    known = list(itertools.islice((d for d in dots if d is not None), 20))
    return float(np.mean(np.sign(known))) if known else None


def _prepare(model: torch.nn.Module) -> None:
    """Put a model in training mode, without what is random in it."""
    model.train()
    for m in model.modules():
        if isinstance(m, torch.nn.modules.dropout._DropoutNd):
            m.eval()


def _checked(function: str, model: Any, batch: Any) -> tuple[Any, Any]:
    if not isinstance(model, torch.nn.Module):
        raise ArgumentTypeError(
            function, "model", "be a torch.nn.Module", f"an object of type {type(model).__name__}"
        )
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ArgumentTypeError(
            function, "batch", "be (inputs, targets)", f"an object of type {type(batch).__name__}"
        )
    return batch[0], batch[1]


def check(
    model: torch.nn.Module,
    optimizer: Any,
    loss_fn: Callable[[Any, Any], Tensor],
    batch: tuple[Any, Any],
    *,
    steps: int = 300,
    thresholds: Thresholds | None = None,
    ignore: Iterable[str] = (),
) -> RunReport:
    """Try the model, the loss and the optimizer out on one batch, before any training.

    It steps a few times to see that everything moves, passes the batch twice in evaluation mode,
    looks for outputs that depend on other rows, doubles the batch to see how the loss is reduced,
    trains on the batch with its inputs and with zeros in their place, and then until the batch is
    known by heart. All that it touches is restored.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
    loss_fn : callable
        ``loss_fn(outputs, targets)``.
    batch : (inputs, targets)
        A batch as large as those of the training, on the device of the model.
    steps : int
        Steps of the training on the batch; 0 leaves that training out.
    thresholds : Thresholds, optional
    ignore : iterable of str
        Codes that are not looked for.

    Returns
    -------
    RunReport
        ``report.raise_on("error")`` stops a script.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.training import sanity
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    >>> batch = torch.randn(16, 4), torch.randn(16)  # targets lack the last dimension
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     report = sanity.check(model, optimizer, torch.nn.functional.mse_loss, batch, steps=0)
    >>> report.findings[0].code
    'loss_broadcast'
    """
    inputs, targets = _checked("sanity.check", model, batch)
    ignored, used = tuple(ignore), thresholds or Thresholds()
    found: list[Finding] = []
    with preserved(model, [optimizer]):
        model.train()
        watch = Watch(model, optimizer, on="collect", every=1, thresholds=used, ignore=ignored)
        for _ in range(3):
            optimizer.zero_grad()
            out = model(inputs)
            loss = loss_fn(out, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            watch.step(loss, targets=targets, outputs=first_tensor(out))
        with watch.evaluating():
            watch.eval_batch(loss_fn(model(inputs), targets))
        watch.end_epoch()
        found += watch.report().all_findings
        watch.close()
    memory = Memory(used, ignored, patience=1)
    memory.judge([_mixing(model, inputs), _reduction(model, loss_fn, inputs, targets)])
    if steps:
        trial = _input_trial(model, loss_fn, inputs, targets)
        if trial is not None:
            memory.judge([trial])
    found += memory.found
    if steps:
        result = overfit_one_batch(model, loss_fn, batch, steps=steps)
        found += [x for x in result.findings if x.code not in ignored]
    return RunReport(tuple(_once(found)), 3, 0)


def _once(findings: Iterable[Finding]) -> list[Finding]:
    kept: dict[tuple[str, str | None], Finding] = {}
    for x in findings:
        kept.setdefault((x.code, x.where), x)
    return list(kept.values())


def _mixing(model: torch.nn.Module, inputs: Any) -> f.BatchMixing:
    """Measure how the first output depends on the other rows, in evaluation mode."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or len(inputs) < 2:
        return f.BatchMixing(0.0, None)
    with preserved(model):
        model.eval()
        x = inputs.detach().clone().requires_grad_(True)
        out = first_tensor(model(x))
        if out is None or out.dim() == 0 or len(out) != len(x) or not out.requires_grad:
            return f.BatchMixing(0.0, None)
        (gradient,) = torch.autograd.grad(out[0].float().sum(), x)
        others = gradient[1:].flatten(1).abs().amax(1)
        return f.BatchMixing(float(others.max()), int(others.argmax()) + 1)


def _input_trial(
    model: torch.nn.Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, targets: Any
) -> f.InputTrial | None:
    """Train on a batch as it is, and with zeros in place of its inputs, from the same weights."""
    if not isinstance(inputs, Tensor) or not bool((inputs != 0).any()):
        return None
    curves = []
    for x in (inputs, torch.zeros_like(inputs)):
        with preserved(model):
            _prepare(model)
            trained = [p for p in model.parameters() if p.requires_grad]
            if not trained:
                return None
            optimizer = torch.optim.Adam(trained, lr=1e-3)
            losses = []
            for _ in range(INPUT_STEPS):
                optimizer.zero_grad()
                loss = loss_fn(model(x), targets)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(float(loss.detach()))
            curves.append(np.array(losses))
    return f.InputTrial(*curves)


def augmentation(
    model: torch.nn.Module,
    augment: Callable[[Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    *,
    batch_size: int = 256,
    thresholds: Thresholds | None = None,
) -> RunReport:
    """Check whether an augmentation changes what samples are: a 6 that is turned becomes a 9.

    A trained classifier is asked about samples, and about the same samples augmented. The model is
    in eval mode meanwhile; its modes and the random generators come back.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier that was trained without this augmentation.
    augment : callable
        ``augment(inputs)`` for a batch.
    inputs : Tensor, shape (n, ...)
        Samples of validation. A class with fewer than thirty is not judged.
    targets : Tensor of int, shape (n,)
    batch_size : int
    thresholds : Thresholds, optional

    Returns
    -------
    RunReport
        A report with ``augmentation_changes_label`` for each class whose samples are taken for
        another's.

    Raises
    ------
    TypeError, ValueError
        If the model is none, or the lengths do not agree.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.training import sanity
    >>> x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Linear(1, 2)
    >>> with torch.no_grad():  # the class is the sign
    ...     _ = model.weight.copy_(torch.tensor([[-1.0], [1.0]])), model.bias.zero_()
    >>> report = sanity.augmentation(model, torch.neg, x, (x[:, 0] > 0).long())
    >>> [finding.where for finding in report]
    ['class 0', 'class 1']
    """
    name = "sanity.augmentation"
    _checked(name, model, (inputs, targets))
    if len(inputs) != len(targets):
        raise ArgumentValueError(
            name, "targets", f"have the length of inputs, {len(inputs)}", f"length {len(targets)}"
        )
    size = check_count(name, "batch_size", batch_size)
    said: list[list[Tensor]] = [[], []]
    with preserved(model, weights=False), torch.no_grad():
        model.eval()
        for x in torch.split(inputs, size):
            for kept, given in zip(said, (x, augment(x)), strict=True):
                out = first_tensor(model(given))
                assert out is not None
                kept.append(out.argmax(1).cpu())
                classes = out.shape[1]
    tables = [_confusion(targets, torch.cat(kept), classes) for kept in said]
    memory = Memory(thresholds or Thresholds(), (), patience=1)
    memory.judge([f.Augmented(*tables)])
    return RunReport(tuple(memory.found))


def _confusion(targets: Tensor, said: Tensor, classes: int) -> f.Array:
    pairs = targets.reshape(-1).cpu().long() * classes + said
    return np.bincount(pairs.numpy(), minlength=classes * classes).reshape(classes, classes)


def _reduction(
    model: torch.nn.Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, targets: Any
) -> f.Reduction:
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        return f.Reduction(math.nan, math.nan)
    with preserved(model), torch.no_grad():
        model.eval()
        one = loss_fn(model(inputs), targets)
        two = loss_fn(model(torch.cat([inputs] * 2)), torch.cat([targets] * 2))
        return f.Reduction(float(one), float(two))
