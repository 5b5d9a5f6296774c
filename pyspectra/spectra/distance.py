"""Distances between two weight matrices, or between two spectra."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pyspectra.spectra.aside import run_aside
from pyspectra.types import FloatArray

# Below it, squares of the entries may have lost digits to underflow.
SMALL = 1e-140

MatrixDistance = Callable[[FloatArray, FloatArray], float]


def frobenius(A: FloatArray, B: FloatArray) -> float:
    """``||A - B||_F`` of two arrays of one shape."""
    with np.errstate(all="ignore"):
        difference = (A - B).ravel()
        norm = float(np.linalg.norm(difference))
        largest = float(np.max(np.abs(difference), initial=0.0))
        if norm == math.inf or norm < SMALL:  # squares beyond the range: once more, scaled
            scaled = difference / largest if 0.0 < largest < math.inf else difference
            norm = largest * float(np.linalg.norm(scaled)) if largest > 0.0 else 0.0
    return norm


def cka(A: FloatArray, B: FloatArray) -> float:
    """Uncentred linear alignment ``|A^T B|_F / sqrt(|A^T A|_F |B B^T|_F)``; NaN for a zero matrix.

    1 for matrices that are equal up to a factor or a rotation of their rows' basis; WeightWatcher
    0.7.7's definition, the root of linear CKA.

    References
    ----------
    Kornblith et al., "Similarity of neural network representations revisited", ICML 2019,
    arXiv 1905.00414, equation 3.
    """
    A, B = of_order_one(A), of_order_one(B)
    cross, norms = run_aside(lambda: _alignment(A, B), 6.0 * A.size * min(A.shape))
    return cross / math.sqrt(norms) if norms > 0.0 else math.nan


def _alignment(A: FloatArray, B: FloatArray) -> tuple[float, float]:
    """``|A^T B|_F`` and ``|A^T A|_F |B^T B|_F``."""
    if A.shape[0] < A.shape[1]:
        # |A^T B|_F^2 = sum of (A A^T) * (B B^T): the short side is enough.
        GA, GB = A @ A.T, B @ B.T
        cross = math.sqrt(max(float(np.sum(GA * GB)), 0.0))
        return cross, float(np.linalg.norm(GA)) * float(np.linalg.norm(GB))
    norms = float(np.linalg.norm(A.T @ A)) * float(np.linalg.norm(B.T @ B))
    return float(np.linalg.norm(A.T @ B)), norms


def of_order_one(A: FloatArray) -> FloatArray:
    """Scale by a power of two, so that fourth powers stay within the range."""
    largest = float(np.max(np.abs(A), initial=0.0))
    return np.asarray(np.ldexp(A, -math.frexp(largest)[1])) if math.isfinite(largest) else A


def kolmogorov_smirnov(x: FloatArray, y: FloatArray) -> float:
    """Largest difference of the two cumulative distributions, in [0, 1]."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(x, y, method="asymp").statistic)


def wasserstein(x: FloatArray, y: FloatArray) -> float:
    """Earth mover's distance, in units of the eigenvalues."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(x, y))


def jensen_shannon(x: FloatArray, y: FloatArray) -> float:
    """Jensen-Shannon distance of two ascending spectra of one length, read as distributions.

    Notes
    -----
    ``sqrt((KL(p|m) + KL(q|m)) / 2)``, p and q the spectra divided by their sums, m their mean,
    natural logarithm; in [0, sqrt(ln 2)]; NaN for a zero spectrum. WeightWatcher's
    ``rand_distance``.
    """
    total_x, total_y = float(np.sum(x)), float(np.sum(y))
    if not (0.0 < total_x < math.inf and 0.0 < total_y < math.inf):
        return math.nan
    p, q = x / total_x, y / total_y
    m = (p + q) / 2.0
    divergence = 0.0
    for r in (p, q):
        positive = r > 0.0
        divergence += float(np.sum(r[positive] * np.log(r[positive] / m[positive])))
    return math.sqrt(max(divergence, 0.0) / 2.0)  # equal spectra leave rounding of either sign
