"""How far computed singular values can be from the true ones, and that none is missing.

Let U and V have orthonormal columns, ``W V = U S`` with S diagonal and ``F = W^T U - V S``. If what
is left of W beside them has a norm of at most tau,

    |(I - U U^T) W (I - V V^T)|_2 <= tau,

then for every i and every phi > 1

    s_i^2 <= sigma_i(W)^2 <= max(lambda_i(S^2 + phi F^T F), tau^2 phi / (phi - 1)).

The left side is interlacing. The right side: for t > tau^2 the eigenvalues of W W^T above t are,
by Sylvester's law of inertia, as many as the Schur complement ``S^2 - t + t F^T (t - R^T R)^-1 F``
(R the rest) has positive ones, and it is at most ``S^2 - t + t / (t - tau^2) F^T F``. If
``t = sigma_i^2`` exceeds ``tau^2 phi / (phi - 1)``, that factor is below phi. So the question is
how large the rest is. Two answers are here.

`is_above_spectrum` asks Cholesky's factorisation, which exists if and only if no eigenvalue lies
above: a proof, up to rounding, of which account is taken.

`ProbedNorm` draws vectors g at random. With orthonormal polynomials p_0, p_1, ... of the measure
that g gives to the spectrum of an operator, which Lanczos's recurrence makes, Bessel's inequality
says ``c^2 (p_0(lambda)^2 + ... + p_m(lambda)^2) <= 1`` for every eigenvalue, c the cosine between g
and its eigenvector. If that of the largest eigenvalue is not tiny, which is all but certain for one
of sixteen random vectors, then the largest eigenvalue is at most where this sum reaches c^-2.

References
----------
Li, Li, "A note on eigenvalues of perturbed Hermitian matrices", Linear Algebra Appl. 395 (2005),
for bounds of this kind. Hochstenbach, "Probabilistic upper bounds for the matrix two-norm",
J. Sci. Comput. 57 (2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from pyspectra.spectra.aside import run_aside
from pyspectra.types import FloatArray

__all__ = [
    "FAILURE",
    "PROBES",
    "SMALL_COSINE",
    "LanczosMeasures",
    "ProbedNorm",
    "is_above_spectrum",
    "largest_factor",
    "upper_bounds",
]

PROBES = 16
FAILURE = 1e-12
"""Bound on the probability that `ProbedNorm` is too small."""

# A standard normal number is below this with probability 0.177, and all of sixteen with 0.97e-12.
SMALL_COSINE = 0.2237

_FACTORS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0, 1e3, 1e4, 1e5, 1e7, 1e9)

_EPS = float(np.finfo(np.float64).eps)


def upper_bounds(s: FloatArray, residual_gram: FloatArray, phi: float, k: int) -> FloatArray:
    """Return ``sqrt(lambda_i(S^2 + phi F^T F))`` for the k leading singular values."""
    matrix = phi * residual_gram
    matrix[np.diag_indices(len(s))] += s**2
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh(matrix)[::-1][:k], 0.0)))


def largest_factor(s: FloatArray, residual_gram: FloatArray, k: int, allowed: FloatArray) -> float:
    """Return the largest phi of a list for which the bounds exceed s by at most `allowed`; or 0."""
    few, many = -1, len(_FACTORS)  # the smaller of them do, if any does
    while many - few > 1:
        middle = (few + many) // 2
        if np.all(upper_bounds(s, residual_gram, _FACTORS[middle], k) - s[:k] <= allowed):
            few = middle
        else:
            many = middle
    return _FACTORS[few] if few >= 0 else 0.0


def is_above_spectrum(G: FloatArray, V: FloatArray, t: float, slack: float) -> bool:
    """Tell whether t exceeds every eigenvalue of G restricted to what is orthogonal to V.

    Parameters
    ----------
    G : ndarray of float64, shape (M, M)
        Symmetric and positive semidefinite.
    V : ndarray of float64, shape (M, l)
        Orthonormal columns.
    t : float
        The number in question.
    slack : float
        Bound on the error of G in the 2-norm.

    Notes
    -----
    With P = I - V V^T, Cholesky's factorisation of ``t' I - P G P`` exists in floating point only
    if ``t' + M (M + 1) eps t'`` is no less than its largest eigenvalue (Higham, "Accuracy and
    stability of numerical algorithms", theorem 10.3); t' is t without that and without `slack`.
    """
    M = len(G)
    lowered = (t - slack) / (1.0 + 2.0 * M * (M + 1) * _EPS)
    if lowered <= 0.0:
        return False
    GV = G @ V
    half = GV - 0.5 * (V @ (V.T @ GV))
    rest = half @ V.T
    rest += rest.T
    rest -= G
    rest[np.diag_indices(M)] += lowered
    try:
        run_aside(
            lambda: cholesky(rest, lower=True, overwrite_a=True, check_finite=False), M**3 / 3.0
        )
    except LinAlgError:
        return False
    return True


class LanczosMeasures:
    """Lanczos's recurrence for several start vectors side by side, each with its own.

    Parameters
    ----------
    operator : callable
        Takes an (M, r) block and returns the symmetric operator times it.
    start : ndarray of float64, shape (M, r)
        The start vectors; none is zero.

    Attributes
    ----------
    basis : list of ndarray of shape (M, r)
        The q_j, one more than there were steps.
    alphas, betas : list of ndarray of shape (r,)
        Coefficients: ``beta_j q_{j+1} = A q_j - alpha_j q_j - beta_{j-1} q_{j-1}``.
    """

    def __init__(self, operator: Callable[[FloatArray], FloatArray], start: FloatArray) -> None:
        self._operator = operator
        self.basis = [start / np.linalg.norm(start, axis=0)]
        self.alphas: list[FloatArray] = []
        self.betas: list[FloatArray] = []

    def step(self) -> None:
        """Go on by one product."""
        q = self.basis[-1]
        z = self._operator(q)
        alpha = np.einsum("ij,ij->j", q, z)
        beta = np.linalg.norm(z, axis=0)
        # Against all before, since lost orthogonality would void Bessel's inequality, and once more
        # where little was left.
        for _ in range(2):
            before = beta
            for old in self.basis:
                z -= old * np.einsum("ij,ij->j", old, z)
            beta = np.linalg.norm(z, axis=0)
            if np.all(beta > 0.1 * before):
                break
        scale = np.max([*np.abs(self.alphas), *self.betas, np.abs(alpha)], axis=0)
        beta = np.where(beta > 1e-12 * scale, beta, 0.0)
        self.alphas.append(alpha)
        self.betas.append(beta)
        self.basis.append(z / np.where(beta > 0.0, beta, np.inf))

    def kernel(self, t: FloatArray) -> FloatArray:
        """Return the sum of the squares of the orthonormal polynomials at t, shape (..., r).

        No eigenvector whose eigenvalue is t has a squared cosine with the start vector above its
        inverse. Infinite where the recurrence has ended and t is no root of its last polynomial.
        """
        t = np.asarray(t, dtype=np.float64)
        before, now = np.zeros(t.shape), np.ones(t.shape)
        total = np.ones(t.shape)
        last: FloatArray | float = 0.0
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for alpha, beta in zip(self.alphas, self.betas, strict=True):
                numerator = (t - alpha) * now - last * before
                following = np.where(numerator == 0.0, 0.0, numerator / beta)
                before, now, last = now, following, beta
                total = total + following**2
        return np.where(np.isnan(total), np.inf, total)

    def largest(self) -> FloatArray:
        """Return the largest eigenvalue of each tridiagonal matrix, shape (r,)."""
        return np.asarray(np.linalg.eigvalsh(self._tridiagonal())[:, -1])

    def weights(self) -> FloatArray:
        """Return the weights of Gauss's quadrature, shape (r, number of steps)."""
        _, vectors = np.linalg.eigh(self._tridiagonal())
        return np.asarray(vectors[:, 0, :] ** 2)

    def _tridiagonal(self) -> FloatArray:
        alphas, betas = np.array(self.alphas), np.array(self.betas)
        n, r = alphas.shape
        T = np.zeros((r, n, n))
        index = np.arange(n)
        T[:, index, index] = alphas.T
        T[:, index[1:], index[:-1]] = betas[:-1].T
        T[:, index[:-1], index[1:]] = betas[:-1].T
        return T


class ProbedNorm:
    """Upper bound of the largest eigenvalue of a positive semidefinite operator, by random vectors.

    Parameters
    ----------
    operator : callable
        Takes an (M, r) block and returns the operator times it.
    start : ndarray of float64, shape (M, `PROBES`)
        Independent normal numbers, projected onto the subspace that the operator lives on.
    """

    def __init__(self, operator: Callable[[FloatArray], FloatArray], start: FloatArray) -> None:
        self._lengths = np.linalg.norm(start, axis=0)
        self._measures = LanczosMeasures(operator, start) if np.all(self._lengths > 0.0) else None
        self.steps = 0

    def step(self) -> None:
        """Improve the bound by one product with `PROBES` vectors."""
        if self._measures is not None:
            self._measures.step()
        self.steps += 1

    def is_above(self, t: float) -> bool:
        """Tell whether the largest eigenvalue is certainly above t."""
        return self._measures is not None and bool(np.max(self._measures.largest()) > t)

    def is_below(self, t: float) -> bool:
        """Tell whether the largest eigenvalue is below t; wrong with probability below `FAILURE`.

        It is what `bound` answers, for one number and without a search for the smallest.
        """
        if self._measures is None:
            return True
        if self.is_above(t):
            return False
        limit = (self._lengths / SMALL_COSINE) ** 2
        return bool(np.all(self._measures.kernel(np.full(limit.shape, t)) > limit))

    def bound(self) -> float:
        """Return a number that the largest eigenvalue exceeds with probability below `FAILURE`."""
        measures = self._measures
        if measures is None:
            return 0.0
        limit = (self._lengths / SMALL_COSINE) ** 2
        low = np.maximum(measures.largest(), 0.0)
        high = low + np.maximum(low, np.finfo(np.float64).tiny)
        for _ in range(200):
            inside = measures.kernel(high) <= limit
            if not np.any(inside):
                break
            high = np.where(inside, low + 2.0 * (high - low), high)
        else:
            return math.inf
        for _ in range(60):
            middle = 0.5 * (low + high)
            inside = measures.kernel(middle) <= limit
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return float(np.max(high))
