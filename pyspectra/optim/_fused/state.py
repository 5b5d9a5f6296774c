"""Saved state on its way in: from this package or from the optimizers of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra.optim._fused import group as _group
from pyspectra.optim._fused import sharded as _sharded
from pyspectra.optim._fused import tensors as _tensors

# What torch's own optimizers keep in their groups; True in one of the first means an update rule
# that there is no kernel for.
_REFUSED = ("amsgrad", "maximize", "differentiable")
_TORCH_ONLY = (*_REFUSED, "foreach", "capturable", "fused", "decoupled_weight_decay")


def check_layout(owner: str, source: Mapping[str, Any]) -> None:
    """Refuse what is no state dict of an optimizer.

    Raises
    ------
    ValueError
        If ``state`` or ``param_groups`` is missing, or not what an optimizer writes.
    """
    state, groups = source.get("state"), source.get("param_groups")
    if (
        not isinstance(state, Mapping)
        or not isinstance(groups, (list, tuple))
        or not all(isinstance(g, Mapping) and "params" in g for g in groups)
        or not all(entry is None or isinstance(entry, Mapping) for entry in state.values())
    ):
        raise ValueError(
            f"{owner}: 'state_dict' must have state and param_groups, as state_dict() returns them,"
            f" got {sorted(map(str, source))}."
        )


def check_order(
    owner: str, mine: Iterable[Mapping[str, Any]], theirs: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse a state whose parameters have the same names in another order.

    States go by position, so the moments of one parameter would become those of another.
    """
    here, there = (
        [name for group in groups for name in group.get("param_names") or ()]
        for groups in (mine, theirs)
    )
    if here != there and sorted(here) == sorted(there):
        i = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
        raise ValueError(
            f"{owner}: 'state_dict' must have the parameters in the order of the optimizer, got "
            f"{there[i]!r} in the place of {here[i]!r}."
        )


def merged_group(
    owner: str,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    defaults: Mapping[str, Any],
    decoupled: bool,
) -> dict[str, Any]:
    """Return a saved group completed with the hyper-parameters that torch's do not have.

    Raises
    ------
    ValueError, TypeError
        If it belongs to another update rule, or a hyper-parameter is out of range.
    """
    of_rule = "betas" if "betas" in defaults else "dampening"
    # torch's other rules with betas (NAdam, RAdam, Adamax) know no amsgrad.
    like_adam = "foreach" in theirs and "amsgrad" not in theirs and of_rule == "betas"
    if of_rule not in theirs or like_adam:
        raise ValueError(
            f"{owner}: cannot load a state of another update rule, one whose groups have "
            f"{sorted(map(str, theirs))}."
        )
    for key in _REFUSED:
        if theirs.get(key):
            raise ValueError(f"{owner}: cannot load a state with {key}=True.")
    if theirs.get("decoupled_weight_decay", decoupled) != decoupled:
        kind = "L2" if decoupled else "decoupled"
        raise ValueError(f"{owner}: cannot load a state of Adam with {kind} decay.")
    kept = {k: v for k, v in mine.items() if k in defaults}
    group = {**kept, **{k: v for k, v in theirs.items() if k not in _TORCH_ONLY}}
    _group.check_group(owner, group)
    return group


def saved(p: Tensor, state: Mapping[str, Any], moments: tuple[str, ...]) -> dict[str, Any]:
    """Return a parameter's state as it is saved."""
    out = dict(state)
    if "step" in out:
        # A tensor, as torch has it; inside it is an int, which costs nothing to count up.
        # Not of the default type: bfloat16 cannot count beyond 256.
        out["step"] = torch.tensor(float(out["step"]), dtype=torch.float32)
    if "mask" in out and _sharded.is_sharded(p):
        # Bits, and moments of the child alone, have no layout over processes: the whole has.
        part = _sharded.local(p)
        bits = _tensors.mask_bits(out["mask"], part.numel()).reshape(part.shape)
        out["mask"] = _sharded.like(bits, p)
        for key in (k for k in moments if k in out and not _sharded.is_sharded(out[k])):
            whole = torch.zeros(part.shape, dtype=out[key].dtype, device=part.device)
            whole[bits] = out[key]
            out[key] = _sharded.like(whole, p)
    return out


