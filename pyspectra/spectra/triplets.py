"""Approximate singular triplets, made as good as their subspace allows, and certified."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dtrtri

from pyspectra.spectra.block_krylov import random_block
from pyspectra.spectra.singular_bounds import (
    FAILURE,
    PROBES,
    ProbedNorm,
    is_above_spectrum,
    largest_factor,
    upper_bounds,
)
from pyspectra.spectra.weight_products import WeightProducts
from pyspectra.types import FloatArray

__all__ = ["ROUNDINGS", "Triplets", "certified", "quick_triplets", "triplets_in"]

# Where singular values are no larger than rounding errors: how many of these an error may have.
ROUNDINGS = 8.0
_MOST_PROBES = 48  # products with random vectors, before the space grows instead


@dataclass
class Triplets:
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


def triplets_in(products: WeightProducts, V: FloatArray, Y: FloatArray | None) -> Triplets:
    """Return the best triplets with right vectors in the span of V (orthonormal); Y is ``W V``."""
    if Y is None:
        Y = products.forward(V)
    Q, R = np.linalg.qr(Y)
    inner, s, outer = np.linalg.svd(R)
    return _measured(products, Q @ inner, s, V @ outer.T, Y @ outer.T)


def quick_triplets(products: WeightProducts, V: FloatArray) -> Triplets | None:
    """Do the same for a V that is orthonormal in single precision, and s that do not differ much.

    Gram matrices take the place of decompositions: errors in U are of the order of rounding times
    the square of the largest of s over the smallest. None if V is not of full rank.
    """
    R, failed = dpotrf(V.T @ V, lower=0, clean=1)
    if failed:
        return None
    V = V @ dtrtri(R)[0]
    Y = products.forward(V)
    squares, turn = np.linalg.eigh(Y.T @ Y)
    if squares[0] <= 0.0:
        return None
    s, turn = np.sqrt(squares[::-1]), turn[:, ::-1]
    Y = Y @ turn
    U = Y / s
    off = U.T @ U  # the identity, and what rounding made of it
    off[np.diag_indices(len(s))] -= 1.0
    U -= U @ (0.5 * off)
    return _measured(products, U, s, V @ turn, Y)


def _measured(
    products: WeightProducts, U: FloatArray, s: FloatArray, V: FloatArray, Y: FloatArray
) -> Triplets:
    """Return triplets with their residuals; Y is ``W V``."""
    F = products.backward(U)
    F -= V * s
    E = Y - U * s
    identity = np.eye(len(s))
    skew = sum(float(np.linalg.norm(X.T @ X - identity)) for X in (U, V))
    rounding = products.rounding + float(np.linalg.norm(E)) + skew * float(s[0])
    return Triplets(U, s, V, F, E, rounding)


def certified(
    products: WeightProducts, triplets: Triplets, G: FloatArray | None, k: int, tol: float
) -> tuple[FloatArray, float] | None:
    """Return the error bounds of the first k values, and the probability that they do not hold.

    What is wanted of the norm of the rest follows from the residuals: as little as will do. None
    if the bounds are too large, or the rest is.
    """
    gram = triplets.F.T @ triplets.F
    allowed = tol * triplets.s[:k] + ROUNDINGS * triplets.rounding
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
            failure = _rest_is_below(products, V, G, tau, float(s[-1]), tol)
            if failure is not None:
                upper = upper_bounds(s, gram[:count, :count], phi, k)
                return np.maximum(np.maximum(upper, least) - s[:k], 0.0), failure
    return None


def _rest_is_below(
    products: WeightProducts,
    V: FloatArray,
    G: FloatArray | None,
    tau: float,
    rest: float,
    tol: float,
) -> float | None:
    """Return the probability that what is left of W beside V has a norm above tau; None if it may.

    It is 0 where there is a proof; `rest` is what the norm is about.
    """
    if V.shape[1] == products.M:
        return 0.0
    slack = products.rounding * products.size  # of the Gram matrix, squares of singular values
    if G is not None and slack <= 0.1 * tol * tau**2:
        return 0.0 if is_above_spectrum(G, V, tau**2, slack) else None
    below = tau - 2.0 * products.rounding
    # Single precision serves where its errors are small beside the gap that is to be shown.
    error = products.single_rounding
    if 40.0 * error * below <= below**2 - rest**2:
        return FAILURE if _probed(V, below, products.normal_single, error) else None
    exact = _probed(V, below, lambda X: products.normal(X)[1], 0.0)
    return FAILURE if exact else None


def _probed(
    V: FloatArray, tau: float, normal: Callable[[FloatArray], npt.NDArray[Any]], error: float
) -> bool:
    """Tell whether random vectors show that what is left of W beside V has a norm below tau.

    A product with W or its transpose is wrong by at most `error` times the length of the vector.

    Notes
    -----
    After m steps the recurrence is that of an operator which is no further from the true one, in
    the 2-norm, than ``sqrt(2 m)`` times the error of a product with ``W^T W`` beside V, which is
    ``2 error rho + error^2`` where rho is the norm in question.
    """
    if tau <= 0.0:
        return False

    def beside(X: FloatArray) -> FloatArray:
        return np.asarray(X - V @ (V.T @ X))

    def rest(X: FloatArray) -> FloatArray:
        return beside(normal(beside(X)))

    probe = ProbedNorm(rest, beside(random_block(len(V), PROBES, 2, 0)))
    previous = math.inf
    while probe.steps < _MOST_PROBES:
        probe.step()
        goal = tau**2 - math.sqrt(2.0 * probe.steps) * error * (2.0 * tau + error)
        if goal <= 0.0 or probe.is_above(goal):
            return False
        if probe.is_below(goal):
            return True
        if probe.steps > 8 and probe.steps % 4 == 0:
            bound = probe.bound()
            if bound > previous * (1.0 - 4e-4):
                return False  # it has come to its end
            previous = bound
    return False
