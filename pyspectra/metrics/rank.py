"""Ranks and the entropy of a spectrum.

The hard rank counts singular values above ``sigma_max * N * eps``, the tolerance of
``numpy.linalg.matrix_rank``.
"""

from __future__ import annotations

import numpy as np

from pyspectra.metrics.registry import Spectrum, hard_rank, metric

# WeightWatcher's weak rank loss counts eigenvalues below this absolute value.
WEAK_RANK_TOLERANCE = 1e-6
# WeightWatcher's entropy adds this to probabilities and to the logarithm of the rank.
ENTROPY_EPSILON = 1e-10


@metric("stable_rank")
def stable_rank(s: Spectrum) -> float:
    """Sum of the eigenvalues over the largest."""
    return float(np.float64(s.norm) / s.lambda_max)


@metric("matrix_rank", small_end=True)
def matrix_rank(s: Spectrum) -> int:
    """Hard rank of the pooled spectrum."""
    return s.rank


@metric("rank_loss", small_end=True)
def rank_loss(s: Spectrum) -> int:
    """Sum over the matrices of the layer of size minus hard rank."""
    each = s.esd.matrix_evals
    return sum(map(len, each)) - (
        s.rank if len(each) == 1 else hard_rank(np.array(each), s.rank_side)
    )


@metric("weak_rank_loss", small_end=True)
def weak_rank_loss(s: Spectrum) -> int:
    """#(lambda < 1e-6), an absolute tolerance."""
    return int(np.count_nonzero(s.evals < WEAK_RANK_TOLERANCE))


@metric("entropy")
def entropy(s: Spectrum) -> float:
    """Shannon entropy of lambda / sum(lambda) over log(rank): 1 is a flat spectrum, 0 rank one."""
    return 0.0 if s.rank == 1 else regularized_entropy(s)


def regularized_entropy(s: Spectrum) -> float:
    """``-sum(p ln p) / ln(matrix_rank + e)``, ``p = lambda / sum(lambda) + e``, e = 1e-10.

    As WeightWatcher computes it; for rank one it gives the quotient of two roundings. Eigenvalues
    within their own bound, which ``precision="fast"`` has, count as ranks.
    """
    p = s.evals / np.float64(s.norm) + ENTROPY_EPSILON
    bound = s.esd.bound
    rank = s.rank if bound == 0.0 else hard_rank(s.evals + bound, s.rank_side)
    return float(-(p * np.log(p)).sum() / np.log(rank + ENTROPY_EPSILON))
