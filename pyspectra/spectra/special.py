"""The few special functions that every report needs, in numpy.

`scipy.special` has them, and takes as long to load as a model of 90 MB to analyse.

References
----------
NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov: 8.7.1, 8.2.2 (incomplete
gamma functions), 5.11.1 (Stirling), 9.2.1 and 9.6.2 (Airy's function), 10.32.9 (K_nu).
"""

from __future__ import annotations

import functools
import math

import numpy as np

from pyspectra.types import FloatArray

__all__ = ["airy_ai", "gamma_tails"]

# Of the integrand at its beginning: what is below is beyond double precision.
NEGLIGIBLE = 45.0
NODES = 72


def gamma_tails(shape: float, x: float) -> tuple[float, float]:
    """Both tails of a gamma law of scale one: P(X < x) and P(X > x), the smaller in full precision.

    Parameters
    ----------
    shape : float
        Above zero.
    x : float
        Not below zero.

    Returns
    -------
    lower, upper : float
        The regularised incomplete gamma functions P and Q.
    """
    if not (shape > 0.0 and x >= 0.0):
        return math.nan, math.nan
    if x == 0.0:
        return 0.0, 1.0
    if math.isinf(x):
        return 1.0, 0.0
    if x < shape + 1.0:
        # x^a e^-x / Gamma(a + 1) times sum x^n / ((a + 1) ... (a + n)).
        count = 80 + int(9.0 * math.sqrt(shape))
        terms = np.cumprod(x / (shape + np.arange(1.0, count)))
        lower = min(_density(shape, x) * x / shape * (1.0 + float(terms.sum())), 1.0)
        return lower, 1.0 - lower
    upper = min(_density(shape, x) * _beyond(shape, x), 1.0)
    return 1.0 - upper, upper


def _density(shape: float, x: float) -> float:
    """x^(a - 1) e^-x / Gamma(a): of large numbers only the difference is taken."""
    far = (x - shape) / shape
    # Where x is a small part of the shape, log1p would have lost it.
    log = math.log1p(far) if far > -0.5 else math.log(x) - math.log(shape)
    exponent = shape * (log - far)
    return math.sqrt(shape / (2.0 * math.pi)) / x * math.exp(exponent - _stirling(shape))


def _stirling(a: float) -> float:
    """What Stirling's formula leaves out of log Gamma."""
    if a < 12.0:
        return math.lgamma(a) - (a - 0.5) * math.log(a) + a - 0.5 * math.log(2.0 * math.pi)
    y = 1.0 / (a * a)
    series = 0.0
    for term in (-691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        series = series * y + term
    return series / a


def _beyond(shape: float, x: float) -> float:
    """Integral of the density beyond x over its value at x, for x >= shape + 1."""

    def fall(u: float) -> float:  # convex, where the shape is above one
        return u - (shape - 1.0) * math.log1p(u / x)

    end = NEGLIGIBLE
    while fall(end) < NEGLIGIBLE:
        end *= 1.5
    node, weight = _legendre(NODES)
    # More nodes stand where the integrand is large.
    u = end * node**2
    values = np.exp((shape - 1.0) * np.log1p(u / x) - u)
    return float((weight * values * 2.0 * node).sum() * end)


@functools.cache
def _legendre(count: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of Gauss and Legendre on (0, 1)."""
    x, weights = np.polynomial.legendre.leggauss(count)
    return (x + 1.0) / 2.0, weights / 2.0


# Ai and its derivative at the whole numbers from LEAST on: between them Taylor's series serves,
# whose coefficients follow from y'' = z y.
LEAST = -9
_AI = (
    -0.022133721547341403674, -0.052705050356386202622, 0.18428083525050563728,
    -0.32914517362982310523, 0.35076100902411431979, -0.070265532949289515099,
    -0.37881429367765807435, 0.22740742820168557599, 0.5355608832923521188,
    0.35502805388781723926, 0.13529241631288141552, 0.034924130423274379135,
)  # fmt: skip
_AI_SLOPES = (
    -0.97566398092633159471, 0.93556093819830655103, -0.77100816841012654773,
    0.34593548728134289493, 0.32719281855444313679, -0.7906285753685813803,
    0.31458376921659881365, 0.61825902074169104141, -0.010160567116645209395,
    -0.25881940379280679841, -0.15914744129679321279, -0.053090384433653631704,
)  # fmt: skip
TERMS = 28
STEPS = 34


def airy_ai(z: FloatArray) -> FloatArray:
    """Airy's function Ai, to about 1e-14 of itself where it falls, of its waves elsewhere.

    Parameters
    ----------
    z : ndarray of float64
        Not below -9.

    Returns
    -------
    ndarray of float64
    """
    out = np.empty_like(z)
    falls = z > 1.5
    near = z[~falls]
    whole = np.rint(near)
    place = whole.astype(np.int64) - LEAST
    series, step = _taylor(), near - whole
    value = np.zeros_like(near)
    for coefficients in series[::-1]:
        value = value * step + coefficients[place]
    out[~falls] = value
    out[falls] = _falling(z[falls])
    return out


@functools.cache
def _taylor() -> FloatArray:
    """Coefficients of Taylor's series, a column for each whole number."""
    place = LEAST + np.arange(len(_AI), dtype=np.float64)
    series = np.zeros((TERMS, len(_AI)))
    series[0], series[1], series[2] = _AI, _AI_SLOPES, place * _AI / 2.0
    for n in range(1, TERMS - 2):
        series[n + 2] = (place * series[n] + series[n - 1]) / ((n + 1) * (n + 2))
    return series


def _falling(z: FloatArray) -> FloatArray:
    """Ai(z) = sqrt(z / 3) K_{1/3}(2/3 z^1.5) / pi for z > 0, by K's integral.

    The integrand falls doubly exponentially, so that sums over equal steps are exact to rounding.
    """
    zeta = z * np.sqrt(z) / 1.5
    step = 2.0 * np.arcsinh(np.sqrt(NEGLIGIBLE / 2.0 / zeta)) / STEPS  # where the integrand ends
    t = np.multiply.outer(np.arange(STEPS + 1.0), step)
    # cosh t - 1 without its cancellation.
    values = np.exp(-2.0 * zeta * np.sinh(t / 2.0) ** 2) * np.cosh(t / 3.0)
    integral = step * (values.sum(0) - values[0] / 2.0)
    with np.errstate(under="ignore"):
        return np.asarray(np.sqrt(z / 3.0) / math.pi * np.exp(-zeta) * integral)
