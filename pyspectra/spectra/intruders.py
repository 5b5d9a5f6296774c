"""Intruder dimensions: directions of a tuned matrix that its base does not have.

References
----------
Shuttleworth, Andreas, Torralba, Sharma, "LoRA vs full fine-tuning: an illusion of equivalence"
(2024), arXiv 2410.21228, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyspectra.spectra.aside import run_aside
from pyspectra.types import FloatArray, Value

TOP_K = 10
EPSILON = 0.5
LEAST_SQUARE = 1e-15  # of the largest eigenvalue of a Gram matrix: the rest is rounding


@dataclass(frozen=True, eq=False)
class Intruders(Value):
    """How much the leading directions of a tuned matrix resemble those of its base.

    Attributes
    ----------
    similarities : tuple of float
        For each of the leading left singular vectors of the tuned matrix, the first first: its
        largest ``|cos|`` with any left singular vector of the base.
    singular_values : tuple of float
        Their singular values.
    epsilon : float
        A direction is an intruder where its similarity is below this.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.spectra.intruders import intruders
    >>> rng = np.random.default_rng(0)
    >>> base = rng.standard_normal((60, 40))
    >>> update = 30.0 * np.outer(rng.standard_normal(60), rng.standard_normal(40)) / 50.0
    >>> intruders(base, base).n, intruders(base, base + update).indices
    (0, (0,))
    """

    similarities: tuple[float, ...]
    singular_values: tuple[float, ...]
    epsilon: float = EPSILON

    @property
    def k(self) -> int:
        """Number of directions that were looked at."""
        return len(self.similarities)

    @property
    def indices(self) -> tuple[int, ...]:
        """Which of the directions are intruders; 0 is the one of the largest singular value."""
        return tuple(i for i, x in enumerate(self.similarities) if x < self.epsilon)

    @property
    def n(self) -> int:
        """Number of intruder dimensions."""
        return len(self.indices)


def intruders(
    base: FloatArray, tuned: FloatArray, *, k: int = TOP_K, epsilon: float = EPSILON
) -> Intruders | None:
    """Find the intruder dimensions of a tuned matrix.

    Parameters
    ----------
    base, tuned : ndarray of float64, shape (rows, cols)
        The matrices, rows being what comes out of the layer.
    k : int
        How many of the leading directions of `tuned` are looked at.
    epsilon : float
        A direction whose ``|cos|`` with every left singular vector of `base` is below this is an
        intruder.

    Returns
    -------
    Intruders or None
        None where a matrix is not finite or zero, or has so few rows that no direction could be
        unlike all others.

    Notes
    -----
    The left singular vectors u_j of the base are an orthonormal set, so that the squared cosines of
    one direction with all of them sum to at most 1. Where they span the space (no more rows than
    columns, full rank) and there are r of them, the largest is at least ``1 / sqrt(r)``: with
    ``r <= 1 / epsilon**2`` there cannot be an intruder.
    """
    if not (np.isfinite(base).all() and np.isfinite(tuned).all()):
        return None
    if min(base.shape) <= 1.0 / epsilon**2 or not (base.any() and tuned.any()):
        return None
    cost = 12.0 * base.size * min(base.shape)
    known, _ = run_aside(lambda: _left(base, None), cost)
    found, values = run_aside(lambda: _left(tuned, k), cost)
    cosines = np.abs(known.T @ found)
    return Intruders(
        tuple(np.minimum(cosines.max(axis=0), 1.0).tolist()), tuple(values.tolist()), epsilon
    )


def _left(W: FloatArray, k: int | None) -> tuple[FloatArray, FloatArray]:
    """Return left singular vectors and singular values, the largest first: `k` of them, or all.

    They come from the eigenvectors of the smaller Gram matrix, which takes a fraction of the time
    of a singular value decomposition. Its rounding hides singular values below 1e-8 of the largest,
    which are left out: they are no direction that the matrix uses.
    """
    from scipy.linalg import eigh

    scale = float(np.abs(W).max())
    W = W / scale
    wide = W.shape[0] <= W.shape[1]
    n = min(W.shape)
    chosen = None if k is None else (max(0, n - k), n - 1)
    squares, vectors = eigh(W @ W.T if wide else W.T @ W, subset_by_index=chosen)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    kept = squares > squares[0] * LEAST_SQUARE
    values = np.sqrt(squares[kept])
    vectors = vectors[:, kept]
    return (vectors if wide else W @ vectors / values), scale * values
