"""P-values of a number among draws of a law, also where no draw comes near it.

They are those of Besag and Clifford: drawing stops when `HITS` draws were at least as large. One
that no draw reached is bounded by the gamma law with the moments of the draws.

References
----------
Besag, Clifford, "Sequential Monte Carlo p-values", Biometrika 78 (1991).
Knijnenburg et al., "Fewer permutations, more accurate P-values", Bioinformatics 25 (2009).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pyspectra.spectra.special import gamma_tails
from pyspectra.types import FloatArray

# A draw as large as the data counts; so many of them end the test.
HITS = 10
# Draws of which none is as large as the data are enough where these lie so many standard
# deviations from their mean, or where the gamma law of many of them says less than CLEAR: far below
# any level at which models of many layers are judged.
FAR = 12.0
CLEAR_DRAWS = 200
CLEAR = 1e-8
# The same of more draws, which tell a p-value that is not as small: below the levels, too.
SURE_DRAWS = 400
SURE = 1e-4
# Statistics that differ by less are the same but for rounding.
SAME = 1e-9


def hits(own: float | FloatArray, drawn: FloatArray) -> npt.NDArray[np.intp]:
    """Count the draws, along the last axis, that are at least as large but for rounding."""
    count: npt.NDArray[np.intp] = np.count_nonzero(drawn >= own - SAME * np.abs(own), axis=-1)
    return count


def is_far(own: float, drawn: FloatArray) -> bool:
    """Tell whether the data lie so far out that more draws would only say so again."""
    if hits(own, drawn):
        return False
    mean, variance, _ = _moments(drawn)
    if own - mean > FAR * math.sqrt(variance) + SAME * abs(own):
        return True
    if len(drawn) < CLEAR_DRAWS:
        return False
    return tail(own, drawn) < (CLEAR if len(drawn) < SURE_DRAWS else SURE)


def tail(own: float, drawn: FloatArray) -> float:
    """Share of draws at least as large; the tail of a gamma law where hardly any is."""
    reached, n = int(hits(own, drawn)), len(drawn)
    if reached >= HITS:
        return reached / n
    counted = (1 + reached) / (1 + n)
    if reached:
        return counted
    mean, variance, third = _moments(drawn)
    sd = math.sqrt(variance * n / (n - 1))
    if not sd > SAME * abs(mean):
        return counted
    skewness = max(third / sd**3, 0.5)
    shape = 4.0 / skewness**2
    return gamma_tails(shape, max(shape + math.sqrt(shape) * (own - mean) / sd, 0.0))[1]


def _moments(drawn: FloatArray) -> tuple[float, float, float]:
    """Mean, variance and third central moment of draws, each an average over all."""
    n = len(drawn)
    mean = float(drawn.sum()) / n
    left = drawn - mean
    squares = left * left
    return mean, float(squares.sum()) / n, float((squares * left).sum()) / n
