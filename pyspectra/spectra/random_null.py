"""Is a spectrum that of an iid random matrix? A test with a known level.

Two statistics that do not depend on the scale of the entries, and that are asymptotically
independent of each other under the null (largest eigenvalue and linear spectral statistics are):

- ``T = sum(lambda^2) / (sum lambda)^2`` (John 1971), the spread of the whole spectrum. For Gaussian
  entries it is independent of ``sum lambda``, so that its moments are quotients of the moments of
  ``tr S^2`` (cumulants below) and of a chi-square: exact at every N and M. Its law is taken as the
  Pearson III with the first three moments. Two-sided: equal eigenvalues (an orthogonal
  initialisation) are as foreign to a random matrix as widely spread ones.
- ``lambda_max / mean square of the entries`` against Tracy-Widom (see `tracy_widom`), which finds
  few directions that T cannot tell from fluctuation. One-sided.

The smaller of the two p-values, corrected for having taken the smaller: 1 - (1 - p)^2 = p (2 - p).

Entries that are not Gaussian matter through their excess kurtosis beta only: it shifts the mean of
``tr S^2`` to ``NM (N + M + 1 + beta)`` (exact) and the edge of the spectrum by the factor
``1 + beta / sqrt(NM)`` (first order: the beta-term of the mean of linear statistics, read at the
edge), and changes the variance of T through the norms of rows and columns.

It is blind to what changes neither: two atoms in the place of a bulk of the same spread pass for
random. The distance from the law, `MPFit.D`, sees them.

References
----------
John, "Some optimal multivariate tests", Biometrika 58 (1971).
Wang, Yao, "On the sphericity test with large-dimensional observations", EJS 7 (2013).
Bai, Silverstein, "CLT for linear spectral statistics of large dimensional sample covariance
matrices", Ann. Probab. 32 (2004).
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from pyspectra.spectra import tracy_widom
from pyspectra.spectra.special import gamma_tails
from pyspectra.types import FloatArray

# A p-value that no second statistic needs to make smaller.
NEGLIGIBLE = 1e-30


def p_value(evals: FloatArray, N: int, M: int, kurtosis: float = 0.0) -> float:
    """P-value of "independent, identically distributed entries of mean zero".

    Parameters
    ----------
    evals : ndarray of float64, shape (r * M,)
        Ascending, of r matrices of N x M together; any positive factor may have multiplied them.
    N, M : int
        Sides of each matrix, N >= M.
    kurtosis : float
        Excess kurtosis of the entries: 0 for Gaussian, -1.2 for uniform ones.

    Returns
    -------
    float
        Uniform on (0, 1) under the null, conservative (too large) for M below about 16. NaN for a
        single vector and for a zero spectrum, which carry no information.
    """
    count = len(evals) // M
    total = float(evals.sum())
    if not total > 0.0 or count * M < 2:
        return math.nan
    relative = evals / total
    spread = _spread_p_value(float(relative @ relative), N, M, count, kurtosis)
    smaller = spread
    if spread > NEGLIGIBLE:  # the other statistic costs a millisecond
        largest = _largest_p_value(float(relative[-1]) * count * N * M, N, M, count, kurtosis)
        smaller = min(spread, largest)
    return smaller * (2.0 - smaller)


def _spread_p_value(T: float, N: int, M: int, count: int, kurtosis: float) -> float:
    mean, variance, skewness = spread_moments(N, M, count)
    df = count * N * M
    mean *= (1.0 + kurtosis / (N + M + 1)) / (1.0 + kurtosis / (df + 2))
    variance *= _spread_variance(N, M, count, kurtosis) / _spread_variance(N, M, count, 0.0)
    if not variance > 0.0:
        return 1.0
    # Pearson III: a gamma law of this shape, shifted and scaled.
    shape = 4.0 / skewness**2
    x = max(shape + math.sqrt(shape) * (T - mean) / math.sqrt(variance), 0.0)
    return min(1.0, 2.0 * min(gamma_tails(shape, x)))


def _largest_p_value(ratio: float, N: int, M: int, count: int, kurtosis: float) -> float:
    centre, scale = tracy_widom.largest_eigenvalue_scale(N, M, df=count * N * M)
    centre *= 1.0 + kurtosis / math.sqrt(N * M)
    if not scale > 0.0:
        return 1.0
    one = tracy_widom.survival((ratio - centre) / scale)
    return abs(math.expm1(count * math.log1p(-one))) if one < 1.0 else 1.0


@functools.lru_cache(maxsize=4096)
def spread_moments(N: int, M: int, count: int) -> tuple[float, float, float]:
    """Mean, variance and skewness of T for `count` Gaussian N x M matrices, exact.

    The cumulants of ``tr S^2`` of one matrix, S = W^T W with unit variance, are polynomials,
    symmetric in N and M, that the known laws for M = 1 (chi-square) and M = 2 (Mauchly) and the
    leading order determine. Rational arithmetic, since the variance is a small difference.
    """
    df = count * N * M
    first = df * (N + M + 1)
    second = 4 * df * (2 * (N * N + M * M) + 5 * N * M + 5 * (N + M) + 5)
    third = df * (
        160 * (N**3 + M**3)
        + 704 * N * M * (N + M)
        + 704 * (N * N + M * M)
        + 1728 * N * M
        + 1664 * (N + M)
        + 1312
    )

    def trace_moment(k: int) -> int:  # E (sum lambda)^k, a chi-square of df degrees of freedom
        return math.prod(df + 2 * j for j in range(k))

    m1 = Fraction(first, trace_moment(2))
    m2 = Fraction(second + first**2, trace_moment(4))
    m3 = Fraction(third + 3 * first * second + first**3, trace_moment(6))
    variance = m2 - m1 * m1
    if variance <= 0:
        return float(m1), 0.0, math.nan
    skewness = float(m3 - 3 * m1 * m2 + 2 * m1**3) / float(variance) ** 1.5
    return float(m1), float(variance), skewness


def _spread_variance(N: int, M: int, count: int, kurtosis: float) -> float:
    """Variance of T up to a factor: four-cycles of entries, and norms of rows, columns, matrices.

    Norms are sums of squares, whose variance is 2 + kurtosis; four-cycles do not see it.
    """
    cycles = 2.0 * N * M * (N - 1) * (M - 1) * count
    norms = (N - 1) * (M - 0.5) ** 2 + (M - 1) * (N - 0.5) ** 2
    between = (count - 1) * (N + M - 1) ** 2
    return cycles + (2.0 + kurtosis) ** 2 * (count * norms + between)
