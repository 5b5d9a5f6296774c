"""Marchenko-Pastur law, Tracy-Widom law and WeightWatcher's density estimate, written plainly.

References
----------
Marchenko, Pastur (1967); Ferrari, Spohn, J. Phys. A 38 (2005); WeightWatcher 0.7.7.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.integrate import quad
from scipy.special import airy

Array = npt.NDArray[np.float64]


def law(x: float, y: float) -> float:
    """CDF of eigenvalues of mean one at aspect ratio y <= 1: density integrated over lambda."""
    a, b = (1.0 - math.sqrt(y)) ** 2, (1.0 + math.sqrt(y)) ** 2
    if x <= a:
        return 0.0
    if x >= b:
        return 1.0

    # lambda = a + (b - a) sin^2 t takes the square-root ends out of the integral.
    def integrand(t: float) -> float:
        lam = a + (b - a) * math.sin(t) ** 2
        root = (b - a) * math.sin(t) * math.cos(t)
        return root / (2.0 * math.pi * y * lam) * 2.0 * (b - a) * math.sin(t) * math.cos(t)

    return float(quad(integrand, 1e-12, math.asin(math.sqrt((x - a) / (b - a))))[0])


def tracy_widom_cdf(s: float, nodes: int = 60) -> float:
    """F1(s) = det(1 - Ai(x + y + s)) on (0, 24), by Gauss-Legendre quadrature."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = 12.0 * (x + 1.0), 12.0 * w
    kernel = np.array([[airy(p + q + s)[0] for q in x] for p in x])
    return float(np.linalg.det(np.eye(nodes) - np.sqrt(np.outer(w, w)) * kernel))


def triangular_density(x: Array, grid: Array, h: float = 0.1) -> Array:
    """Sum over points of max(0, 1 - |g - x| / h) / (n h)."""
    return np.array([np.sum(np.maximum(0.0, 1.0 - np.abs(g - x) / h)) for g in grid]) / (len(x) * h)


def ww_cost(s: float, e: Array, Q: float) -> float:
    """Sum of squared residuals of WeightWatcher's fit at scale s."""
    x = np.sqrt(e) if Q == 1.0 else e
    grid = np.linspace(0.0, x.max() + 0.5, 1000)
    y = triangular_density(x, grid)
    peak = grid[np.argmax(y)]
    grid, y = grid[y > 0.01], y[y > 0.01]
    a, b = (s * (1 - Q**-0.5)) ** 2, (s * (1 + Q**-0.5)) ** 2
    total = 0.0
    for g, density in zip(grid, y, strict=True):
        if Q == 1.0:
            model = math.sqrt(4.0 - g * g) / (math.pi * s * s) if g < 2.0 else 0.0
        elif b < peak or b > grid[-1] or a > peak:
            model = density + 1000.0
        else:
            inside = (b - g) * (g - a)
            model = math.sqrt(inside) * Q / (2 * math.pi * s * s * g) if inside > 0.0 else 0.0
        total += (model - density) ** 2
    return total