def converted(
    owner: str,
    name: str,
    p: Tensor,
    source: Mapping[str, Any] | None,
    *,
    moments: tuple[str, ...],
    needed: tuple[str, ...],
    compact: bool,
    mask: Tensor | None,
) -> dict[str, Any] | None:
    """Return a copy of a parameter's saved state in the types of the kernel.

    `needed` are those of the `moments` without which there is no step. With `compact` they are
    those of the child network, of the `mask` that the state has, else of the one given; whole
    moments are cut down to it.

    Raises
    ------
    ValueError
        If an entry is missing or does not fit the parameter.
    """
    if not source:  # an empty one is what a look into the state of a parameter leaves there
        return None
    source = {key: value for key, value in source.items() if value is not None}
    # torch's SGD does not count its steps: what it has saved has taken one at least.
    step = source.get("step", 1 if moments == ("momentum_buffer",) else None)
    if step is None or not set(needed) <= set(source):
        wanted = " and ".join(("step", *needed))
        raise ValueError(
            f"{owner}: the state of {name!r} must have {wanted}, got {sorted(source)}."
        )
    whole, dtype = tuple(p.shape), _tensors.state_dtype(p)

    def copied(key: str, kind: torch.dtype, *shapes: tuple[int, ...]) -> Tensor:
        value = source[key]
        if not isinstance(value, Tensor) or value.is_floating_point() != kind.is_floating_point:
            got = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
            what = "floating-point" if kind.is_floating_point else str(kind)
            raise TypeError(
                f"{owner}: state {key!r} of {name!r} must be a {what} tensor, got {got}."
            )
        if tuple(value.shape) not in shapes:
            raise ValueError(
                f"{owner}: state {key!r} of {name!r} must have shape "
                f"{' or '.join(map(str, shapes))}, got {tuple(value.shape)}."
            )
        out: Tensor = value.detach().to(p.device, kind, copy=True).contiguous()
        return out

    state: dict[str, Any] = {
        "step": _count(owner, name, step),
        **dict.fromkeys(k for k in moments if k in source),
    }
    for key in ("ema", "master"):
        if key in source:
            state[key] = _sharded.laid_out(copied(key, dtype, whole), p)
    sharded, part = _sharded.is_sharded(p), _sharded.local(p)
    if getattr(source.get("mask"), "dtype", None) is torch.bool:  # of a DTensor, see `saved`
        bits = _sharded.laid_out(copied("mask", torch.bool, whole), p)
        state["mask"] = _tensors.packed(_sharded.local(bits))
    elif "mask" in source:
        state["mask"] = copied("mask", torch.uint8, (_tensors.mask_bytes(p.numel()),))
        if sharded:
            bits = _tensors.mask_bits(state["mask"], p.numel()).reshape(whole)
            state["mask"] = _tensors.packed(_sharded.part(bits, p))
    mask = state.get("mask", mask) if compact else None
    for key in (k for k in moments if k in source):
        if mask is None:
            state[key] = _sharded.laid_out(copied(key, dtype, whole), p)
            continue
        # Of a DTensor, compact moments are saved whole.
        child = (_tensors.count_ones(mask),)
        x = copied(key, dtype, *(() if sharded else (child,)), whole)
        if sharded or tuple(x.shape) != child:
            x = _sharded.local(_sharded.laid_out(x, p))
            x = x.flatten()[_tensors.mask_bits(mask, part.numel())]
        state[key] = x
    return state


def _count(owner: str, name: str, step: Any) -> int:
    """Return a saved step count, a number or a one-element tensor, as an integer."""
    value = _group.number(f"{owner}: state of {name!r}", "step", step)
    if not 0 <= value < math.inf or value != int(value):
        raise ValueError(
            f"{owner}: state 'step' of {name!r} must be a whole number of at least 0, got {step!r}."
        )
    return int(value)
