"""Names of power-law estimators, and the arguments that a name may carry: ``"hill(50)"``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyspectra._support.arguments import shown
from pyspectra._support.text import nearest
from pyspectra.errors import ArgumentValueError

# Each estimator and its arguments, in order, with the kind and the least value of each.
_ARGUMENTS: dict[str, tuple[tuple[str, type, float], ...]] = {
    "ww": (),
    "csn": (("min_tail", int, 3),),
    "hill": (("k", int, 1),),
    "tempbalance_median": (),
    "fix_finger": (("xmin_max", float, 0.0),),
    "tpl": (),
    "farms": (("window", int, 1), ("ops", int, 1), ("Q", float, 0.0)),
}
ESTIMATORS = tuple(_ARGUMENTS)

# Points of a tail, windows: the kernels count in 64 bits.
MAX_COUNT = 2**62

_CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


@dataclass(frozen=True)
class Estimator:
    """A parsed name: `name` is one of `ESTIMATORS`, `arguments` those that were given."""

    name: str
    arguments: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        values = (str(v) if isinstance(v, int) else f"{v:g}" for v in self.arguments.values())
        return f"{self.name}({', '.join(values)})"


def parse_estimator(text: str, function: str) -> Estimator:
    """Read ``"ww"``, ``"hill(50)"``, ``"csn(20)"``, ``"farms(2000, 15, 1)"`` and the like.

    Trailing arguments may be left out. Raises ArgumentValueError if there is no such estimator, or
    if its arguments are too many, no numbers or out of range.
    """
    call = _CALL.fullmatch(text) if isinstance(text, str) else None
    if call is None or call[1] not in _ARGUMENTS:
        listed = f"be one of {', '.join(map(repr, ESTIMATORS))}"
        near = nearest(text, ESTIMATORS) if isinstance(text, str) else None
        hint = None if near is None else f"did you mean {near!r}"
        raise ArgumentValueError(function, "estimator", listed, shown(text), hint)
    name, given = call[1], [part.strip() for part in (call[2] or "").split(",")]
    if given == [""]:
        return Estimator(name)
    wanted = _ARGUMENTS[name]
    if len(given) > len(wanted):
        takes = ", ".join(argument for argument, _, _ in wanted)
        most = (
            f"be '{name}({takes})', no more" if takes else f"be {name!r}, which takes no arguments"
        )
        raise ArgumentValueError(function, "estimator", most, repr(text))
    arguments: dict[str, int | float] = {}
    for (argument, kind, least), value in zip(wanted, given, strict=False):
        try:
            number = kind(value)
        except ValueError:
            number = math.nan
        if kind is float:
            inside, what = 0.0 < number < math.inf, "a positive number"
        else:
            inside, what = least <= number <= MAX_COUNT, f"an integer from {least:g} to 2^62"
        if not inside:
            requirement = f"have {what} for {argument!r}"
            raise ArgumentValueError(function, "estimator", requirement, repr(text))
        arguments[argument] = number
    return Estimator(name, MappingProxyType(arguments))
