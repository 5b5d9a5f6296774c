"""The leading singular triplets of a matrix, with bounds on how far each can be wrong."""

from __future__ import annotations

import math
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
from pyspectra.spectra.block_krylov import BLOCK, KrylovSpace, random_block
from pyspectra.spectra.singular_bounds import (
    FAILURE,
    PROBES,
    ProbedNorm,
    is_above_spectrum,
    largest_factor,
    upper_bounds,
)
from pyspectra.spectra.weight_products import WeightProducts, read_factors
from pyspectra.types import FloatArray, Status, Value

__all__ = ["TopK", "leading_triplets", "svd_topk"]

# Beyond this share of all directions a Krylov space is no cheaper than all of them.
_MOST_OF_ALL: Final = 0.6
_MOST_PROBES: Final = 48  # products with random vectors, before the space grows instead
_OF_TOLERANCE: Final = 0.5  # what the method may spend of it: estimates take the rest
# Where singular values are no larger than rounding errors: how many of these an error may have.
_ROUNDINGS: Final = 8.0


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

    The error of a singular value is about the square of its residual, so that vectors have half the
    digits of values: a smaller `tol` makes vectors better.

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


def leading_triplets(products: WeightProducts, k: int, tol: float) -> TopK:
    """Do what `svd_topk` does, for arguments that have been checked."""
    if math.isnan(products.size):
        return _as_given(products, _constant(products, k, math.nan, Status.NOT_FINITE))
    if products.size == 0.0:
        return _as_given(products, _constant(products, k, 0.0, Status.OK))
    with holding_blas(1):
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


@dataclass
class _Triplets:
    """Approximations with ``W V = U S`` up to rounding; rows are the longer side."""

    U: FloatArray
    s: FloatArray
    V: FloatArray
    F: FloatArray  # W^T U - V S
    E: FloatArray  # W V - U S
    rounding: float

    def residuals(self, k: int) -> FloatArray:
        """Return the larger of the two residuals of each of the first k."""
        norms = [np.linalg.norm(X[:, :k], axis=0) for X in (self.E, self.F)]
        return np.asarray(np.maximum(*norms))

    def top(self, k: int, bounds: FloatArray, failure: float, method: str, count: int) -> TopK:
        """Return the first k as a result."""
        V, U = self.V[:, :k].copy(), self.U[:, :k].copy()
        return TopK(
            self.s[:k], U, V, self.residuals(k), bounds + self.rounding, failure, method, count
        )


def _triplets(products: WeightProducts, V: FloatArray, Y: FloatArray | None) -> _Triplets:
    """Return the best triplets with right vectors in the span of V (orthonormal); Y is ``W V``."""
    if Y is None:
        Y = products.forward(V)
    Q, R = np.linalg.qr(Y)
    inner, s, outer = np.linalg.svd(R)
    U, V = Q @ inner, V @ outer.T
    F = products.backward(U) - V * s
    E = Y @ outer.T - U * s
    skew = sum(float(np.linalg.norm(X.T @ X - np.eye(len(s)))) for X in (U, V))
    rounding = products.rounding + float(np.linalg.norm(E)) + skew * float(s[0])
    return _Triplets(U, s, V, F, E, rounding)


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
        allowed = _OF_TOLERANCE * tol * ritz.s[:k] + _ROUNDINGS * products.rounding
        ratio = min((1.05 * ritz.next_s / ritz.s[k - 1]) ** 2, 0.99) if ritz.s[k - 1] > 0.0 else 0.0
        upper = upper_bounds(ritz.s, ritz.residual_gram, 1.0 / (1.0 - ratio), k)
        excess = float(np.max((upper - ritz.s[:k]) / allowed))
        if excess <= 1.0:
            V = space.basis @ ritz.vectors
            triplets = _triplets(products, V, space.image(ritz.vectors))
            certified = _certified(products, triplets, G, k, tol)
            if certified is not None:
                return triplets.top(k, *certified, "krylov", space.size)
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
    count = min(M, k + max(BLOCK, k // 2))
    _, vectors = run_aside(
        lambda: eigh(G, subset_by_index=(M - count, M - 1), check_finite=False, driver="evr"),
        2.0 * M**3,
    )
    triplets = _triplets(products, np.ascontiguousarray(vectors[:, ::-1]), None)
    certified = _certified(products, triplets, G, k, tol)
    return None if certified is None else triplets.top(k, *certified, "gram", 0)


def _certified(
    products: WeightProducts, triplets: _Triplets, G: FloatArray | None, k: int, tol: float
) -> tuple[FloatArray, float] | None:
    """Return the error bounds of the first k values, and the probability that they do not hold.

    What is wanted of the norm of the rest follows from the residuals: as little as will do. None
    if the bounds are too large, or the rest is.
    """
    gram = triplets.F.T @ triplets.F
    allowed = tol * triplets.s[:k] + _ROUNDINGS * triplets.rounding
    last = float(triplets.s[k - 1])
    # With a gap below the last of all vectors that were found, or without one after the k-th: then
    # the rest may be as large as the last that is wanted and a little larger, if phi is large.
    for count, least, least_phi in (
        (len(triplets.s), last, 1.0),
        (k, last + float(allowed[-1]), 2.0 / tol),
    ):
        s, V = triplets.s[:count], triplets.V[:, :count]
        phi = largest_factor(s, gram[:count, :count], k, allowed)
        if phi > least_phi:
            tau = least * math.sqrt(1.0 - 1.0 / phi)
            failure = _rest_is_below(products, V, G, tau, tol)
            if failure is not None:
                upper = upper_bounds(s, gram[:count, :count], phi, k)
                return np.maximum(np.maximum(upper, least) - s[:k], 0.0), failure
    return None


def _rest_is_below(
    products: WeightProducts, V: FloatArray, G: FloatArray | None, tau: float, tol: float
) -> float | None:
    """Return the probability that what is left of W beside V has a norm above tau; None if it may.

    It is 0 where there is a proof.
    """
    if V.shape[1] == products.M:
        return 0.0
    slack = products.rounding * products.size  # of the Gram matrix, squares of singular values
    if G is not None and slack <= 0.1 * tol * tau**2:
        return 0.0 if is_above_spectrum(G, V, tau**2, slack) else None
    return FAILURE if _probed(products, V, tau - 2.0 * products.rounding) else None


def _probed(products: WeightProducts, V: FloatArray, tau: float) -> bool:
    """Tell whether random vectors show that what is left of W beside V has a norm below tau."""
    if tau <= 0.0:
        return False

    def beside(X: FloatArray) -> FloatArray:
        return X - V @ (V.T @ X)

    def rest(X: FloatArray) -> FloatArray:
        return beside(products.normal(beside(X))[1])

    probe = ProbedNorm(rest, beside(random_block(products.M, PROBES, 2, 0)))
    previous = math.inf
    while probe.steps < _MOST_PROBES:
        probe.step()
        bound = probe.bound()
        if bound <= tau**2:
            return True
        if probe.steps > 8 and bound > previous * (1.0 - 1e-4):
            return False  # it has come to its end
        previous = bound
    return False


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
    triplets = _Triplets(U, s, V, F, E, products.rounding)
    return triplets.top(k, triplets.residuals(k), 0.0, "svd", 0)


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
