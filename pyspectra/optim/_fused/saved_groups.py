"""Saved groups on their way in: from this package or from the optimizers of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pyspectra.errors import ArgumentValueError
from pyspectra.optim._fused.groups import checked_group
from pyspectra.optim._fused.options import OPTIONS

# What torch's optimizers save of how they do it, not of what: an optimizer keeps its own.
_OF_TORCH = ("foreach", "capturable", "fused", "decoupled_weight_decay")


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
        raise ArgumentValueError(
            owner,
            "state_dict",
            "have state and param_groups, as state_dict() returns them",
            str(sorted(map(str, source))),
        )


def check_order(
    owner: str, mine: Iterable[Mapping[str, Any]], theirs: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse a state whose parameters have the same names in another order.

    States go by position, so the moments of one parameter would become those of another.
    """
    own, saved = (
        [name for group in groups for name in group.get("param_names") or ()]
        for groups in (mine, theirs)
    )
    if own != saved and sorted(own) == sorted(saved):
        i = next(i for i, (a, b) in enumerate(zip(own, saved, strict=True)) if a != b)
        raise ArgumentValueError(
            owner,
            "state_dict",
            "have the parameters in the order of the optimizer",
            f"{saved[i]!r} in the place of {own[i]!r}",
        )


class Family(NamedTuple):
    """What tells the states of one of torch's optimizers from those of its others.

    `mark` is an option that it saves whenever it saves ``foreach``, and others of the same options
    do not; `decoupled` is what it says of its weight decay.
    """

    mark: str
    decoupled: bool


def merged_group(
    owner: str,
    mine: Mapping[str, Any],
    theirs: Mapping[str, Any],
    defaults: Mapping[str, Any],
    family: Family,
) -> dict[str, Any]:
    """Return a saved group completed with the options that torch's do not have.

    Raises
    ------
    ValueError, TypeError
        If it belongs to another update rule, or an option is out of range.
    """
    needed = {k for k in defaults if k in OPTIONS and OPTIONS[k].in_torch}
    of_torch = "foreach" in theirs and "ema_decay" not in theirs
    if not needed <= set(theirs) or (of_torch and family.mark not in theirs):
        got = f"one of another update rule, whose groups have {sorted(map(str, theirs))}"
        raise ArgumentValueError(owner, "state_dict", "be of this update rule", got)
    if theirs.get("decoupled_weight_decay", family.decoupled) != family.decoupled:
        own, other = ("decoupled", "L2") if family.decoupled else ("L2", "decoupled")
        requirement, got = f"be of Adam with {own} decay", f"one of Adam with {other} decay"
        raise ArgumentValueError(owner, "state_dict", requirement, got)
    kept = {k: v for k, v in mine.items() if k in defaults}
    of_others = {*_OF_TORCH, *(OPTIONS.keys() - defaults.keys())}
    return checked_group(owner, {**kept, **{k: v for k, v in theirs.items() if k not in of_others}})


def mode_changes(
    mine: Iterable[Mapping[str, Any]], merged: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Say which groups a loaded state masks otherwise than the optimizer was made to."""
    return [
        f"'mode' of group {i} from {own.get('mode')!r} to {new.get('mode')!r}"
        for i, (own, new) in enumerate(zip(mine, merged, strict=True))
        if own.get("mode") != new.get("mode")
    ]
