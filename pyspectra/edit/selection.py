"""The k-th smallest magnitude of more numbers than fit into memory, exactly.

The bit patterns of positive float64 numbers are in the order of the numbers. A histogram of their
leading bits tells which of its bins holds the one that is sought, another reading the next bits of
those in this bin, and so on until none are left: one reading for 16-bit types, two for float32,
three for float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from pyspectra.types import FloatArray

__all__ = ["kth_magnitude"]

# Three times this is 63, all bits but the sign. The first time these are the exponent and ten bits
# of the significand.
_BITS: Final = 21
_ROUNDS: Final = 3
_FIRST_FRACTION_BITS: Final = _BITS - 11


def kth_magnitude(
    read: Callable[[], Iterable[FloatArray]], share: float, fraction_bits: int
) -> float:
    """Find the magnitude up to which a share of all numbers lies.

    Parameters
    ----------
    read : callable
        Returns the numbers, some at a time, all finite; it is called once for each reading.
    share : float
        Of n numbers, the round(share n)-th smallest by magnitude is returned.
    fraction_bits : int
        Bits of the significands after the leading one, at most: of what the numbers were before
        they became float64.

    Returns
    -------
    float
        -1 if that is the magnitude of none.
    """
    prefix, below, count = 0, 0, -1
    for round_ in range(_ROUNDS):
        shift = _BITS * (_ROUNDS - 1 - round_)
        histogram = np.zeros(1 << _BITS, np.int64)
        for values in read():
            bits = np.abs(values).reshape(-1).view(np.int64) >> shift
            if round_:
                bits = bits[bits >> _BITS == prefix] & ((1 << _BITS) - 1)
            histogram += np.bincount(bits, minlength=1 << _BITS)
        if count < 0:
            count = round(share * int(histogram.sum()))
            if count == 0:
                return -1.0
        reached = below + np.cumsum(histogram)
        found = int(np.searchsorted(reached, count))
        below = int(reached[found]) - int(histogram[found])
        prefix = (prefix << _BITS) | found
        if _FIRST_FRACTION_BITS + _BITS * round_ >= fraction_bits:
            break  # all further bits are zero
    return float(np.array(prefix << shift, np.int64).view(np.float64))
