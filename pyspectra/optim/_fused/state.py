"""What is kept for a parameter: one schema, from which making, saving and loading derive.

A record of `SCHEMA` says under which key something is kept, how it is laid out, which column of the
kernel's table it is, and when a step needs it. Each layout has one way of being saved and one of
being loaded, for sharded parameters too.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._support.arguments import as_number
from pyspectra.optim._fused import sharded, tensors

State = dict[str, Any]


class Layout(enum.Enum):
    """What an entry of the state looks like, for a parameter of n elements."""

    COUNT = "a number"
    WHOLE = "n elements"
    MOMENT = "n elements, or with compact moments as many as the child network has"
    BITS = "n bits, packed: uint8"


@dataclass(frozen=True)
class Kept:
    """One entry of a parameter's state.

    Attributes
    ----------
    key : str
        Its key in the state; torch's word where torch keeps it too.
    layout : Layout
    column : str
        Column of the kernel's table; empty where the kernel does not see the entry.
    wanted : callable or None
        Does a step of this group need it for this parameter? None for moments, which the update
        rule decides about, and for the count.
    """

    key: str
    layout: Layout
    column: str = ""
    wanted: Callable[[Mapping[str, Any], Tensor], bool] | None = None


# The kernel has columns for a first and a second moment, whatever a rule calls them.
_MOMENTS = {
    key: column
    for rule in ops.OPTIM_RULES.values()
    for key, column in zip(rule.moments, ("exp_avg", "exp_avg_sq"), strict=False)
}

SCHEMA = (
    Kept("step", Layout.COUNT),
    *(Kept(key, Layout.MOMENT, column) for key, column in _MOMENTS.items()),
    Kept("ema", Layout.WHOLE, "ema", lambda group, _: group["ema_decay"] is not None),
    Kept(
        "master",
        Layout.WHOLE,
        "master",
        lambda group, p: group["master_weights"] and p.dtype in tensors.NARROW,
    ),
    Kept("mask", Layout.BITS, "mask", lambda group, _: group.get("mode") == "D"),
)
"""Every entry that a state can have, in the order in which it has them."""


def is_wanted(kept: Kept, rule: ops.OptimRule, group: Mapping[str, Any], p: Tensor) -> bool:
    """Tell whether a step by this rule needs an entry for a parameter."""
    if kept.layout is Layout.MOMENT:
        return kept.key in rule.moments
    return kept.layout is Layout.COUNT or (kept.wanted is not None and kept.wanted(group, p))


def in_table(
    rule: ops.OptimRule, group: Mapping[str, Any], p: Tensor, state: Mapping[str, Any]
) -> tuple[Kept, ...]:
    """Return the entries that the kernel reads or writes in a step."""
    return tuple(
        kept
        for kept in SCHEMA
        if kept.column and kept.key in state and is_wanted(kept, rule, group, p)
    )


def state_bytes(states: Iterable[Mapping[str, Any]]) -> int:
    """Return the memory of states in bytes."""
    values = (state.get(kept.key) for state in states for kept in SCHEMA)
    return sum(x.nbytes for x in values if isinstance(x, Tensor))


# --- at the first step ----------------------------------------------------------------------------


def initialise(
    rule: ops.OptimRule, group: Mapping[str, Any], p: Tensor, state: State, mask: Tensor | None
) -> None:
    """Add what a step needs and a state does not have; `mask` is the one that was given."""
    state.setdefault("step", 0)
    mask = state.get("mask", mask) if group.get("mode") == "D" else None
    for kept in SCHEMA:
        if not is_wanted(kept, rule, group, p):
            continue
        missing = kept.key not in state
        if kept.layout is Layout.MOMENT and missing:
            state[kept.key] = _zeros(p, mask if group.get("compact") else None)
        elif kept.layout is Layout.WHOLE and (missing or state["step"] == 0):
            # Before the first step the weights of now count, whatever made the state.
            state[kept.key] = p.detach().to(tensors.state_dtype(p), copy=True)
        elif kept.layout is Layout.BITS and mask is not None:
            state[kept.key] = mask


def is_new(rule: ops.OptimRule, state: Mapping[str, Any]) -> bool:
    """Tell whether a step by this rule is the first that a state has moments for."""
    return any(key not in state for key in rule.moments)


def _zeros(p: Tensor, child: Tensor | None) -> Tensor:
    dtype = tensors.state_dtype(p)
    if child is None:
        return torch.zeros_like(p, dtype=dtype, requires_grad=False)
    return torch.zeros(tensors.count_ones(child), dtype=dtype, device=p.device)


# --- between two steps ----------------------------------------------------------------------------


def exchange_mask(
    state: State, p: Tensor, mask: Tensor, moments: Iterable[str], *, compact: bool, keep: bool
) -> None:
    """Put a packed mask in the place of the one that a state has.

    Moments of the elements that stay in the child network stay. With `keep` so do those of the
    elements that leave it; otherwise they become zero.
    """
    size = sharded.local(p).numel()
    before, after = (tensors.mask_bits(m, size) for m in (state["mask"], mask))
    for key in moments:
        if key not in state:
            continue
        moment = state[key]
        if compact:
            whole = torch.zeros(size, dtype=moment.dtype, device=moment.device)
            whole[before] = moment
            state[key] = whole[after]
        elif not keep:
            own = sharded.local(moment)
            own.mul_(after.reshape(own.shape))
    state["mask"] = mask


# --- on its way out -------------------------------------------------------------------------------


def saved(p: Tensor, state: Mapping[str, Any]) -> State:
    """Return a parameter's state as it is saved."""
    out = dict(state)
    bits = None
    if "mask" in state and sharded.is_sharded(p):
        # Bits, and moments of the child alone, have no layout over processes: the whole has.
        part = sharded.local(p)
        bits = tensors.mask_bits(state["mask"], part.numel()).reshape(part.shape)
    for kept in SCHEMA:
        if kept.key in out:
            out[kept.key] = _saved_as(kept.layout, out[kept.key], p, bits)
    return out


