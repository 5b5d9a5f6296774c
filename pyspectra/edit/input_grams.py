"""Second moments of what goes into the layers of a model, over sample data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from pyspectra._arrays import is_torch_module, require_torch
from pyspectra._support.progress import progress_bar
from pyspectra._support.text import counted
from pyspectra.edit.holders import holders_of
from pyspectra.edit.low_rank import compressible
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.types import FloatArray
from pyspectra.weights import open_weights

__all__ = ["input_grams"]


def input_grams(
    model: Any,
    data: Iterable[Any],
    *,
    forward: Callable[[Any, Any], Any] | None = None,
    layers: Sequence[int | str] | int | str | None = None,
    progress: bool | str = "auto",
) -> dict[str, FloatArray]:
    """Collect the second moments of the inputs of linear layers over sample batches.

    Parameters
    ----------
    model : torch.nn.Module
        Run in evaluation mode without gradients; its modes are afterwards as they were.
    data : iterable
        Batches, each visited once: a few hundred samples like those the model will see.
    forward : callable, optional
        ``forward(model, batch)`` runs the model. By default mappings are given as keywords, tuples
        and lists as arguments, anything else as the argument.
    layers : int, str or sequence of them, optional
        Which layers, as in `allocate_ranks`.
    progress : {"auto", True, False}
        A progress bar on standard error for what takes longer than two seconds.

    Returns
    -------
    dict of str to ndarray of float64
        Name of the parameter -> mean of ``x x^T`` over all inputs x of the layer, shape (in, in).
        Layers that no sample reaches are left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, there is no sample, no such layer, or an input is not
        finite.

    Notes
    -----
    In a batch that is a mapping with an ``attention_mask``, positions that it leaves out are left
    out where inputs have its shape. Memory: 8 in^2 bytes for each layer.

    Examples
    --------
    >>> import pyspectra as ps, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5))
    >>> grams = ps.input_grams(model, [torch.eye(4), 2.0 * torch.eye(4)])
    >>> grams["0.weight"].diagonal().tolist()
    [0.625, 0.625, 0.625, 0.625]
    """
    if not is_torch_module(model):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("input_grams", "model", "be a torch.nn.Module", got)
    if not isinstance(data, Iterable) or isinstance(data, Mapping):
        got = f"an object of type {type(data).__name__}"
        raise ArgumentTypeError("input_grams", "data", "be an iterable of batches", got)
    with called_as("input_grams", model_or_path="model"), open_weights(model) as source:
        keys = [layer.key for layer in compressible("input_grams", source, model, layers)]
    torch = require_torch("input_grams")
    sums: dict[str, Any] = {}
    counts: dict[str, int] = {}
    mask: Any = None

    def collect(key: str, args: Any, kwargs: Any) -> None:
        x = (args[0] if args else next(iter(kwargs.values()))).detach()
        if mask is not None and x.shape[:-1] == mask.shape:
            x = x[mask.to(x.device)]
        x = x.reshape(-1, x.shape[-1]).double()
        if len(x) == 0:  # a batch of none, or one that its mask leaves out whole
            return
        moments = x.T @ x
        sums[key] = moments if key not in sums else sums[key].add_(moments)
        counts[key] = counts.get(key, 0) + len(x)

    total = len(data) if isinstance(data, Sized) else None
    batches = 0
    bar = progress_bar(total, "inputs", progress, function="input_grams")
    with bar as advance, _hooked(model, keys, collect), torch.no_grad():
        for batch in data:
            mask = _mask(batch)
            _run(model, batch, forward)
            batches += 1
            advance("")
    if batches == 0:
        raise ArgumentValueError("input_grams", "data", "give at least one batch", "none")
    if keys and not counts:
        got = f"{counted(batches, 'batch', 'batches')} from which none of the layers had an input"
        raise ArgumentValueError("input_grams", "data", "give at least one sample", got)
    grams = {key: sums[key].cpu().numpy() / counts[key] for key in keys if key in sums}
    for key, G in grams.items():
        if not math.isfinite(float(G.sum())):
            got = f"NaN or infinity into {key!r}"
            raise ArgumentValueError("input_grams", "data", "give finite inputs", got)
    return grams


def _mask(batch: Any) -> Any:
    """Return which positions of a batch count, or None if it does not tell."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask.bool() if mask is not None and mask.ndim == 2 else None


def _run(model: Any, batch: Any, forward: Callable[[Any, Any], Any] | None) -> None:
    if forward is not None:
        forward(model, batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple | list):
        model(*batch)
    else:
        model(batch)


@contextlib.contextmanager
def _hooked(
    model: Any, keys: Sequence[str], collect: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Call `collect` before each of the layers runs; evaluation mode meanwhile."""
    modes = [(module, module.training) for module in model.modules()]
    hooks = []
    try:
        for key in keys:
            for module in holders_of(model, key):  # several where the weight is tied

                def hook(_: Any, args: Any, kwargs: Any, key: str = key) -> None:
                    collect(key, args, kwargs)

                hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        model.eval()
        yield
    finally:
        for handle in hooks:
            handle.remove()
        for module, training in modes:
            module.training = training
