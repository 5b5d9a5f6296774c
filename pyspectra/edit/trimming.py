"""The largest numbers of a long vector that is read a part at a time, and never held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from pyspectra.types import FloatArray

__all__ = ["Trim", "kth_largest", "largest"]

# So many numbers are held at most.
HELD: Final = 1 << 18
# The bits of a float64 without its sign in digits, from the first: how far to shift, how many bits.
_DIGITS: Final = ((47, 16), (31, 16), (15, 16), (0, 15))


class Trim:
    """Keeps the largest numbers of a vector by magnitude, whose parts it is given in their order.

    Parameters
    ----------
    limit : float
        Numbers above it stay, those below become zero.
    equals : int or None
        How many of those that equal it stay, the first ones; None for all.
    """

    def __init__(self, limit: float, equals: int | None = None) -> None:
        self.limit = limit
        self.equals = equals

    def __call__(self, part: FloatArray) -> FloatArray:
        """Return a part with zeros for the small numbers; a NaN stays."""
        size = np.abs(part)
        if self.equals is None:
            return np.where(size < self.limit, 0.0, part)
        stays = ~(size <= self.limit)
        if self.equals > 0:
            found = np.flatnonzero(size == self.limit)[: self.equals]
            stays.flat[found] = True
            self.equals -= len(found)
        return np.where(stays, part, 0.0)


def largest(parts: Callable[[], Iterable[FloatArray]], total: int, count: int) -> Trim:
    """Find out which numbers of a vector are the largest by magnitude.

    Parameters
    ----------
    parts : callable
        Reads the vector from its beginning, each time it is called.
    total : int
        How many numbers it has.
    count : int
        How many of them stay, up to all.

    Returns
    -------
    Trim
        Of numbers of equal magnitude the first ones stay. NaN is larger than any number.

    Notes
    -----
    A short vector is sorted. Of a long one the magnitudes are counted by their first 16 bits; then
    those that agree with the one that is looked for are sorted, if they are few, or counted by
    their next 16 bits. So it is read twice, or up to five times where very many are nearly equal.
    """
    if count >= total:
        return Trim(-1.0)
    if count <= 0:
        return Trim(np.inf, 0)
    return Trim(*kth_largest(parts, total, count))


def kth_largest(
    parts: Callable[[], Iterable[FloatArray]], total: int, count: int
) -> tuple[float, int]:
    """Find the magnitude of one number among all that are sorted by it.

    Parameters
    ----------
    parts, total
        As for `largest`.
    count : int
        Which number: 1 for the largest, `total` for the smallest.

    Returns
    -------
    limit : float
        Its magnitude.
    equals : int
        How many of those that equal it are among the `count` largest.
    """
    known, left = 0, total  # the digits of the number so far; how many have them
    for shift, width in _DIGITS:
        if left <= HELD:
            return _sorted(parts, shift + width, known, count)
        counts = np.zeros(1 << width, np.int64)
        for bits in _beginning_with(parts, shift + width, known):
            digits = ((bits >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int64)
            counts += np.bincount(digits, minlength=1 << width)
        up_to = np.cumsum(counts[::-1])[::-1]  # how many have this digit or a larger one
        digit = int(np.flatnonzero(up_to >= count)[-1])
        count -= int(up_to[digit] - counts[digit])
        known, left = known << width | digit, int(counts[digit])
    return _number(known), count


def _sorted(
    parts: Callable[[], Iterable[FloatArray]], shift: int, known: int, count: int
) -> tuple[float, int]:
    bits = np.sort(np.concatenate([*_beginning_with(parts, shift, known)]))
    limit = bits[-count]
    return _number(int(limit)), count - int(np.count_nonzero(bits > limit))


def _beginning_with(
    parts: Callable[[], Iterable[FloatArray]], shift: int, known: int
) -> Iterable[np.ndarray]:
    """Yield the bits of the magnitudes whose first digits are known."""
    for part in parts():
        bits = np.abs(part).reshape(-1).view(np.uint64)
        yield bits if shift >= 63 else bits[bits >> np.uint64(shift) == known]


def _number(bits: int) -> float:
    return float(np.array(bits, np.uint64).view(np.float64))