def _saved_as(layout: Layout, value: Any, p: Tensor, bits: Tensor | None) -> Any:
    if layout is Layout.COUNT:
        # A tensor, as torch has it; inside it is an int, which costs nothing to count up.
        # Not of the default type: bfloat16 cannot count beyond 256.
        return torch.tensor(float(value), dtype=torch.float32)
    if bits is None:
        return value
    if layout is Layout.BITS:
        return sharded.like(bits, p)
    if layout is Layout.MOMENT and not sharded.is_sharded(value):
        whole = torch.zeros(bits.shape, dtype=value.dtype, device=value.device)
        whole[bits] = value
        return sharded.like(whole, p)
    return value


# --- on its way in --------------------------------------------------------------------------------


class Loading(NamedTuple):
    """A parameter whose saved state is to be loaded.

    `owner` and `name` are for messages; `moments` are all that the class knows, `needed` those
    without which there is no step. With `compact`, moments are those of the child network: of the
    mask that the state has, else of `mask`. `uncounted` is the step of a state that has no count.
    """

    owner: str
    name: str
    p: Tensor
    moments: tuple[str, ...]
    needed: tuple[str, ...]
    compact: bool
    mask: Tensor | None
    uncounted: int | None


def loaded(to: Loading, source: Mapping[str, Any] | None) -> State | None:
    """Return a copy of a parameter's saved state in the types of the kernel.

    Raises
    ------
    ValueError, TypeError
        If an entry is missing or does not fit the parameter.
    """
    if not source:  # an empty one is what a look into the state of a parameter leaves there
        return None
    source = {key: value for key, value in source.items() if value is not None}
    step = source.get("step", to.uncounted)
    if step is None or not set(to.needed) <= set(source):
        wanted = " and ".join(("step", *to.needed))
        raise ValueError(
            f"{to.owner}: the state of {to.name!r} must have {wanted}, got {sorted(source)}."
        )
    own: State = {"mask": _loaded_bits(to, source["mask"])} if "mask" in source else {}
    child = own.get("mask", to.mask) if to.compact else None
    for kept in SCHEMA:
        key = kept.key
        if kept.layout is Layout.COUNT:
            own[key] = _count(to, step)
        elif kept.layout is Layout.WHOLE and key in source:
            own[key] = _loaded_whole(to, key, source[key])
        elif kept.layout is Layout.MOMENT and key in source and key in to.moments:
            if child is None:
                own[key] = _loaded_whole(to, key, source[key])
            else:
                own[key] = _loaded_compact(to, key, source[key], child)
    return {kept.key: own[kept.key] for kept in SCHEMA if kept.key in own}


def _copied(
    to: Loading, key: str, value: Any, kind: torch.dtype, *shapes: tuple[int, ...]
) -> Tensor:
    if not isinstance(value, Tensor) or value.is_floating_point() != kind.is_floating_point:
        got = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
        what = "floating-point" if kind.is_floating_point else str(kind)
        raise TypeError(
            f"{to.owner}: state {key!r} of {to.name!r} must be a {what} tensor, got {got}."
        )
    if tuple(value.shape) not in shapes:
        raise ValueError(
            f"{to.owner}: state {key!r} of {to.name!r} must have shape "
            f"{' or '.join(map(str, shapes))}, got {tuple(value.shape)}."
        )
    out: Tensor = value.detach().to(to.p.device, kind, copy=True).contiguous()
    return out


def _loaded_whole(to: Loading, key: str, value: Any) -> Tensor:
    copy = _copied(to, key, value, tensors.state_dtype(to.p), tuple(to.p.shape))
    if sharded.is_sharded(to.p):
        return sharded.laid_out(copy, to.p)
    return tensors.like_memory(sharded.whole(copy), to.p)


def _loaded_bits(to: Loading, value: Any) -> Tensor:
    p, whole = to.p, tuple(to.p.shape)
    if getattr(value, "dtype", None) is torch.bool:  # of a DTensor, see `saved`
        bits = sharded.laid_out(_copied(to, "mask", value, torch.bool, whole), p)
        return tensors.packed(sharded.local(bits))
    mask = _copied(to, "mask", value, torch.uint8, (tensors.mask_bytes(p.numel()),))
    if not sharded.is_sharded(p):
        return mask
    bits = tensors.mask_bits(mask, p.numel()).reshape(whole)
    return tensors.packed(sharded.part(bits, p))


def _loaded_compact(to: Loading, key: str, value: Any, child: Tensor) -> Tensor:
    """Moments of the child; whole ones are cut down to it, and of a DTensor they come whole."""
    p, short = to.p, (tensors.count_ones(child),)
    across = sharded.is_sharded(p)
    shapes = (tuple(p.shape),) if across else (short, tuple(p.shape))
    copy = _copied(to, key, value, tensors.state_dtype(p), *shapes)
    if not across and tuple(copy.shape) == short:
        return copy
    part = sharded.local(sharded.laid_out(copy, p))
    return part.flatten()[tensors.mask_bits(child, part.numel())]


def _count(to: Loading, step: Any) -> int:
    """Return a saved step count, a number or a one-element tensor, as an integer."""
    function, argument = to.owner, f"state 'step' of {to.name!r}"
    value = as_number(step)
    if value is None:
        raise TypeError(f"{function}: {argument} must be a number, got {step!r}.")
    if not 0 <= value < math.inf or value != int(value):
        raise ValueError(
            f"{function}: {argument} must be a whole number of at least 0, got {step!r}."
        )
    return int(value)
