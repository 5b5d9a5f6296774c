"""The edge of the spectrum for variances a_k b_i, by bracketing and differences."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq, minimize_scalar


def _resolvent(a: np.ndarray, b: np.ndarray, log_s: float) -> tuple[float, float, float]:
    """z, alpha and beta of s, in the words of ``csrc/spectra/profile_edge.hpp``."""
    s = math.exp(log_s)

    def solved(values: np.ndarray) -> float:
        top = 1.0 / values.max()
        return brentq(
            lambda t: np.sum(values * t / (1.0 - values * t)) - s,
            0.0,
            top * (1.0 - 1e-15),
            xtol=1e-18,
        )

    alpha, beta = solved(b), solved(a)
    return s / (alpha * beta), alpha, beta


def profile_edge(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Return edge, scale and response of the C++ function of that name.

    The edge is the least z on its way from infinity, the curvature there a second difference, and
    the response the shift by a term ``sum P^2 x^2 y^2`` of the potential whose stationary point
    x and y are, along the direction in which that is flat.
    """
    a, b = a[a > 0.0], b[b > 0.0]

    def z(log_s: float) -> float:
        return _resolvent(a, b, log_s)[0]

    grid = np.linspace(-12.0, 12.0, 97) + 0.5 * math.log(len(a) * len(b))
    falls = np.diff([z(u) for u in grid]) < 0.0
    first = int(np.argmin(falls))  # where z rises for the first time
    at = minimize_scalar(z, bounds=(grid[first - 1], grid[first + 1]), options={"xatol": 1e-9}).x
    edge, alpha, beta = _resolvent(a, b, at)
    h = 1e-3
    second = (z(at + h) - 2.0 * edge + z(at - h)) / h**2
    kappa = math.exp(at) / edge * math.sqrt(2.0 / second)
    w = math.sqrt(edge)
    x, y = 1.0 / (w * (1.0 - b * alpha)), 1.0 / (w * (1.0 - a * beta))
    # The flat direction: dx = x^2 b dA, dy = y^2 a dB, dA = sum a dy.
    dy = a * y**2
    dx = b * x**2 * np.sum(a * dy)
    P2 = np.outer(a, b) ** 2
    gradient = 2.0 * (y**2 @ P2 @ (x * dx) + (y * dy) @ P2 @ x**2)
    return edge, kappa ** (-2.0 / 3.0), gradient / (np.sum(dx) + np.sum(dy)) / w
