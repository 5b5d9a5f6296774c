"""Intruder dimensions: directions of a tuned matrix that its base does not have.

The definition compares a direction with all singular vectors of the base. Of a large matrix they
take minutes, and are not needed. Let u be a leading direction of the tuned matrix and u_1 ... u_K
those of the base.

- If the cosine with one of these is at least epsilon, u is no intruder.
- The squared cosines with all others sum to at most ``1 - sum_j (u^T u_j)^2``: if that is below
  epsilon^2, none of them reaches epsilon.
- Otherwise Lanczos's recurrence with W W^T on what is left of u gives orthonormal polynomials of
  the measure that has, at each squared singular value, the squared cosine for its weight, and these
  bound each single weight: `pyspectra.spectra.shares`, which also accounts for the rounding of the
  products. A direction that the base does not have is spread over many singular vectors, and a
  dozen products or two show it. This is asked first, of all of u, since what it answers needs no
  vector of the base.

Where none of this decides, all singular vectors are computed.

References
----------
Shuttleworth, Andreas, Torralba, Sharma, "LoRA vs full fine-tuning: an illusion of equivalence"
(2024), arXiv 2410.21228, algorithm 1.
Akhiezer, "The classical moment problem" (1965), chapter 2 (the mass of a point and the Christoffel
function).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra._support.blas_threads import holding_blas
from pyspectra.spectra.aside import run_aside
from pyspectra.spectra.common_space import common_space
from pyspectra.spectra.shares import SharesOfEigenvectors
from pyspectra.spectra.single_space import SingleArray, SingleSpace
from pyspectra.spectra.topk import TopK, leading_triplets
from pyspectra.spectra.weight_products import WeightProducts, read_factors
from pyspectra.types import FloatArray, Status, Value

TOP_K = 10
EPSILON = 0.5
LEAST_SQUARE = 1e-15  # of the largest eigenvalue of a Gram matrix: the rest is rounding
# From this side on all singular vectors take longer than what decides without them.
LARGE = 768
TOLERANCE = 1e-8  # of singular values: their vectors have half of the digits
MOST_STEPS = 40
MORE = 5  # vectors of the base beyond those of the tuned matrix


@dataclass(frozen=True, eq=False)
class Intruders(Value):
    """How much the leading directions of a tuned matrix resemble those of its base.

    Attributes
    ----------
    similarities : tuple of float
        For each of the leading left singular vectors of the tuned matrix, the first first: its
        largest ``|cos|`` with any left singular vector of the base; of a large matrix, with the
        leading ones of the base.
    singular_values : tuple of float
        Their singular values.
    epsilon : float
        A direction is an intruder where its similarity is below this.
    upper : tuple of float
        No left singular vector of the base has a larger ``|cos|`` with the direction. It is on the
        same side of epsilon as the similarity.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
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
    upper: tuple[float, ...] = ()

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
    base: Any, tuned: Any, *, k: int = TOP_K, epsilon: float = EPSILON
) -> Intruders | None:
    """Find the intruder dimensions of a tuned matrix.

    Parameters
    ----------
    base : ndarray, shape (rows, cols)
        The matrix before, of floating-point numbers, rows being what comes out of the layer.
    tuned : ndarray, or tuple of (B, A)
        The matrix after, or the factors of what was added to it: ``base + B @ A``.
    k : int
        How many of the leading directions of the tuned matrix are looked at.
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
    before = read_factors(base, "intruders", "base")
    after = read_factors(
        (base, *tuned) if isinstance(tuned, tuple) else tuned, "intruders", "tuned"
    )
    sizes = before.size, after.size
    if 1.0 / epsilon**2 >= before.M or not all(math.isfinite(x) and x > 0.0 for x in sizes):
        return None
    if before.M >= LARGE:
        found = _by_leading(before, after, min(k, after.M), epsilon)
        if found is not None:
            return found
    return _by_all(_dense(before), _dense(after), k, epsilon, 2.0**after.exponent)


def _dense(products: WeightProducts) -> FloatArray:
    W = products.dense()
    return W.T if products.transposed else W


def _by_all(
    base: FloatArray, tuned: FloatArray, k: int, epsilon: float, unit: float
) -> Intruders | None:
    """Compare with all singular vectors of the base, which may differ from `tuned` in scale."""
    if not (base.any() and tuned.any()):
        return None
    cost = 12.0 * base.size * min(base.shape)
    known, _ = run_aside(lambda: _left(base, None), cost)
    found, values = run_aside(lambda: _left(tuned, k), cost)
    cosines = np.minimum(np.abs(known.T @ found).max(axis=0), 1.0).tolist()
    return Intruders(tuple(cosines), tuple((unit * values).tolist()), epsilon, tuple(cosines))


def _by_leading(
    before: WeightProducts, after: WeightProducts, k: int, epsilon: float
) -> Intruders | None:
    """Compare with the leading singular vectors of the base; None where that does not decide."""
    # One more than is asked for tells how well the last is separated.
    with holding_blas(1):
        common = common_space(before, after)
    own, updated = common if common is not None else (None, None)
    new = leading_triplets(after, min(k + 1, after.M), TOLERANCE, updated)
    if new.status is not Status.OK:
        return None
    U, error = new.U[:, :k], _angles(new)[:k]
    # What is spread over the base needs none of its vectors. The others resemble leading ones.
    known, mass = np.zeros((len(U), 0)), np.ones(U.shape[1])
    share = _largest_share(before, known, U, mass, epsilon**2 - 2.0 * error, patient=False)
    spread = np.sqrt(share + 2.0 * error)
    few = int(np.count_nonzero(spread >= epsilon)) + 1
    for wanted in sorted({min(few, k), k}):
        found = _beside_leading(before, own, new, wanted, spread, epsilon)
        if found is not None:
            return found
    return None


def _beside_leading(
    before: WeightProducts,
    space: SingleSpace | None,
    new: TopK,
    wanted: int,
    spread: FloatArray,
    epsilon: float,
) -> Intruders | None:
    """Compare with about `wanted` leading vectors of the base; None where that does not decide.

    No cosine with a vector of the base is above `spread`. They may be in a `space` already.
    """
    k = len(spread)
    U, error = new.U[:, :k], _angles(new)[:k]
    old = leading_triplets(before, min(wanted + MORE, before.M), TOLERANCE, space)
    if old.status is not Status.OK:
        return None
    # The span of the base's vectors ends where the next singular value is furthest away.
    count = wanted + int(np.argmax(-np.diff(old.s)[wanted - 1 : -1]))
    gap = old.s[count - 1] - old.s[count] - 2.0 * old.bounds[count]
    tilt = float(np.linalg.norm(old.residuals[:count])) / gap if gap > 0.0 else 1.0
    known = old.U[:, :count]
    cosines = known.T @ U
    nearest = np.argmax(np.abs(cosines), axis=0)
    similarity = np.abs(cosines)[nearest, np.arange(k)]
    slack = error + _angles(old)[nearest]
    left = U - known @ cosines
    mass, drift = np.einsum("ij,ij->j", left, left), 2.0 * (error + tilt)
    upper = np.minimum(np.sqrt(mass + drift), spread)
    unsure = (similarity - slack < epsilon) & (upper >= epsilon)
    if np.any(unsure):
        share = _largest_share(
            before, known, left[:, unsure], mass[unsure], epsilon**2 - drift[unsure]
        )
        upper[unsure] = np.sqrt(mass[unsure] * share + drift[unsure])
    upper = np.maximum(upper, similarity + slack)
    if not np.all((similarity - slack >= epsilon) | (upper < epsilon)):
        return None
    cosine, most = (np.minimum(x, 1.0).tolist() for x in (similarity, upper))
    return Intruders(tuple(cosine), tuple(new.s[:k].tolist()), epsilon, tuple(most))


def _angles(top: TopK) -> FloatArray:
    """Bounds on the sines of the angles between left vectors and true ones: residual over gap."""
    gaps = -np.diff(top.s) - top.bounds[:-1] - top.bounds[1:]
    before, after = np.concatenate([[np.inf], gaps]), np.concatenate([gaps, [0.0]])
    gap = np.minimum(before, after)
    with np.errstate(divide="ignore"):
        sines = math.sqrt(2.0) * (top.residuals + top.bounds) / np.maximum(gap, 0.0)
    return np.asarray(np.minimum(sines, 1.0))


def _largest_share(
    products: WeightProducts,
    known: FloatArray,
    left: FloatArray,
    mass: FloatArray,
    wanted: FloatArray,
    patient: bool = True,
) -> FloatArray:
    """Bound the share that a single left singular vector has in each of what is `left`.

    That is what of each direction is beside the vectors that are `known`, of squared length `mass`.
    The bounds are improved until mass times share is below what is `wanted`, or, unless `patient`,
    until those that are not improve no longer. Products are taken in single precision first, and
    by the patient in double where that does not decide.
    """
    # Of the given matrix or of its transpose: W W^T acts on the rows of what was given.
    flat = products.transposed

    def beside(X: FloatArray | SingleArray) -> FloatArray:
        return np.asarray(X - known @ (known.T @ X), np.float64)

    def single(X: FloatArray) -> FloatArray:
        X = beside(X)
        return beside(products.normal_single(X) if flat else products.outer_single(X))

    def double(X: FloatArray) -> FloatArray:
        X = beside(X)
        return beside(products.normal(X)[1] if flat else products.forward(products.backward(X)))

    share = np.ones(left.shape[1])
    if patient and np.any(wanted <= 0.0):
        return share
    with holding_blas(1):
        for square in (single, double) if patient else (single,):
            unsure = np.flatnonzero(share >= wanted / mass)
            found = SharesOfEigenvectors(square, double, left[:, unsure])
            _improve(found, wanted[unsure] / mass[unsure], patient)
            share[unsure] = np.minimum(found.shares, share[unsure])
            if np.all(share < wanted / mass):
                break
    return share


def _improve(found: SharesOfEigenvectors, goal: FloatArray, patient: bool) -> None:
    """Go on until all shares are below the goal, or those that are not improve no longer."""
    least = np.ones(len(goal))
    for step in range(MOST_STEPS):
        before, least = least, np.minimum(least, found.step(goal))
        unsure = found.shares >= goal
        if not np.any(unsure):
            return
        if not patient and step >= 4 and np.all(least[unsure] > 0.97 * before[unsure]):
            return


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
