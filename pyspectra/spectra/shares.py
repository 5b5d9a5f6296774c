"""How much of a vector any single eigenvector of a positive semidefinite operator can hold.

Lanczos's recurrence from a vector u makes orthonormal columns Q, one more than it has steps, and a
tridiagonal H with ``A Q_m = Q H + R``: R is what rounding did, of the products as of everything
else. Let ``A w = lambda w`` with w of unit length, and ``x = Q^T w``. Then |x| is at most 1, the
first entry of x is the cosine of u and w, and

    |H^T x - lambda x_m| = |R^T w| <= |R|,

x_m being x without its last entry. So the squared cosine is at most the largest ``x_0^2`` under
these two constraints, and for any t > 0

    x_0^2 <= (1 + t rho^2) e_0^T (I + t M^T M)^-1 e_0,  M x = H^T x - c x_m,

for all eigenvalues within h of c, with ``rho = |R| + h``. Without rounding and in the limit of
small intervals this is the Christoffel function, the inverse of the sum of the squares of the
orthonormal polynomials at lambda. Intervals are halved where they do not tell enough.

`|R|` is measured: for g of independent normal numbers, drawn apart from all else, ``g^T R`` takes
one product of A with g in double precision. The largest of ``|R^T g|`` for `PROBES` of them is
smaller than 0.2237 ``|R|`` with a probability below `FAILURE`, so that the recurrence itself may
take its products in single precision.

References
----------
Akhiezer, "The classical moment problem" (1965), chapter 2 (the Christoffel function bounds the mass
of a point).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyspectra.spectra.block_krylov import random_block
from pyspectra.spectra.singular_bounds import PROBES, SMALL_COSINE, LanczosMeasures
from pyspectra.types import FloatArray

__all__ = ["SharesOfEigenvectors"]

_PARTS = 4  # intervals between two nodes, at first
_ROUNDS = 10  # of halving intervals
_MOST_INTERVALS = 500  # for each vector
_SPENT = (0.2, 0.02, 0.002)  # t rho^2: what the bound may lose by the width of an interval
# t |M|^2 beyond this would let rounding into the elimination, which adds about 1e-16 of it.
_STIFFEST = 1e11
_ROOM = 1.0 + 1e-3  # for that
_OF_NORM = 1e-15  # what subtracting the middle of an interval rounds off


class SharesOfEigenvectors:
    """Bounds on the squared cosines of several vectors with every eigenvector of an operator.

    Parameters
    ----------
    rough : callable
        Takes an (M, r) block and returns the operator times it, as float64, with any error.
    exact : callable
        Does the same in double precision.
    start : ndarray of float64, shape (M, r)
        The vectors; none is zero.

    Attributes
    ----------
    shares : ndarray of float64, shape (r,)
        The bounds as far as they are known.
    """

    def __init__(
        self,
        rough: Callable[[FloatArray], FloatArray],
        exact: Callable[[FloatArray], FloatArray],
        start: FloatArray,
    ) -> None:
        self._measures = LanczosMeasures(rough, start)
        self._exact = exact
        self._probes: tuple[FloatArray, FloatArray] | None = None
        self._seen: list[tuple[FloatArray, FloatArray]] = []
        self.shares = np.ones(start.shape[1])

    def step(self, wanted: FloatArray) -> FloatArray:
        """Go on by one product, and improve the bounds that may come below what is `wanted`.

        Returns the largest weight of Gauss's quadrature of each vector, shape (r,): its bound does
        not come below.
        """
        measures = self._measures
        measures.step()
        weights = np.max(measures.weights(), axis=1)
        open_ones = np.flatnonzero((self.shares >= wanted) & (weights < wanted))
        if len(open_ones):
            alphas, betas = (np.array(x)[:, open_ones] for x in (measures.alphas, measures.betas))
            found = _shares(alphas, betas, self._errors()[open_ones], wanted[open_ones])
            self.shares[open_ones] = np.minimum(self.shares[open_ones], found)
        return np.asarray(weights)

    def _errors(self) -> FloatArray:
        """Bound the norm of what rounding did to each recurrence, shape (r,)."""
        measures = self._measures
        if self._probes is None:
            g = random_block(len(measures.basis[0]), PROBES, 3, 0)
            self._probes = g, self._exact(g)
        g, image = self._probes
        for q in measures.basis[len(self._seen) :]:
            self._seen.append((g.T @ q, image.T @ q))
        squares = np.zeros(self._seen[0][0].shape)
        for j, (alpha, beta) in enumerate(zip(measures.alphas, measures.betas, strict=True)):
            rest = self._seen[j][1] - alpha * self._seen[j][0] - beta * self._seen[j + 1][0]
            if j:
                rest -= measures.betas[j - 1] * self._seen[j - 1][0]
            squares += rest**2
        return np.asarray(np.sqrt(np.max(squares, axis=0)) / SMALL_COSINE)


def _shares(
    alphas: FloatArray, betas: FloatArray, errors: FloatArray, wanted: FloatArray
) -> FloatArray:
    """Bound the squared cosines with any eigenvector; 1 where one cannot be shown to be `wanted`.

    `alphas` and `betas`, each of shape (m, r), are the coefficients of the recurrences, and
    `errors` bound the norms of what rounding did to them.
    """
    m, r = alphas.shape
    T = np.zeros((r, m, m))
    index = np.arange(m)
    T[:, index, index] = alphas.T
    T[:, index[1:], index[:-1]] = betas[:-1].T
    nodes = np.linalg.eigvalsh(T)
    span = np.maximum(nodes[:, -1] - nodes[:, 0], np.max(betas, axis=0))
    span = np.maximum(span, np.finfo(np.float64).tiny)
    top = nodes[:, -1] + span
    # Beyond the top, x_m = (lambda - T)^-1 (the last entry of x, and what rounding did).
    ratios = betas.T / (top[:, None] - nodes)
    share = (np.prod(ratios, axis=1) + errors / span) ** 2
    edges = np.column_stack([np.minimum(nodes[:, 0], 0.0), nodes, top])
    inner = edges[:, :-1, None] + np.diff(edges)[:, :, None] * (np.arange(_PARTS) / _PARTS)
    ends = np.column_stack([inner.reshape(r, -1), top])
    owner = np.repeat(np.arange(r), ends.shape[1] - 1)
    low, high = ends[:, :-1].ravel(), ends[:, 1:].ravel()
    for _ in range(_ROUNDS):
        bounds = _within(alphas[:, owner], betas[:, owner], low, high, errors[owner])
        good = bounds < wanted[owner]
        np.maximum.at(share, owner[good], bounds[good])
        owner, low, high = owner[~good], low[~good], high[~good]
        middle = 0.5 * (low + high)
        points = _within(alphas[:, owner], betas[:, owner], middle, middle, errors[owner])
        share[owner[points >= wanted[owner]]] = 1.0
        left = share[owner] < wanted[owner]
        if not np.any(left):
            return np.asarray(share)
        if len(left) > _MOST_INTERVALS * r:
            break
        owner = np.tile(owner[left], 2)
        low, high = (
            np.concatenate([low[left], middle[left]]),
            np.concatenate([middle[left], high[left]]),
        )
    share[owner] = 1.0  # those of which intervals are open
    return np.asarray(share)


def _within(
    alphas: FloatArray, betas: FloatArray, low: FloatArray, high: FloatArray, errors: FloatArray
) -> FloatArray:
    """Bound the squared cosine with an eigenvector whose eigenvalue lies in an interval.

    There are n intervals, each with its own recurrence: the coefficients have shape (m, n).
    """
    m = len(alphas)
    middle = 0.5 * (low + high)
    norm = np.max(np.abs(alphas), axis=0) + 2.0 * np.max(betas, axis=0) + np.abs(middle)
    rho = 0.5 * (high - low) + errors + _OF_NORM * norm
    tiny = np.finfo(np.float64).tiny
    t = np.array(_SPENT)[:, None] / np.maximum(rho, 1e-150) ** 2
    t = np.minimum(t, _STIFFEST / np.maximum(norm**2, tiny))
    # The matrix has two diagonals on either side of its own. Elimination from the last row leaves
    # the inverse of what is looked for.
    a, squares = alphas - middle, betas**2
    main = [1.0 + t * x for x in (*(a**2), 0.0)]
    beside = [t * betas[k] * a[k] for k in range(m)]
    for k in range(m):
        main[k + 1] += t * squares[k]
        if k + 1 < m:
            main[k] += t * squares[k]
            beside[k] += t * betas[k] * a[k + 1]
    for n in range(m, 0, -1):
        ratio = beside[n - 1] / main[n]
        main[n - 1] -= ratio * beside[n - 1]
        if n > 1:
            far = t * betas[n - 2] * betas[n - 1]
            beside[n - 2] -= ratio * far
            main[n - 2] -= far**2 / main[n]
    return np.asarray(_ROOM * np.min((1.0 + t * rho**2) / main[0], axis=0))
