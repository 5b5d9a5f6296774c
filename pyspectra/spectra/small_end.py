"""The small singular values that a Gram matrix does not resolve, without a decomposition of W.

The eigenvalues of ``G = W^T W`` carry an absolute error of some roundings of the largest, so the
small ones lose their digits; their eigenvectors lose few, as long as the values beside them are
resolved. So the block X of eigenvectors at the small end comes from inverse iteration with G, of
which all blocks are kept where it pays (the block Lanczos method, with reorthogonalisation), and
what is small comes from W itself: the singular values theta of ``W X`` are not squared before they
are known.

Notes
-----
Let X have orthonormal columns, ``X^T W^T W X = Theta^2`` and ``E = W^T W X - X Theta^2``, and let
the first k columns belong to the k smallest. Interlacing says ``sigma_i <= theta_i``. The Gram
matrix says that ``sigma_{k+1}^2`` is at least mu, its error taken off. If ``theta_k^2`` is below
``beta = mu - |E|``, then by Weyl's inequality no eigenvalue of ``W^T W`` compressed to what is
orthogonal to X is below beta. By Sylvester's law of inertia, applied to the Schur complement
``Theta^2 - t - E^T (. - t)^-1 E`` for ``t <= theta_k^2``, and as ``E^T E`` is at most k times the
diagonal matrix of its squared columns,

    sigma_i^2 >= the i-th smallest of  theta_j^2 - k |E_j|^2 / (beta - theta_k^2),  j = 1 ... k.

So the k values are certain up to rounding, and none is missing.

What did not reach the bound is improved by ``X - (G + shift)^-1 E``: the residual is that of W, so
that the rounding of G only slows convergence.

References
----------
Parlett, "The symmetric eigenvalue problem" (1998), chapters 4, 10 and 11. Li, Li, "A note on
eigenvalues of perturbed Hermitian matrices", Linear Algebra Appl. 395 (2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.blas_threads import holding_blas
from pyspectra._support.random import Purpose, generator
from pyspectra.types import FloatArray

__all__ = ["GRAM_RESOLUTION", "beyond_gram", "small_end_anew"]

# An eigenvalue of a float64 Gram matrix carries an error of a few 1e-16 lambda_max, so below this
# fraction of lambda_max it no longer has seven good digits, and rank and sv_min need the SVD.
GRAM_RESOLUTION = 1e-9

_EPS = float(np.finfo(np.float64).eps)

# Below this order LAPACK is faster.
_LEAST_ORDER = 96

# Entries of a Gram matrix outside of this may have squares that leave float64's range.
_LEAST, _MOST = 1e-200, 1e200
# Residuals are some roundings of the largest eigenvalue: where it is outside of this, their squares
# may leave the range, and nothing is proved.
_LEAST_PROVED, _MOST_PROVED = 1e-120, 1e120

# The cut between what is taken anew and what the Gram matrix gives is at least this over the order,
# as a fraction of the largest singular value. A Gram matrix has eigenvalues with errors of up to
# 4 EPS lambda_max at this end, so that above the cut its errors are at most about those of an SVD:
# half of that over sigma, 1.3 n EPS sigma_max. The largest value of many matrices (a mean, a few
# directions with all of the weight) is far above the others: a cut that did not fall with the order
# would have hundreds of them below it.
_LOW_CUT_ORDER = 1.5
_LOW_CUT = 1e-4  # at least
_HIGH_CUT = 5.0  # in lowest cuts

# Eigenvalues beside the cut are at least so far apart, relatively.
_LEAST_GAP = 0.02

# To look at a Gram matrix before its eigenvalues are known pays from this order on, where so many
# values are small that a decomposition is due: one of _MANY.
_LEAST_FORESEEN = 384
_MANY = 8
# Where so much is left of columns after a quarter of them, half a factorisation would show nothing:
# of random columns it is 1 - M / 4 divided by their rank, and a tenth more of columns with equal
# singular values. Not where their squares differ by more.
_LEFT, _ONE_SIZE = 0.65, 1e-2
# Pivots that have fallen so far may fall below what the Gram matrix resolves.
_FALLEN = 1e-4

# Columns go by panels of the kernels.
_PANEL = 32
_SPARE = 4  # columns beyond those that are wanted: convergence depends on the next eigenvalue

_MOST_STEPS = 12
_SHIFT = 1e-7  # of the largest that is wanted, at least
_MOST_ROUNDS = 4


@dataclass(frozen=True)
class _Plan:
    """How many values are taken anew, and how their vectors are found."""

    wanted: int
    kept: int  # vectors that remain
    columns: int  # of the block that is iterated
    steps: int
    remembers: bool  # whether the blocks of all steps make a Krylov space, or the last one serves


def small_end_anew(W: HostArray, G: FloatArray, evals: FloatArray) -> FloatArray | None:
    """Return `evals` with those in the place of the small ones that an SVD would give.

    Parameters
    ----------
    W : HostArray, shape (rows, cols)
        Finite, in any layout.
    G : ndarray of float64, shape (M, M)
        The lower triangle of its Gram matrix, in Fortran order, as `ops.gram` makes it.
    evals : ndarray of float64, shape (M,)
        The ascending eigenvalues of G.

    Returns
    -------
    ndarray of float64, shape (M,), or None
        None where a decomposition is faster, or where the values could not be made certain.
    """
    if len(evals) < _LEAST_ORDER or not _LEAST < evals[-1] < _MOST:
        return None
    rows, cols = W.shape
    data = W.data if rows >= cols else W.data.T
    small = _below(evals, _low_cut(len(evals)))
    empty = np.diagonal(G) == 0.0
    zeros = int(np.count_nonzero(empty))
    if 0 < zeros < small:  # what is small beside them is found without them
        part = np.asfortranarray(G[np.ix_(~empty, ~empty)])
        rest = small_end_anew(HostArray(data[:, ~empty], W.dtype), part, evals[zeros:])
        return None if rest is None else np.concatenate([np.zeros(zeros), rest])
    if zeros == 0:  # more empty rows than the rank can bear
        zeros = max(int(np.count_nonzero(~data.any(axis=1))) - (len(data) - len(evals)), 0)
    if zeros >= small:
        return np.concatenate([np.zeros(zeros), evals[zeros:]])
    plan = _plan(evals, len(data)) if _LEAST_PROVED < evals[-1] < _MOST_PROVED else None
    if plan is None:
        return None
    # BLAS's threads would spin beside ours, and its part is small.
    with holding_blas(1):
        found = _smallest(HostArray(data, W.dtype), G, evals, plan)
    if found is None:
        return None
    return np.concatenate([found**2, evals[plan.wanted :]])


def beyond_gram(W: HostArray, G: FloatArray) -> bool:
    """Tell, before the eigenvalues of G are known, whether all values are due by decomposing W.

    Where it is True, G certainly has an eigenvalue below GRAM_RESOLUTION of its largest, and so
    many small ones that `small_end_anew` would most likely not serve. It costs a hundredth of a
    Gram path; where pivots fall, up to a tenth.

    Notes
    -----
    The largest eigenvalue is at least the largest diagonal entry. The k smallest diagonal entries
    belong to a part of G with eigenvalues up to their sum, so that G has k eigenvalues (Cauchy's
    interlacing) below it. And a pivot of Cholesky's factorisation is at least the smallest
    eigenvalue; columns that depend on those before them have pivots near zero, also if only half of
    G is looked at.

    Parameters
    ----------
    W : HostArray, shape (rows, cols)
        In any layout; finite if G is.
    G : ndarray of float64, shape (M, M)
        The lower triangle of its Gram matrix, in Fortran order, as `ops.gram` makes it.
    """
    M = len(G)
    if M < _LEAST_FORESEEN:
        return False
    diagonal = G.diagonal()
    largest, least = float(diagonal.max()), float(diagonal.min())
    if not _LEAST < largest < _MOST or least == 0.0:  # NaN, or columns that need no decomposition
        return False
    resolved, small = GRAM_RESOLUTION * largest, _low_cut(M) ** 2 * largest
    if least < resolved and np.sum(np.sort(diagonal)[: M // _MANY]) < small:
        return True
    shift = 8.0 * math.sqrt(M) * _EPS * largest
    if least > _ONE_SIZE * largest:
        pivots = ops.leading_pivots(G, M // 4, shift)
        if np.mean(pivots[-_PANEL:] / diagonal[M // 4 - _PANEL : M // 4]) > _LEFT:
            return False
    pivots = ops.leading_pivots(G, M // 2 + _PANEL, shift)
    if pivots[-_PANEL:].max() < _FALLEN * largest and pivots.min() >= resolved:
        pivots = ops.leading_pivots(G, M, shift)
    many = int(np.count_nonzero(pivots < small))
    if pivots[-_PANEL:].max() < small:
        many += M - len(pivots)
    if pivots.min() >= resolved or many < M // _MANY:
        return False
    # Where fewer rows than M are not empty, `small_end_anew` has values that are zero for nothing.
    rows = W.data if W.shape[0] >= W.shape[1] else W.data.T
    return any(np.count_nonzero(rows[:n].any(axis=1)) >= M for n in (M + M // _MANY, len(rows)))


def _low_cut(M: int) -> float:
    return max(_LOW_CUT, _LOW_CUT_ORDER / M)


def _below(evals: FloatArray, cut: float) -> int:
    """Count singular values below a fraction of the largest."""
    return int(np.count_nonzero(evals < cut**2 * evals[-1]))


def _shift(evals: FloatArray) -> float:
    """Return more than rounding has taken from the smallest eigenvalue."""
    return 8.0 * math.sqrt(len(evals)) * _EPS * float(evals[-1])


def _error(evals: FloatArray, N: int) -> float:
    """Bound the error of the eigenvalues: of the products in G, and of their own computation.

    A sum of G takes as many roundings in turn as ``csrc/linalg/gram.hpp`` says (Higham, "Accuracy
    and stability of numerical algorithms", sections 3.5 and 4.2).
    """
    turns = min(float(N), 400.0 + N / 100.0)
    return _EPS * (turns * float(np.sum(evals)) + 20.0 * len(evals) * float(evals[-1]))


def _plan(evals: FloatArray, N: int) -> _Plan | None:
    """Choose the cut and the space that cost least; None if a decomposition costs less."""
    M, largest, shift = len(evals), float(evals[-1]), _shift(evals)
    seen = (np.maximum(evals, shift) + shift).tolist()  # numpy's own numbers are slow one by one
    low, high = (_below(evals, times * _low_cut(M)) for times in (1.0, _HIGH_CUT))
    error = _error(evals, N)
    best, least = None, 1.6 * (N + 4.0 / 3.0 * M) * M**2 - M**3 / 3.0
    for wanted in range(max(low, 1), min(high, M - 1) + 1):
        gap = 1.0 - seen[wanted - 1] / seen[wanted]
        if gap < _LEAST_GAP + 2.0 * error / seen[wanted]:
            continue
        # The error allowed to the largest of the wanted, as a bound of the angles.
        allowed = M * _EPS / math.sqrt(seen[wanted - 1] / largest)
        kept = _panels(wanted + _SPARE)
        if kept < M:
            for columns in (kept, kept + _PANEL):
                steps = _steps_of_block(seen, wanted, columns, allowed * gap)
                # One product with W and one with its transpose, twice; solutions, projections.
                cost = columns * (steps * M * (2.0 * M + 8.0 * columns) + 8.0 * N * M)
                if steps <= _MOST_STEPS and cost < least:
                    best, least = _Plan(wanted, columns, columns, steps, False), cost
        for columns in range(_PANEL, kept + 1, _PANEL):
            steps = _steps_of_space(seen, wanted, columns, allowed * gap)
            size = columns * steps
            # Solutions; projections and the vectors of the projected matrix, which take longer for
            # their operations, by one thread; products with W.
            cost = size * M * (2.0 * M + 6.0 * size) + 40.0 * size**3 + 6.0 * kept * N * M
            if kept <= size <= M // 2 and cost < least:
                best, least = _Plan(wanted, kept, columns, steps, True), cost
    return best


def _panels(columns: int) -> int:
    return -(-columns // _PANEL) * _PANEL


def _steps_of_block(seen: list[float], wanted: int, columns: int, allowed: float) -> int:
    """Foresee the steps of a block of vectors that forgets those before it."""
    if columns >= len(seen):
        return _MOST_STEPS + 1
    ratio = seen[wanted - 1] / seen[columns]
    angle = math.sqrt(min(allowed * ratio, 1.0)) / 10.0
    return max(1, math.ceil(math.log(angle) / math.log(ratio))) if ratio < 1.0 else 99


def _steps_of_space(seen: list[float], wanted: int, columns: int, allowed: float) -> int:
    """Foresee the steps of a block that remembers all: Chebyshev's polynomials beyond the wanted.

    The polynomial that is least on all but the wanted eigenvalues of the inverse grows from
    `columns` values later on, and what is wanted beyond a block costs degrees (Li, Zhang,
    "Convergence of the block Lanczos method for eigenvalue clusters", Numer. Math. 131 (2015)).
    """
    after = wanted - 1 + columns
    if after >= len(seen):
        return len(seen)
    least = 2.0 * seen[after] / seen[wanted - 1] - 1.0
    rate = math.log(least + math.sqrt(max(least**2 - 1.0, 0.0)) + _EPS)
    angle = math.sqrt(min(2.0 * allowed / wanted, 1.0)) / 10.0
    return 1 + math.ceil(max(wanted / columns - 1.0, 0.0) - math.log(angle) / rate)


def _smallest(W: HostArray, G: FloatArray, evals: FloatArray, plan: _Plan) -> FloatArray | None:
    """Return the smallest singular values, ascending, once they are certain."""
    N, M = W.shape
    k = plan.wanted
    largest = float(evals[-1])
    tolerance = M * _EPS * math.sqrt(largest)
    error = _error(evals, N)
    # Values far below the last one that is wanted converge before it, however large the shift.
    factor = ops.shifted_factor(G, max(_shift(evals), _SHIFT * float(evals[k - 1])))
    X = generator(Purpose.SUBSPACE, 0, "small_end", M).standard_normal((M, plan.columns))
    if plan.remembers:
        X = _inverse_space(factor, X, plan)
    else:
        ops.inverse_steps(factor, X, plan.steps)
    for _ in range(_MOST_ROUNDS):
        if np.max(np.abs(X.T @ X - np.eye(plan.kept))) > 1e-12:
            return None
        theta, X, Y = _ritz(W, X)
        E = ops.transposed_product(W, Y) - X * theta**2
        beta = float(evals[k]) - error - float(np.linalg.norm(E[:, :k]))
        gap = beta - float(theta[k - 1]) ** 2
        if gap > 0.0:
            squares = theta[:k] ** 2 - k * np.sum(E[:, :k] ** 2, axis=0) / gap
            if np.all(theta[:k] - np.sqrt(np.maximum(np.sort(squares), 0.0)) <= tolerance):
                return np.asarray(theta[:k])
        ops.apply_inverse(factor, E)
        X -= E
        ops.inverse_steps(factor, X, 0)
    return None


def _inverse_space(factor: FloatArray, X: FloatArray, plan: _Plan) -> FloatArray:
    """Return the vectors of the largest eigenvalues that the inverse has in a Krylov space of X.

    The inverse is applied to them once more, since their errors lie anywhere in the spectrum, and
    it takes those by its large end away.
    """
    M, p = X.shape
    size = p * plan.steps
    basis, images, projected = np.empty((M, size)), np.empty((M, size)), np.zeros((size, size))
    ops.inverse_steps(factor, X, 0)
    for end in range(p, size + 1, p):
        basis[:, end - p : end] = X
        ops.apply_inverse(factor, X)
        images[:, end - p : end] = X
        # Exact arithmetic has nothing but these two blocks in it; rounding brings the others back.
        last = slice(max(end - 2 * p, 0), end)
        inner = projected[last, end - p : end] = basis[:, last].T @ X
        if end == size:
            break
        X -= basis[:, last] @ inner
        ops.inverse_steps(factor, X, 0)
        X -= basis[:, :end] @ (basis[:, :end].T @ X)
        ops.inverse_steps(factor, X, 0)
    _, vectors = np.linalg.eigh(projected, UPLO="U")
    out = np.ascontiguousarray(images @ vectors[:, : -plan.kept - 1 : -1])
    ops.inverse_steps(factor, out, 0)
    return out


def _ritz(W: HostArray, X: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the ascending singular values of ``W X``, and both blocks turned to their vectors."""
    Y, _ = ops.normal_product(W, X, transposed=False)
    _, theta, turn = np.linalg.svd(np.linalg.qr(Y, mode="r"))
    turn = np.ascontiguousarray(turn[::-1].T)
    return theta[::-1], X @ turn, Y @ turn
