"""The leading singular triplets of a matrix, with bounds on how far each can be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from scipy.linalg import eigh

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.arguments import check_count, check_number
from pyspectra._support.blas_threads import holding_blas
from pyspectra.errors import ConvergenceError
from pyspectra.spectra.aside import run_aside
from pyspectra.spectra.block_krylov import BLOCK, KrylovSpace, Ritz
from pyspectra.spectra.common_space import UpdatedSpace
from pyspectra.spectra.single_space import SingleArray, SingleSpace
from pyspectra.spectra.singular_bounds import PROBES, upper_bounds
from pyspectra.spectra.triplets import (
    ROUNDINGS,
    Triplets,
    certified,
    quick_triplets,
    triplets_in,
)
from pyspectra.spectra.weight_products import WeightProducts, read_factors
from pyspectra.types import FloatArray, Status, Value

__all__ = ["TopK", "leading_triplets", "svd_topk"]

# Beyond this share of all directions a Krylov space is no cheaper than all of them.
_MOST_OF_ALL: Final = 0.6
_MOST_AT_FIRST: Final = 0.4  # of them, before the first look, where single precision is tried
_LEAST_SINGLE: Final = 1e-10  # tolerances below this ask for float64 from the start
_WIDEST: Final = 300.0  # the first singular value over the k-th, for single precision
_OF_TOLERANCE: Final = 0.5  # what the method may spend of it: estimates take the rest


@dataclass(frozen=True, eq=False)
class TopK(Value):
    """The k largest singular values of a matrix, their vectors, and how sure they are.

    Attributes
    ----------
    s : ndarray of float64, shape (k,)
        Descending; NaN, like all numbers here, unless ``status`` is ``OK``.
    U : ndarray of float64, shape (rows, k)
        Left singular vectors, orthonormal columns. The largest entry of each is positive.
    V : ndarray of float64, shape (cols, k)
        Right singular vectors.
    residuals : ndarray of float64, shape (k,)
        The larger of ``|W v - s u|`` and ``|W^T u - s v|``.
    bounds : ndarray of float64, shape (k,)
        No singular value is further from its true value, the i-th largest of the matrix, than this:
        so none of the largest is missing. It holds with the probability below.
    failure_probability : float
        Bound on the probability that ``bounds`` does not hold; 0 where it is proved.
    method : str
        ``"krylov"``: a block Krylov space; ``"gram"``: eigenvectors of the Gram matrix; ``"svd"``:
        the whole decomposition.
    n_products : int
        How many vectors W was multiplied with, there and back; 0 unless the method is ``"krylov"``.
    status : Status
        ``OK`` or ``NOT_FINITE``.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> top = ps.svd_topk(np.diag([3.0, 2.0, 1.0]), 2)
    >>> top.s.round(6).tolist(), bool((top.bounds < 1e-9).all()), top.failure_probability
    ([3.0, 2.0], True, 0.0)
    """

    s: FloatArray
    U: FloatArray = field(repr=False)
    V: FloatArray = field(repr=False)
    residuals: FloatArray = field(repr=False)
    bounds: FloatArray = field(repr=False)
    failure_probability: float = 0.0
    method: str = "svd"
    n_products: int = 0
    status: Status = Status.OK


def svd_topk(W: Any, k: int, *, tol: float = 1e-6) -> TopK:
    """Find the k largest singular values of a matrix and their vectors, with certified errors.

    Parameters
    ----------
    W : array or tensor, or a tuple (W, B, A)
        A matrix of shape (rows, cols), of float16, bfloat16, float32 or float64 and any strides,
        numpy or torch. A tuple stands for ``W + B @ A``, with B (rows, r) and A (r, cols), which is
        not formed; a scale of the update belongs into B.
    k : int
        How many, at most ``min(rows, cols)``.
    tol : float
        Relative error that each singular value may have, in [1e-13, 0.1].

    Returns
    -------
    TopK
        Singular values, vectors, residuals, and a bound on the error of each value. The same bits
        for any number of threads. A matrix with NaN or infinity has status ``NOT_FINITE``.

    Raises
    ------
    TypeError
        If `W` is no real floating-point matrix or tuple of three, or k or tol no number.
    ValueError
        If shapes disagree, `W` is empty, or k or tol is out of range.
    ConvergenceError
        If LAPACK's iteration failed.

    Notes
    -----
    A block Krylov space of W^T W grows until every error bound is below ``tol * s`` (or below the
    rounding errors of float64, about 1e-16 ``(rows + cols) |W|_F``); `pyspectra.esd` takes all
    singular values without vectors. The bounds rest on the residuals and on the norm of what is
    left of W beside the vectors that were found. Where the Gram matrix is cheap, a Cholesky
    factorisation proves it; else products with 16 random vectors bound it, and are too small with
    a probability of at most 1e-12 (``failure_probability``), over the draw of the vectors: they
    come from one fixed key, so that results repeat. Where the space does not converge (no gap for
    thousands of directions, as in an identity) all singular values are computed. ``docs/topk.md``
    has the formulas.

    The space is sought in float32 where values do not spread too widely; they and their bounds come
    from products in float64. The error of a singular value is about the square of its residual, so
    that vectors have half the digits of values: a smaller `tol` makes vectors better.

    References
    ----------
    Musco, Musco, "Randomized block Krylov methods for stronger and faster approximate singular
    value decomposition", NeurIPS 2015. Hochstenbach, "Probabilistic upper bounds for the matrix
    two-norm", J. Sci. Comput. 57 (2013).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> W = rng.standard_normal((300, 200)) @ np.diag(1.0 / np.arange(1, 201))
    >>> top = ps.svd_topk(W, 3)
    >>> bool(np.all(np.abs(top.s - np.linalg.svd(W, compute_uv=False)[:3]) <= top.bounds))
    True
    >>> B, A = rng.standard_normal((300, 2)), rng.standard_normal((2, 200))
    >>> np.allclose(ps.svd_topk((W, B, A), 3).s, np.linalg.svd(W + B @ A, compute_uv=False)[:3])
    True
    """
    products = read_factors(W, "svd_topk")
    k = check_count("svd_topk", "k", k, most=products.M)
    tol = check_number("svd_topk", "tol", tol, least=1e-13, most=0.1)
    return leading_triplets(products, k, tol)


def leading_triplets(
    products: WeightProducts, k: int, tol: float, space: SingleSpace | UpdatedSpace | None = None
) -> TopK:
    """Do what `svd_topk` does, for arguments that have been checked.

    A `space` of these products that another search has grown, or will use, is tried first.
    """
    if math.isnan(products.size):
        return _as_given(products, _constant(products, k, math.nan, Status.NOT_FINITE))
    if products.size == 0.0:
        return _as_given(products, _constant(products, k, 0.0, Status.OK))
    with holding_blas(1):
        found = _in_single(products, k, tol, space)
        if found is None and space is not None:
            found = _in_single(products, k, tol)
        if found is None:
            found = _by_space(products, k, tol)
        if found is None and 2 * k <= products.M:
            found = _by_gram(products, k, tol)
        if found is None:
            found = _whole(products, k)
    return _as_given(products, found)


def _constant(products: WeightProducts, k: int, value: float, status: Status) -> TopK:
    """Return the triplets of a matrix that is zero, or not finite."""
    U, V = (np.eye(n, k) + value for n in (products.N, products.M))
    same = np.full(k, value)
    return TopK(same, U, V, same.copy(), same.copy(), status=status)


def _top(
    triplets: Triplets, k: int, bounds: FloatArray, failure: float, method: str, count: int
) -> TopK:
    """Return the first k of some triplets as a result."""
    V, U = triplets.V[:, :k].copy(), triplets.U[:, :k].copy()
    residuals, bounds = triplets.residuals(k), bounds + triplets.rounding
    return TopK(triplets.s[:k], U, V, residuals, bounds, failure, method, count)


def _in_single(
    products: WeightProducts, k: int, tol: float, space: SingleSpace | UpdatedSpace | None = None
) -> TopK | None:
    """Find the triplets by a space in single precision and one multiplication in double.

    None where that does not serve: singular values spread too widely, or there is no gap, or a
    space that was given, whose first block is not random, lacks a direction.
    """
    M = products.M
    due = 2 * k + 4 * BLOCK
    if tol < _LEAST_SINGLE or due > _MOST_AT_FIRST * M:
        return None
    # A Gram matrix takes the time of about 2 M / 3 products with vectors in single precision.
    G = products.gram() if 3 * (due + 5 * PROBES) >= 2 * M else None
    given = space is not None
    if space is None:
        space = SingleSpace(M, products.normal_single if G is None else _multiplied_single(G))
    extra = max(BLOCK, k // 4)
    last: tuple[int, int] | None = None
    while True:
        if space.size < due:
            if space.worn or space.size + BLOCK > _MOST_OF_ALL * M:
                break
            space.grow()
            continue
        ritz = space.ritz(min(k + extra, space.size - 1))
        if ritz.s[k - 1] < ritz.s[0] / _WIDEST:
            return None
        excess = _excess(ritz, k, tol, 0.5)
        if excess <= 1.0:
            triplets = quick_triplets(products, space.vectors(ritz))
            if triplets is None:
                return None
            found = certified(products, triplets, G, k, tol)
            if found is not None:
                return _top(triplets, k, *found, "krylov", space.size)
            if given or excess < 1e-4:
                return None  # rounding is what is left of the residuals
            extra *= 2  # the rest is as large as what was found: look further down
        done = _converged(ritz, k, tol)
        due = space.size + _to_multiply(space.size, done, k, last)
        last = space.size, done
    return None if space.worn or 2 * k > M else _by_gram(products, k, tol)


def _excess(ritz: Ritz, k: int, tol: float, power: float, rounding: float = 0.0) -> float:
    """Return the largest error of the first k values, estimated, over what is allowed."""
    s = ritz.s
    allowed = _OF_TOLERANCE * tol * s[:k] + rounding
    upper = upper_bounds(s, ritz.residual_gram, _factor(ritz, k, power), k)
    return float(np.max((upper - s[:k]) / allowed))


def _factor(ritz: Ritz, k: int, power: float) -> float:
    """Return the phi to expect, from the gap between the k-th and what was not kept."""
    last = float(ritz.s[k - 1])
    ratio = min((1.02 * ritz.next_s / last) ** (2.0 * power), 0.99) if last > 0.0 else 0.0
    return 1.0 / (1.0 - ratio)


def _converged(ritz: Ritz, k: int, tol: float) -> int:
    """Return how many of the first k values, without a break, are as good as they shall be."""
    errors = 0.5 * _factor(ritz, k, 0.5) * np.diagonal(ritz.residual_gram)[:k]
    good = errors <= _OF_TOLERANCE * tol * ritz.s[:k] ** 2
    return k if np.all(good) else int(np.argmin(good))


def _to_multiply(size: int, done: int, k: int, last: tuple[int, int] | None) -> int:
    """Guess how many more vectors it takes for `done` to reach k: it grows steadily, then faster.

    One look at the space costs as much as several blocks, so that few of them are wanted.
    """
    before, had = last if last is not None else (size // 2, 0)
    slope = max(done - had, 1) / (size - before)
    blocks = math.ceil(0.7 * max(k - done, 1) / slope / BLOCK)
    return BLOCK * min(max(blocks, 1), 8)


def _multiplied_single(G: FloatArray) -> Callable[[SingleArray], SingleArray]:
    held = HostArray(G.astype(np.float32), "float32")

    def normal(X: SingleArray) -> SingleArray:
        return ops.normal_product(held, X, transposed=False)[0]

    return normal


def _by_space(products: WeightProducts, k: int, tol: float) -> TopK | None:
    """Find the triplets in a part of all directions; None where that does not lead to an end."""
    M = products.M
    expected = 4 * k + 4 * BLOCK
    if expected >= _MOST_OF_ALL * M:
        return None
    # One Gram matrix costs as much as M / 4 products with vectors, there and back.
    G = products.gram() if 4 * expected >= M else None
    space = KrylovSpace(M, products.normal if G is None else _multiplied(G))
    extra = max(BLOCK, k // 2)
    due = 2 * k + 4 * BLOCK
    last: tuple[int, float] | None = None
    while space.size <= _MOST_OF_ALL * M and not space.exhausted:
        space.grow()
        if space.size < due:
            continue
        count = min(k + extra, space.size - 1)
        ritz = space.ritz(count)
        excess = _excess(ritz, k, tol, 1.0, ROUNDINGS * products.rounding)
        if excess <= 1.0:
            V = space.basis @ ritz.vectors
            triplets = triplets_in(products, V, space.image(ritz.vectors))
            found = certified(products, triplets, G, k, tol)
            if found is not None:
                return _top(triplets, k, *found, "krylov", space.size)
            extra *= 2  # the rest is as large as what was found: look further down
        due = space.size + BLOCK * _blocks_to_go(space.size, excess, last)
        last = space.size, excess
    return None


def _multiplied(G: FloatArray) -> Any:
    held = HostArray(G, "float64")

    def normal(X: FloatArray) -> tuple[None, FloatArray]:
        return None, ops.normal_product(held, X, transposed=False)[0]

    return normal


def _blocks_to_go(size: int, excess: float, last: tuple[int, float] | None) -> int:
    """Guess how many blocks it takes until the excess is below one: it falls geometrically."""
    if last is None or not 0.0 < excess < last[1] or not math.isfinite(last[1]):
        return 2
    slope = math.log(last[1] / excess) / (size - last[0])
    # A little less than it says: the fall becomes steeper as the space grows.
    return max(1, min(int(0.9 * math.log(max(excess, 2.0)) / slope / BLOCK), 8))


def _by_gram(products: WeightProducts, k: int, tol: float) -> TopK | None:
    """Find the triplets by the leading eigenvectors of the Gram matrix."""
    M = products.M
    G = products.gram()
    count = min(M, k + max(BLOCK, k // 4))
    found: tuple[FloatArray, float] | None = None
    if tol >= _LEAST_SINGLE:
        squares, vectors = _leading(G.astype(np.float32), count)
        if squares[-k] > squares[-1] / _WIDEST**2:
            triplets = quick_triplets(products, vectors[:, ::-1].astype(np.float64))
            if triplets is not None:
                found = certified(products, triplets, G, k, tol)
    if found is None:
        vectors = _leading(G, count)[1]
        triplets = triplets_in(products, np.ascontiguousarray(vectors[:, ::-1]), None)
        found = certified(products, triplets, G, k, tol)
    return None if found is None or triplets is None else _top(triplets, k, *found, "gram", 0)


def _leading(G: Any, count: int) -> tuple[Any, Any]:
    """Return the `count` largest eigenvalues of a symmetric matrix, ascending, and vectors."""
    M = len(G)

    def work() -> tuple[Any, Any]:
        if 8 * count >= M:  # all of them take no longer
            values, vectors = eigh(G, check_finite=False, driver="evd")
            return values[M - count :], vectors[:, M - count :]
        chosen = (M - count, M - 1)
        values, vectors = eigh(G, subset_by_index=chosen, check_finite=False, driver="evr")
        return values, vectors

    return run_aside(work, 2.0 * M**3)


def _whole(products: WeightProducts, k: int) -> TopK:
    """Return the first of all singular triplets, by LAPACK, which is backward stable."""
    dense = products.dense()

    def work() -> tuple[FloatArray, FloatArray, FloatArray]:
        U, s, Vt = np.linalg.svd(dense, full_matrices=False)
        return U[:, :k].copy(), s[:k].copy(), Vt[:k].T.copy()

    try:
        U, s, V = run_aside(work, 20.0 * dense.size * products.M)
    except np.linalg.LinAlgError as error:
        raise ConvergenceError("svd_topk: the iteration of LAPACK did not converge.") from error
    F = dense.T @ U - V * s
    E = dense @ V - U * s
    triplets = Triplets(U, s, V, F, E, products.rounding)
    return _top(triplets, k, triplets.residuals(k), 0.0, "svd", 0)


def _as_given(products: WeightProducts, top: TopK) -> TopK:
    """Undo the scaling and the transposition, and fix the signs."""
    U, V = (top.V, top.U) if products.transposed else (top.U, top.V)
    largest = np.take_along_axis(U, np.argmax(np.abs(U), axis=0)[None], axis=0)
    signs = np.where(largest < 0.0, -1.0, 1.0)
    values = (top.s, top.residuals, top.bounds)
    s, residuals, bounds = (np.ldexp(x, products.exponent) for x in values)
    return TopK(
        s, U * signs, V * signs, residuals, bounds, top.failure_probability, top.method,
        top.n_products, top.status,
    )  # fmt: skip
