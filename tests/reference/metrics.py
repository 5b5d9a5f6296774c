"""Per-layer metrics of ascending eigenvalues lambda, logarithms base 10 (WeightWatcher 0.7.7).

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
EPS = 2.0**-52


def log10(x: float) -> float:
    """log10 with log10(0) = -inf."""
    return math.log10(x) if x > 0.0 else (-math.inf if x == 0.0 else math.nan)


def norm(lam: Array) -> float:
    """Sum of lambda, exactly rounded."""
    return math.fsum(lam)


def stable_rank(lam: Array) -> float:
    """Sum lambda / max lambda."""
    return norm(lam) / float(lam[-1]) if lam[-1] > 0.0 else math.nan


def matrix_rank(lam: Array, N: int) -> int:
    """#(sigma > sigma_max N eps), sigma = sqrt(lambda)."""
    sigma = [math.sqrt(v) for v in lam]
    return sum(s > max(sigma) * N * EPS for s in sigma)


def rank_loss(slices: Sequence[Array], N: int) -> int:
    """Sum over the matrices of #(sigma <= sigma_max N eps)."""
    return sum(len(lam) - matrix_rank(lam, N) for lam in slices)


def weak_rank_loss(lam: Array) -> int:
    """#(lambda < 1e-6)."""
    return sum(float(v) < 1e-6 for v in lam)


def entropy(lam: Array, N: int) -> float:
    """-sum p ln p / ln(matrix_rank + e), p = lambda / sum(lambda) + e, e = 1e-10; 0 of rank one."""
    e = 1e-10
    total = norm(lam)
    if total == 0.0:
        return math.nan
    if matrix_rank(lam, N) == 1:
        return 0.0
    p = [float(v) / total + e for v in lam]
    denominator = math.log(matrix_rank(lam, N) + e)
    return -math.fsum(v * math.log(v) for v in p) / denominator


def sv_min(slices: Sequence[Array]) -> float:
    """The largest, over the matrices, of the smallest singular value."""
    return max(math.sqrt(lam[0]) for lam in slices)


def log_alpha_norm(lam: Array, alpha: float) -> float:
    """log10 sum lambda**alpha = a + log10 sum 10**(alpha log10 lambda - a), a the largest term."""
    if math.isnan(alpha):
        return math.nan
    terms = [alpha * log10(float(v)) for v in lam]
    a = max(terms)
    if math.isinf(a):
        return math.nan
    return a + math.log10(math.fsum(10.0 ** (t - a) for t in terms))
