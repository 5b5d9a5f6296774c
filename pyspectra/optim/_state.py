"""Saved state on its way in: from this package or from ``torch.optim.AdamW``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra.optim import _group, _tensors

# What torch's own optimizers keep in their groups; True in one of the first means an update rule
# that there is no kernel for.
_REFUSED = ("amsgrad", "maximize", "differentiable")
_TORCH_ONLY = (*_REFUSED, "foreach", "capturable", "fused", "decoupled_weight_decay")


def merged_group(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a saved group completed with the hyper-parameters that torch's AdamW does not have.

    Raises
    ------
    ValueError, TypeError
        If it belongs to another update rule, or a hyper-parameter is out of range.
    """
    for key in _REFUSED:
        if theirs.get(key):
            raise ValueError(f"ChildAdamW: cannot load a state with {key}=True.")
    if not theirs.get("decoupled_weight_decay", True):
        raise ValueError("ChildAdamW: cannot load a state of Adam with L2 decay.")
    kept = {k: v for k, v in mine.items() if k in defaults}
    group = {**kept, **{k: v for k, v in theirs.items() if k not in _TORCH_ONLY}}
    _group.check_group(group)
    return group


def converted(name: str, p: Tensor, source: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a copy of a parameter's saved state in the types of the kernel.

    Raises
    ------
    ValueError
        If an entry is missing or does not fit the parameter.
    """
    if source is None:
        return None
    if not {"step", "exp_avg", "exp_avg_sq"} <= set(source):
        raise ValueError(
            f"ChildAdamW: the state of {name!r} must have step, exp_avg and exp_avg_sq, got "
            f"{sorted(source)}."
        )
    shapes = {key: tuple(p.shape) for key in ("exp_avg", "exp_avg_sq", "ema")}
    shapes["mask"] = (_tensors.mask_bytes(p.numel()),)
    state: dict[str, Any] = {"step": int(source["step"])}
    for key, shape in shapes.items():
        if key not in source:
            continue
        value = source[key]
        if tuple(value.shape) != shape:
            raise ValueError(
                f"ChildAdamW: state {key!r} of {name!r} must have shape {shape}, got "
                f"{tuple(value.shape)}."
            )
        dtype = torch.uint8 if key == "mask" else _tensors.state_dtype(p)
        state[key] = value.detach().to(p.device, dtype, copy=True).contiguous()
    return state
