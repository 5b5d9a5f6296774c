"""How localised the eigenvectors of a layer are.

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021), section 5:
vector entropy, localization ratio, participation ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.spectra.aside import run_aside
from pyspectra.types import FloatArray, Value

ENTROPY_BINS = 100
# Vectors at a time, so that what is needed besides stays small beside the matrix.
BLOCK = 256
# WeightWatcher adds this to the histogram (its EPSILON).
ENTROPY_EPSILON = 1e-10


@dataclass(frozen=True, eq=False)
class EigenvectorStatistics(Value):
    """Statistics of every eigenvector of the Gram matrices of a layer, sorted by eigenvalue.

    Attributes
    ----------
    evals : ndarray of float64, shape (n,)
        Ascending, of all matrices of the layer together.
    vec_entropy : ndarray of float64, shape (n,)
        Entropy of the 100-bin histogram of the absolute components: small if most are alike.
    loc_ratio : ndarray of float64, shape (n,)
        ``|v|_1 / |v|_inf``: the number of components, as large as the largest, that make up |v|_1.
    part_ratio : ndarray of float64, shape (n,)
        ``|v|_2 / |v|_4``: 1 for a single component, ``M^(1/4)`` for equal ones.
    """

    evals: FloatArray
    vec_entropy: FloatArray
    loc_ratio: FloatArray
    part_ratio: FloatArray


def eigenvector_statistics(matrices: Sequence[HostArray]) -> EigenvectorStatistics | None:
    """Statistics of the eigenvectors of each Gram matrix, float64.

    They are those of the shorter side; for square matrices those of ``W @ W.T``, as WeightWatcher
    has it. None if a Gram matrix is not finite.
    """
    evals, columns = [], []
    for X in matrices:
        rows, cols = X.shape
        gram = ops.gram([HostArray(X.data.T, X.dtype) if rows == cols else X])[0]
        if not np.isfinite(np.diagonal(gram)).all():
            return None
        values, V = eigh(gram)
        size = np.abs(V)
        evals.append(values)
        columns.append(
            np.array(
                [
                    _entropies(size),
                    np.sum(size, axis=0) / np.max(size, axis=0),
                    np.sum(size**2, axis=0) ** 0.5 / np.sum(size**4, axis=0) ** 0.25,
                ]
            )
        )
    together = np.concatenate(evals)
    order = np.argsort(together)
    entropy, localization, participation = np.concatenate(columns, axis=1)[:, order]
    return EigenvectorStatistics(together[order], entropy, localization, participation)


def eigh(gram: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ascending eigenvalues and eigenvectors of a symmetric matrix, of which the lower half counts.

    Large ones are LAPACK's work for minutes, which Ctrl-C ends nevertheless.
    """
    values, V = run_aside(lambda: np.linalg.eigh(gram, UPLO="L"), 9.0 * len(gram) ** 3)
    return values, V


def _entropies(size: FloatArray) -> FloatArray:
    starts = range(0, size.shape[1], BLOCK)
    return np.concatenate([vector_entropies(size[:, i : i + BLOCK]) for i in starts])


def vector_entropies(size: FloatArray) -> FloatArray:
    """Entropies of the columns |v|: -sum p ln p, p = (h + e) / sqrt(2 pi) normalised.

    h is the density histogram of |v| - mean|v|, with the bins of `numpy.histogram`, which takes
    one vector at a time.
    """
    x = size - np.mean(size, axis=0)
    low, high = np.min(x, axis=0), np.max(x, axis=0)
    flat = low == high
    low, high = np.where(flat, low - 0.5, low), np.where(flat, high + 0.5, high)
    edges = np.linspace(low, high, ENTROPY_BINS + 1)
    bins = ((x - low) / (high - low) * ENTROPY_BINS).astype(np.intp)
    bins = np.minimum(bins, ENTROPY_BINS - 1)
    # As numpy does: where rounding put a component beyond an edge of its bin.
    bins -= x < np.take_along_axis(edges, bins, axis=0)
    bins += (x >= np.take_along_axis(edges, bins + 1, axis=0)) & (bins != ENTROPY_BINS - 1)
    n = x.shape[1]
    counts = np.bincount((bins + ENTROPY_BINS * np.arange(n)).ravel(), minlength=ENTROPY_BINS * n)
    histogram = counts.reshape(n, ENTROPY_BINS) / np.diff(edges, axis=0).T / len(x)
    p = (histogram + ENTROPY_EPSILON) / math.sqrt(2.0 * math.pi)
    p = p / np.sum(p, axis=1, keepdims=True)
    return np.asarray(-np.sum(p * np.log(p), axis=1))
