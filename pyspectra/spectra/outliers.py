"""How large the largest entries of a layer may be before they count as outliers of its own tail.

Entries of heavy tails make directions of their own in any order: one of size a, in a matrix of
entries of variance v, the eigenvalue ``(a^2 + N v) (a^2 + M v) / a^2`` if ``a^2 > v sqrt(N M)``.
They are no traps if the tail of the others goes on that far. A power law is fitted to the
spacings of the largest entries, without the very largest, and continued; tails that fall faster
than a power law are bounded by it.

References
----------
Hill, "A simple general approach to inference about the tail of a distribution", Ann. Stat. 3
(1975): ``i log(x_i / x_(i+1))`` are independent and exponential under a power law (Renyi).
Benaych-Georges, Nadakuditi, "The singular values and vectors of low rank perturbations of large
rectangular random matrices", J. Multivariate Anal. 111 (2012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra.types import FloatArray

# One layer in a hundred has an entry beyond the reach.
LEVEL = 0.01
# The tail is the largest hundredth of the entries that are not zero, within these numbers.
SHARE = 0.01
FEWEST, MOST = 16, 200
# The largest part of the tail, which may be outliers, is left out of the fit.
LEFT_OUT = 0.25
# Entries of a sample, from evenly spaced rows.
SAMPLE = 2**16


@dataclass(frozen=True)
class OwnTail:
    """What the entries of a layer explain of its largest eigenvalue in random order.

    Attributes
    ----------
    largest : float
        What the largest entry, less the mean, exceeds in one case of a hundred; infinity where the
        entries are too few to tell.
    kurtosis : float
        Excess kurtosis of the entries up to there.
    reach : float
        The eigenvalue of an entry of that size, as a share of the sum of all eigenvalues; 0 where
        it is within the bulk.
    means : int
        Number of matrices whose mean makes a direction of its own.
    """

    largest: float
    kurtosis: float
    reach: float
    means: int


def own_tail(matrices: Sequence[HostArray]) -> OwnTail:
    """Describe the tail of the entries of equally shaped, finite matrices, all together."""
    rows, cols = matrices[0].shape
    means = [float(np.mean(X.data, dtype=np.float64)) for X in map(_as_float, matrices)]
    step = max(1, len(matrices) * rows * cols // SAMPLE)
    parts = [X.view(slice(None, None, step)).to_float64() for X in matrices]
    sample = np.concatenate([part.ravel() - m for part, m in zip(parts, means, strict=True)])
    largest = _largest(_tail(matrices, means, sample))
    kept = sample[np.abs(sample) <= largest]
    squares = kept * kept
    variance = float(np.mean(squares)) if len(kept) else 0.0
    if not variance > 0.0:
        return OwnTail(largest, 0.0, 1.0, 0)
    kurtosis = float(np.mean(squares * squares)) / variance**2 - 3.0
    edge = (math.sqrt(rows) + math.sqrt(cols)) ** 2
    shifted = sum(rows * cols * m * m > edge * variance for m in means)
    square = largest**2 / variance
    reach = 0.0
    if square > math.sqrt(rows * cols):
        own = (square + rows) * (square + cols) / square
        reach = min(1.0, own / (len(matrices) * rows * cols))
    return OwnTail(largest, kurtosis, reach, shifted)


def _as_float(X: HostArray) -> HostArray:
    """The matrix itself, or one of float64 where numpy cannot add its numbers (bfloat16)."""
    return X if X.data.dtype.kind == "f" else HostArray(X.to_float64(), "float64")


def _tail(matrices: Sequence[HostArray], means: Sequence[float], sample: FloatArray) -> FloatArray:
    """The largest entries by size, less the means, descending, and one more."""
    size = matrices[0].data.size * len(matrices)
    sizes = np.abs(sample)
    nonzero = size * np.count_nonzero(sizes) // max(1, len(sizes))
    count = min(max(int(nonzero * SHARE), FEWEST), MOST, int(nonzero) - 1)
    if count < FEWEST:
        return np.empty(0)
    # Twice as many as wanted lie above this, if the sample is like the whole.
    place = max(0, len(sizes) - 1 - 2 * count * len(sizes) // size)
    above = float(np.partition(sizes, place)[place])
    for floor in (above, 0.0):
        found = []
        for X, m in zip(matrices, means, strict=True):
            deviations = np.abs(_as_float(X).data - m)
            found.append(deviations[deviations > floor].astype(np.float64))
        tail = np.sort(np.concatenate(found))[::-1]
        if len(tail) > count:
            return tail[: count + 1]
    return np.empty(0)


def _largest(tail: FloatArray) -> float:
    """What the largest of a power law exceeds in one case of a hundred, from the spacings below."""
    if not len(tail) or not tail[-1] > 0.0:
        return math.inf
    first = math.ceil(LEFT_OUT * (len(tail) - 1))
    logs = np.log(tail)
    ranks = np.arange(first, len(tail))
    spacings = ranks * (logs[first - 1 : -1] - logs[first:])
    used = len(spacings)
    # One more exponential variable than the mean of so many tells: (1 + x / sum)^-used.
    ratio = float(spacings.sum()) * ((first / LEVEL) ** (1.0 / used) - 1.0)
    return float(tail[first - 1]) * math.exp(min(ratio, 300.0))
