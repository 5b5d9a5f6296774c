"""Leading singular triplets by the whole decomposition, and what bounds must promise.

References
----------
Golub, Van Loan, "Matrix Computations", 4th ed., 2.4 (SVD) and 8.6.1 (perturbation bounds).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def singular_values(W: Array, k: int) -> Array:
    """The k largest singular values."""
    return np.asarray(np.linalg.svd(W, compute_uv=False)[:k])


def residuals(W: Array, s: Array, U: Array, V: Array) -> Array:
    """The larger of |W v - s u| and |W^T u - s v| for each triplet, one at a time."""
    out = []
    for sigma, u, v in zip(s, U.T, V.T, strict=True):
        out.append(max(np.linalg.norm(W @ v - sigma * u), np.linalg.norm(W.T @ u - sigma * v)))
    return np.array(out)


def rest_norm(W: Array, U: Array, V: Array) -> float:
    """2-norm of W without the rows' space of U and the columns' space of V."""
    left = W - U @ (U.T @ W)
    return float(np.linalg.norm(left - (left @ V) @ V.T, 2))


def christoffel(evals: Array, weights: Array, t: float, steps: int) -> float:
    """Sum of the squares of the orthonormal polynomials of degree 0 to `steps` at t.

    Of the discrete measure with these points and weights: the monomials, scaled to [-1, 1], are
    orthonormalised by QR in the measure's inner product. Needs more points than `steps`.
    """
    half = 0.5 * (np.max(evals) - np.min(evals))
    middle = 0.5 * (np.max(evals) + np.min(evals))
    powers = np.vander((evals - middle) / half, steps + 1, increasing=True)
    _, R = np.linalg.qr(np.sqrt(weights)[:, None] * powers)
    at_t = np.vander([(t - middle) / half], steps + 1, increasing=True)[0]
    values = np.linalg.solve(R.T, at_t)
    return float(values @ values)
