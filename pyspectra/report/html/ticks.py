"""Where the ticks of an axis stand, and what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Axis", "axis"]


@dataclass(frozen=True)
class Axis:
    """An axis: from data to a share of its length.

    Attributes
    ----------
    low, high : float
        Ends of the data, or their logarithms.
    log : bool
    ticks : tuple of (float, str)
        Shares of the length, and labels.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Return where a value stands: 0 at the low end, 1 at the high one."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)


def axis(low: float, high: float, *, log: bool = False, padded: bool = True) -> Axis:
    """Return an axis for values from `low` to `high`."""
    if log:
        low, high = math.log10(low), math.log10(high)
    if not high > low:
        margin = 0.5 if log else 0.5 * abs(low) or 0.5
        low, high = low - margin, high + margin
    elif padded:
        margin = 0.05 * (high - low)
        low, high = low - margin, high + margin
    values = _powers(low, high) if log else _round(low, high)
    found = tuple(((v - low) / (high - low), label) for v, label in values)
    return Axis(low, high, log, found)


def _round(low: float, high: float) -> list[tuple[float, str]]:
    raw = (high - low) / 5
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 2.5, 5, 10) if m * scale >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:.6g}") for k in range(first, last + 1)]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks of a logarithmic axis: powers of ten, or parts of them on a short one."""
    decades = high - low
    parts: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    if decades > 1:
        parts = (1.0,) if decades > 2.5 else (1.0, 3.0)
    every = max(1, math.ceil(decades / 8))
    found = []
    for power in range(math.floor(low), math.ceil(high) + 1):
        if power % every:
            continue
        for part in parts:
            place = power + math.log10(part)
            if low <= place <= high:
                found.append((place, f"{part * 10.0**power:.3g}"))
    if len(found) > 1:
        return found
    return [(math.log10(v), label) for v, label in _round(10.0**low, 10.0**high)]
