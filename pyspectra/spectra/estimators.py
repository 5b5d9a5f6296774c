"""Names of power-law estimators, and the arguments that a name may carry: ``"hill(50)"``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pyspectra._support.arguments import shown
from pyspectra._support.text import did_you_mean
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

# Those for which the literature has bounds of alpha: WeightWatcher's, and the one that its fits
# were made with before (the package powerlaw). Others put other numbers on the same spectrum.
CALIBRATED = ("ww", "csn")

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
        hint = did_you_mean(text, ESTIMATORS)
        raise ArgumentValueError(function, "estimator", listed, shown(text), hint)
    name, given = call[1], [part.strip() for part in (call[2] or "").split(",")]
    if given == [""]:
        return Estimator(name)
    wanted = _ARGUMENTS[name]
    if len(given) > len(wanted):
        takes = ", ".join(argument for argument, _, _ in wanted)
        most = f"be '{name}({takes})' at most" if takes else f"be {name!r}, without arguments"
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


# Documentation of the functions that fit by a named estimator.
ARGUMENTS = """\
estimator : str
        A name, with or without arguments (see Notes): ``"ww"``, ``"csn"``, ``"hill"``,
        ``"tempbalance_median"``, ``"fix_finger"`` or ``"tpl"``.
    xmin : float, optional
        Take the tail ``x >= xmin`` instead of scanning. Estimators ``"ww"``, ``"csn"``, ``"tpl"``.
    xmax : float, optional
        Leave out points above it.
    k : int, optional
        Estimator ``"hill"``: points in the tail; half of them by default.
    threshold : float
        Points must exceed it (absolute); WeightWatcher's 1e-5 by default.
    bootstrap : int
        Replicates for ``ci`` and ``p_value``; 0 for neither. 1000 give the ends of the interval and
        a p-value near 0.1 to about 0.01.
    seed : int, optional
        Seed of the bootstrap, in [0, 2^64); None draws a fresh one. Each spectrum has random
        numbers of its own, which depend on the seed and its place in the list only.
"""
NOTES = """\
Notes
    -----
    The estimators, on points x of which the m with x >= xmin are the tail:

    ``ww``
        ``alpha = 1 + m / sum ln(x / xmin)``, xmin the point with the smallest Kolmogorov-Smirnov
        distance D, as WeightWatcher 0.7.7 does (also its rule below 20 points).
    ``csn``, ``csn(min_tail)``
        By the book: distinct xmin only, D from both sides of each step of the empirical
        distribution, at least `min_tail` (10) points in the tail, and the unbiased ``alpha = 1 +
        (m - 1) / sum ln(x / xmin)``.
    ``hill``, ``hill(k)``
        The `k` largest points; xmin is the next one below them.
    ``tempbalance_median``
        The upper half of the points.
    ``fix_finger``, ``fix_finger(xmin_max)``
        `ww` with xmin near the fullest of 100 bins of log10 x, no further up than `xmin_max`.
    ``tpl``
        ``p(x) ~ x^-alpha e^(-Lambda x)`` by maximum likelihood on the tail that `ww` finds. No
        bootstrap.

    The bootstrap is semi-parametric, after Clauset et al.: points below xmin are drawn from the
    data, those above from the fitted law, and xmin is chosen anew in every replicate. ``ci`` and
    ``p_value`` are defined in ``pyspectra/spectra/bootstrap.py``; ``benchmarks/README.md`` says how
    often the interval covers a known alpha and how uniform p-values are. Both assume independent
    points, which eigenvalues of one matrix are not: they repel each other. Far out in a heavy tail
    that matters little. In a bulk they are spaced so evenly that alpha at a fixed share of the
    points (``tempbalance_median``) varies, from one Gaussian matrix to the next, by a sixth of what
    ``ci`` says, while the xmin that a scan chooses there jumps by more.

    References
    ----------
    Clauset, Shalizi, Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009).
    Hill, "A simple general approach to inference about the tail of a distribution" (1975).
    Zhou et al., "Temperature balancing, layer-wise weight analysis, and neural network training",
    NeurIPS 2023 (``tempbalance_median``).
"""
