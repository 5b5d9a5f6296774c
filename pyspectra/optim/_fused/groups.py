"""Parameter groups: the checks of their options, and what these come to at a step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused.options import OPTIONS, SHARED

_KERNEL = [(name, option.kernel) for name, option in OPTIONS.items() if option.kernel]
_SHAPING = [(name, option.shapes) for name, option in OPTIONS.items() if option.shapes]
_CHECKED = [name for name, option in OPTIONS.items() if option.check and not option.of_whole]

# How alike a key of a group must be to an option to be a slip, and not the caller's own.
_SLIP = 0.85


def check_option(owner: str, name: str, value: Any) -> Any:
    """Return the value of an option in plain types; raise, naming it, if it is out of range."""
    check = OPTIONS[name].check
    return value if check is None else check(owner, name, value)


def with_defaults(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the options that every optimizer has.

    Raises
    ------
    ArgumentTypeError
        If there is no such option.
    """
    for name in given.keys() - SHARED.keys():
        raise ArgumentTypeError(
            owner,
            name,
            "be an option of the optimizer",
            repr(given[name]),
            did_you_mean(name, OPTIONS, _SLIP),
        )
    return {name: given.get(name, option.default) for name, option in SHARED.items()}


def checked_group(owner: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one group of the class `owner`, complete, in plain types.

    Raises
    ------
    ArgumentValueError, ArgumentTypeError
        If an option is out of range, or does not go with another; the message names it.
    """
    out = dict(group)
    for name in _CHECKED:
        if name in out:
            out[name] = check_option(owner, name, out[name])
    _check_together(owner, out)
    return out


def _check_together(owner: str, group: Mapping[str, Any]) -> None:
    if group.get("compact") and group.get("mode") != "D":
        raise ArgumentValueError(
            owner, "compact", "come with mode='D'", f"mode={group.get('mode')!r}"
        )
    if group.get("nesterov") and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ArgumentValueError(
            owner,
            "nesterov",
            "come with a positive momentum and no dampening",
            f"momentum={group['momentum']!r}, dampening={group['dampening']!r}",
        )


def check_names(owner: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse in a group what would be accepted and not obeyed.

    Keys that are no option of any optimizer are the caller's own, unless they look like a slip.

    Raises
    ------
    ArgumentValueError
        If there is such a key; the message names it.
    """
    for name in given:
        if name in ("params", "param_names") or (name in defaults and name in OPTIONS):
            continue
        option = OPTIONS.get(name)
        if option is not None and option.of_whole:
            raise ArgumentValueError(
                owner, name, "be given to the optimizer, not to a group", "a group that has it"
            )
        hint = did_you_mean(name, defaults, _SLIP)
        if option is not None or hint is not None:
            raise ArgumentValueError(
                owner, name, f"be an option that {owner} has", "a group that has it", hint
            )


class Watch:
    """Checks options that have changed since it looked last: users and schedulers set them.

    Parameters
    ----------
    owner : str
        Class that error messages name.
    defaults : Mapping
        Options that groups of this class have.
    """

    def __init__(self, owner: str, defaults: Mapping[str, Any]) -> None:
        self._owner = owner
        self._defaults = defaults
        self._seen: list[dict[str, Any]] = []

    def check(self, groups: list[dict[str, Any]]) -> None:
        """Check what is new in these groups, and bring it to plain types.

        Raises
        ------
        ArgumentValueError, ArgumentTypeError
            If an option is out of range; the message names it.
        """
        del self._seen[len(groups) :]
        self._seen += [{} for _ in groups[len(self._seen) :]]
        for group, seen in zip(groups, self._seen, strict=True):
            if group.keys() != seen.keys():
                check_names(self._owner, group, self._defaults)
                kept = {k: x for k, x in seen.items() if k in group}
                seen.clear()
                seen.update({**dict.fromkeys(group, self), **kept})  # itself: no option's value
            changed = [k for k in _CHECKED if k in group and group[k] is not seen[k]]
            for name in changed:
                group[name] = seen[name] = check_option(self._owner, name, group[name])
            if changed:
                _check_together(self._owner, group)


def shaping(groups: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return, for each group, what of its options decides the rows of the kernel's table."""
    return [
        (
            *(shape(group[name]) for name, shape in _SHAPING if name in group),
            *group.get("param_names", ()),
        )
        for group in groups
    ]


def is_random(group: Mapping[str, Any]) -> bool:
    """Tell whether a step draws random numbers."""
    return group.get("mode") == "F" or bool(group["stochastic_rounding"])


def warn_of_rounding(owner: str, entries: Iterable[tuple[str, Tensor, Mapping[str, Any]]]) -> None:
    """Say that float16 parameters do not round stochastically, where that was asked for."""
    for name, p, group in entries:
        if group["stochastic_rounding"] and p.dtype is torch.float16:
            warnings.warn(
                f"{owner}: 'stochastic_rounding' does nothing for float16 parameters such as "
                f"{name!r}: they round to nearest. Hint: bfloat16 parameters, or "
                "master_weights=True instead.",
                UserWarning,
                stacklevel=2,
            )
            return


def step_options(
    rule: ops.OptimRule,
    group: Mapping[str, Any],
    step: int,
    grad_scale: float,
    *,
    momentum_start: int,
    ema_lead: int,
) -> Any:
    """Options of a group at a step (counted from 1), as the kernel reads them.

    `momentum_start` is the step at which the momentum of these parameters began, `ema_lead` how
    many steps of the optimizer they have missed before.
    """
    values: dict[str, Any] = {}
    for name, kernel in _KERNEL:
        if name in group:
            values.update(kernel(group[name], group))
    return ops.StepOptions(
        rule=rule.code,
        step=step,
        grad_scale=grad_scale,
        momentum_start=momentum_start,
        ema_lead=ema_lead,
        **values,
    )
