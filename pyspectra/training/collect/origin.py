"""Where the first NaN or infinity comes from: one pass with hooks, made when there is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyspectra.training.collect.forward import ForwardCollector, first_tensor
from pyspectra.training.preserve import preserved
from pyspectra.training.processes import is_distributed
from pyspectra.training.rules.facts import NonFinite


def origin(model: Any, forward: ForwardCollector, step: int) -> NonFinite | None:
    """Pass the last batch through the model again, and name what first is not finite.

    It is called before the step that would spoil the weights.

    Parameters
    ----------
    model : torch.nn.Module
    forward : ForwardCollector
        It holds the last batch.
    step : int

    Returns
    -------
    NonFinite or None
        The first module, in the order of the calls, whose output is not finite though its inputs
        and weights are, or the first weight that is not. None where everything is finite, or
        cannot be repeated: of a compiled model, and on one of several processes.
    """
    taken = forward.last_call
    if taken is None or forward.compiled or is_distributed():
        return None
    found: list[NonFinite] = []
    handles = [
        m.register_forward_hook(_look(name, found, step), with_kwargs=True)
        for name, m in model.named_modules()
        if next(m.children(), None) is None or m is model
    ]
    forward.paused = True
    try:
        with preserved(model, weights=False), torch.no_grad(), taken.autocast():
            model(*taken.args, **taken.kwargs)
    finally:
        forward.paused = False
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _look(name: str, found: list[NonFinite], step: int) -> Any:
    def hook(module: Any, args: Any, kwargs: Any, result: Any) -> None:
        out = first_tensor(result)
        if found or out is None or _finite(out):
            return
        for own, p in module.named_parameters(prefix=name):
            if not _finite(p):
                found.append(NonFinite(step, "weight", _what(p), own, None, _dtype(p)))
                return
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        if all(_finite(v) for v in given):
            sizes = [float(v.abs().max()) for v in given if v.is_floating_point() and v.numel()]
            largest = max(sizes) if sizes else None
            found.append(NonFinite(step, "outputs", _what(out), name, largest, _dtype(out)))

    return hook


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def _what(x: Tensor) -> str:
    return "NaN" if bool(torch.isnan(x).any()) else "Inf"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
