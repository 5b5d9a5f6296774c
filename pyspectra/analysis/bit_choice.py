"""What rounding does to one layer, and the choice of bits for each that follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pyspectra.types import Value

__all__ = ["COSTS", "LayerSensitivity", "cheapest", "within"]

# A mean of bits that is off by rounding alone is the mean that was asked for.
ROUNDING = 1e-9
# Into so many units the bits are cut that a budget has room for.
MOST_UNITS = 20_000


@dataclass(frozen=True, eq=False)
class LayerSensitivity(Value):
    """What rounding one layer to some number of bits does.

    Attributes
    ----------
    name, key, kind : str
        The layer, its parameter and what it is.
    shape : tuple of int
        As stored.
    bits : int
        Bits of an integer.
    error : float
        ``|E|_F / |W|_F`` with ``E = W - Q``.
    spectrum_change : float
        Largest relative change among the largest tenth of the eigenvalues of ``W^T W``.
    error_over_edge : float
        ``|E|_2`` over the upper edge of a random matrix of the same shape and norm: about 1 where
        the error is noise, more where it has directions of its own.
    share_below_error : float
        Share of the singular values of W that are smaller than ``|E|_2``: rounding may turn their
        directions anywhere.
    alpha, alpha_stderr, alpha_after : float
        Tail exponent before and its standard error; tail exponent after.
    output_change : float
        Norm of the change of the network's output over the norm of the output, this layer alone
        being rounded; NaN without data.
    loss_change : float
        Change of the mean loss likewise; NaN without a loss.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> (row,) = ps.quantization_sensitivity({"fc.weight": W}, 4).layers
    >>> round(row.error, 2), round(row.error_over_edge, 1), row.alpha_moved
    (0.1, 1.1, False)
    """

    name: str
    key: str
    kind: str
    shape: tuple[int, ...]
    bits: int
    error: float
    spectrum_change: float
    error_over_edge: float
    share_below_error: float
    alpha: float
    alpha_stderr: float
    alpha_after: float
    output_change: float = math.nan
    loss_change: float = math.nan

    @property
    def parameters(self) -> int:
        """Number of its weights."""
        return math.prod(self.shape)

    @property
    def alpha_change(self) -> float:
        """Alpha after less alpha before; NaN where one has no fit."""
        return self.alpha_after - self.alpha

    @property
    def alpha_moved(self) -> bool:
        """Whether alpha left its 95 % interval, 1.96 standard errors to each side."""
        return abs(self.alpha_change) > 1.96 * self.alpha_stderr


# What errors add up in: their squares, as independent ones do; a loss as it is.
COSTS: dict[str, Callable[[LayerSensitivity], float]] = {
    "error": lambda r: r.error**2,
    "spectrum_change": lambda r: r.spectrum_change**2,
    "alpha_change": lambda r: r.alpha_change**2,
    "output_change": lambda r: r.output_change**2,
    "loss_change": lambda r: max(r.loss_change, 0.0),
}


def within(rows: list[LayerSensitivity], by: str, limit: float) -> int:
    """Return the fewest bits at which a layer does not exceed a limit; the most if none do."""
    for row in rows:
        value = getattr(row, by)
        if math.isnan(value) or (value if by == "loss_change" else abs(value)) <= limit:
            return row.bits
    return rows[-1].bits


def cheapest(
    ladders: dict[str, list[LayerSensitivity]],
    cost: Callable[[LayerSensitivity], float],
    budget: float,
) -> dict[str, int]:
    """Return the bits of each layer whose costs add up to the least, within a mean of bits.

    By dynamic programming: `best` is the least cost of the layers so far for each number of units
    of room. A unit is the common divisor of the sizes of the layers, or a multiple of it where
    there would be too many: then what a layer takes is rounded up, so that the budget holds.
    """
    sizes = {key: rows[0].parameters for key, rows in ladders.items()}
    total = sum(sizes.values())
    taken = sum(rows[0].bits * sizes[key] for key, rows in ladders.items())
    room = int((budget + ROUNDING) * total) - taken
    common = math.gcd(*sizes.values())
    unit = common * max(1, math.ceil(room / (common * MOST_UNITS)))
    best = np.zeros(room // unit + 1)
    chosen: dict[str, np.ndarray] = {}
    for key, rows in ladders.items():
        base = cost(rows[0])
        found, choice = best.copy(), np.zeros(len(best), dtype=np.int64)
        for i, row in enumerate(rows[1:], start=1):
            more = -((rows[0].bits - row.bits) * sizes[key] // unit)  # rounded up
            if more < len(best):
                with_row = best[: len(best) - more] + (cost(row) - base)
                better = with_row < found[more:]  # NaN is not
                found[more:][better], choice[more:][better] = with_row[better], i
        best, chosen[key] = found, choice
    plan, left = {}, len(best) - 1
    for key, rows in reversed(ladders.items()):
        row = rows[int(chosen[key][left])]
        left += (rows[0].bits - row.bits) * sizes[key] // unit
        plan[key] = row.bits
    return dict(reversed(plan.items()))
