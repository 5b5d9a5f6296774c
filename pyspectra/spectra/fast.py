"""Spectra by float32, with a bound on every eigenvalue, and on alpha.

Each eigenvalue of a fast spectrum is within `FastSpectrum.bound` of the exact one: the difference
of what was solved and of what should have been is measured by random vectors, and Weyl's theorem
does the rest (``csrc/linalg/float_band.hpp`` has the proof). Nothing is assumed about how products
round. The bound fails with a probability below 1e-8, over the vectors, which do not depend on the
weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.random import Purpose, generator
from pyspectra.types import FloatArray, PowerLawFit, Status

# Smaller matrices are as fast in float64: those of 16-bit weights, and those of wider ones, whose
# products gain less.
FAST_ORDER = 1024
FAST_ORDER_WIDE = 2048

# A larger change of alpha is not accepted: float64 serves then.
ALPHA_CHANGE = 2.5e-3

# Rounding of the stages in float64, in units of n lambda_max: what the tests allow to it.
FLOAT64_STEPS = 20.0 * float(np.finfo(np.float64).eps)

# Eigenvalues above so many bounds have logarithms that the bound on alpha can use.
_RESOLVED = 8.0
# Fewer such eigenvalues say nothing of a tail.
_LEAST = 32
# Points at which the distances of all candidates are looked at.
_SAMPLES = 33


@dataclass(frozen=True)
class FastSpectrum:
    """Ascending eigenvalues, and what each of them may be wrong by."""

    evals: FloatArray
    bound: float


def fast_spectrum(X: HostArray) -> FastSpectrum | None:
    """Solve one matrix by float32; None where its range does not hold the numbers."""
    M = min(X.shape)
    probes = generator(Purpose.SUBSPACE, 0, "fast_spectrum").standard_normal((M, ops.FAST_PROBES))
    evals, bound, status = ops.fast_eigvals(X, probes)
    if status is not Status.OK:
        return None
    evals = np.maximum(evals, 0.0)
    return FastSpectrum(evals, bound + FLOAT64_STEPS * max(X.shape) * float(evals[-1]))


def alpha_range(evals: FloatArray, bound: float, fit: PowerLawFit) -> tuple[float, float] | None:
    """Bound the alpha that estimator ``"ww"`` finds for the exact eigenvalues.

    Parameters
    ----------
    evals : ndarray of float64, shape (n,)
        Ascending, each within `bound` of the exact one of the same index.
    bound : float
    fit : PowerLawFit
        The fit of `evals`, of those above any threshold.

    Returns
    -------
    (float, float) or None
        Between these lies the exact alpha; None where the bound is too wide to tell.

    Notes
    -----
    A logarithm moves by at most ``e_j = -log(1 - bound / x_j)``, so the sum ``T_i`` of a candidate
    moves by ``sum_j e_j + m e_i``: an interval for each exponent. The distance ``D_i`` moves by at
    most ``|change of log(alpha - 1)| / e + (alpha - 1) 2 e_i``, since ``z exp(-z) <= 1 / e``. The
    candidates that can win are those whose least distance is below the largest that the winner can
    have; the union of their intervals is returned. Candidates among eigenvalues that the bound does
    not resolve cannot win if `_least_distance` of all of them is larger.
    """
    n = len(evals)
    first = int(np.searchsorted(evals, _RESOLVED * bound))
    x = evals[first:]
    if len(x) < _LEAST or fit.status is not Status.OK or fit.xmin < x[0]:
        return None
    logs = np.log(x)
    errors = -np.log1p(-bound / x)
    m = np.arange(len(x), 0, -1.0)
    T = np.maximum(_suffix_sums(logs) - m * logs, 0.0)
    slack = _suffix_sums(errors) + m * errors
    with np.errstate(divide="ignore", invalid="ignore"):
        beta, low = m / T, m / (T + slack)
        high = np.where(slack < T, m / (T - slack), np.inf)
        moves = np.maximum(np.log(high / beta), np.log(beta / low)) / np.e + 2.0 * high * errors
    best = int(np.searchsorted(x, fit.xmin))
    # The last point alone has T = 0: it is no candidate.
    candidates = np.arange(len(x) - 1)
    if not np.isfinite(moves[best]) or best >= len(candidates):
        return None
    found = _distance(logs, beta, best)
    if not np.isclose(found, fit.D, rtol=0.0, atol=1e-9):
        return None  # it was made in another way than is bounded below
    largest = found + moves[best]
    if _least_distance(logs, errors, first, n, bound) <= largest:
        return None
    near = candidates[_sampled(logs, beta) - moves[:-1] <= largest]
    able = [i for i in near if not _distance(logs, beta, i) - moves[i] > largest]
    return 1.0 + float(np.min(low[able])), 1.0 + float(np.max(high[able]))


def _suffix_sums(x: FloatArray) -> FloatArray:
    return np.cumsum(x[::-1])[::-1]


def _distance(logs: FloatArray, beta: FloatArray, i: int) -> float:
    """D of the candidate i: ``csrc/powerlaw/fit.hpp``."""
    m = len(logs) - i
    model = -np.expm1(-beta[i] * (logs[i:] - logs[i]))
    return float(np.max(np.abs(model - np.arange(m) / m)))


def _sampled(logs: FloatArray, beta: FloatArray) -> FloatArray:
    """D of each candidate, from below: at some points of its tail; -inf where beta is infinite."""
    start = np.arange(len(logs) - 1)[:, None]
    m = len(logs) - start
    at = start + np.linspace(0.0, 1.0, _SAMPLES) * (m - 1)
    at = at.astype(np.int64)
    with np.errstate(invalid="ignore"):
        model = -np.expm1(-beta[:-1, None] * (logs[at] - logs[start]))
    D = np.max(np.abs(model - (at - start) / m), axis=1)
    return np.where(np.isnan(D), -np.inf, D)


def _least_distance(
    logs: FloatArray, errors: FloatArray, first: int, n: int, bound: float
) -> float:
    """Bound from below the D of every candidate among the `first`, unresolved eigenvalues.

    Only ``x <= (_RESOLVED + 1) bound`` is known of them. Infinity if there are none.

    Of a candidate with m points and L0 = log xmin, the model's survival at a point is exp(-z), with
    ``z = (L_j - L0) / mean(L - L0)``. A share p = (n - first) / m of the points is resolved, the
    others lie between L0 and h = log((_RESOLVED + 1) bound). So z lies between
    ``(L_j - L0) / (p (mean - L0) + (1 - p) (h - L0))`` and ``(L_j - L0) / (p (mean - L0))``, which
    are monotonic in L0: their ends are at L0 = h and at minus infinity, where they are 1 and 1 / p.
    """
    if first == 0:
        return np.inf
    h = np.log((_RESOLVED + 1.0) * bound)
    resolved = len(logs)
    mean, error = float(np.mean(logs)), float(np.mean(errors))
    if mean - error <= h:
        return 0.0
    at = np.linspace(0, resolved - 1, _SAMPLES).astype(np.int64)
    m = n - np.arange(first)[:, None]
    p = resolved / m
    least = np.maximum(logs[at] - errors[at] - h, 0.0) / (p * (mean + error - h))
    most = (logs[at] + errors[at] - h) / (p * (mean - error - h))
    survival = (resolved - at) / m
    below = survival - np.exp(-np.minimum(least, 1.0))
    above = np.exp(-np.maximum(most, 1.0 / p)) - survival
    return float(np.min(np.max(np.maximum(below, above), axis=1)))
