r"""Laws that a tail may follow instead of a power law: maximum likelihood for each.

All work on ``u = ln(x / xmin) >= 0``, so that ``x = xmin e^u``, and give log densities in u; those
in x are lower by ``ln x``, the same for each law. Two of the four are exponential families,

.. math:: p(u) \propto \exp(-\theta_1 u - \theta_2 s(u)), \qquad \theta_2 \ge 0,

with :math:`s = e^u - 1 - u` for the truncated power law (:math:`\theta_1 = \alpha - 1 + \theta_2`,
:math:`\theta_2 = \Lambda x_{min}`; with :math:`e^u` alone the two statistics would be all but
proportional on a narrow tail) and :math:`s = u^2` for the lognormal (:math:`\sigma^2 = 1 /
2\theta_2`). Their log-likelihood is concave, its gradient is the difference between the means of
the statistics and their expectations, its Hessian minus their covariance: Newton's method finds the
one maximum. The power law is the edge :math:`\theta_2 = 0`, and the maximum lies there exactly if
the gradient at the power law's own maximum points outwards; then the alternative explains nothing
more. The same holds of the stretched exponential as its exponent goes to 0. A cut-off so late that
it changes no point's log density by more than 1e-9 counts as the edge: with one far outlier the
maximum lies there, decades beyond the tail.

The normalising integral of the truncated power law is :math:`e^{...}\,\Gamma(1 - \alpha, \Lambda
x_{min})` with a negative first argument, for which SciPy has no function. All integrals are
composite Gauss-Legendre sums. They reach as far as :math:`s^2 p(u)`, and not p(u) alone, is above
e^-45 of the peak of p: where the power law has no mean, the cut-off decides the expectation of s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pyspectra.types import FloatArray

_PANELS, _NODES = 24, 16
_WIDEST = 2.0  # widest panel in u: the cut-off e^(-Lambda x) falls within a few units
_KNOTS, _WEIGHTS = np.polynomial.legendre.leggauss(_NODES)
_DROP = 45.0  # e^-45 is below float64's resolution of the integral
_ITERATIONS, _HALVINGS = 60, 20
_EDGE = 1e-9  # a cut-off that changes no point's log density by more is none
_CONVERGED = 1e-18  # squared distance from the maximum, in standard deviations of one point


@dataclass(frozen=True)
class Law:
    """A fitted law: parameters by the names used in its formula; log densities of the points."""

    parameters: Mapping[str, float]
    log_density: FloatArray


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """Return where f changes sign between low and high, to rounding."""
    from scipy.optimize import brentq  # not at import: it takes 0.1 s

    return float(brentq(f, low, high, xtol=1e-300, rtol=1e-14))


def _solve(covariance: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a 2 x 2 system, NaN where it is singular: the statistics differ by many orders."""
    scale = np.sqrt(np.diag(covariance))
    correlation = float(covariance[0, 1] / (scale[0] * scale[1]))
    a, b = right / scale
    determinant = 1.0 - correlation**2
    if not determinant > 0.0:
        return np.full(2, math.nan)
    return np.array([a - correlation * b, b - correlation * a]) / determinant / scale


# --- exponential families -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Family:
    s: Callable[[FloatArray], FloatArray]
    slope: Callable[[float], float]  # s'

    def nodes(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Nodes, weights times the integrand over its peak, and the logarithm of the peak."""
        one, two = float(theta[0]), float(theta[1])

        def s(u: float) -> float:
            return float(self.s(np.float64(u)))  # type: ignore[arg-type]

        def phi(u: float) -> float:
            return -one * u - two * s(u)

        def furthest(u: float) -> float:
            """The integrand of the variance of s; far out both parts are infinite."""
            at = s(u)
            return -one * u - two * at + 2.0 * math.log1p(at) if at < math.inf else -1e300

        def rise(u: float) -> float:
            return -one - two * self.slope(u)

        peak = 0.0
        if rise(0.0) > 0.0:
            high = 1.0
            while rise(high) > 0.0:
                high *= 2.0
            peak = _root(rise, 0.0, high)
        top = phi(peak)
        far = _DROP / (1.0 + abs(one) + two)
        while furthest(peak + far) > top - _DROP:
            far *= 2.0
        upper = _root(lambda u: furthest(u) - top + _DROP, peak, peak + far)
        lower = 0.0
        if peak > 0.0 and phi(0.0) < top - _DROP:
            lower = _root(lambda u: phi(u) - top + _DROP, 0.0, peak)
        panels = max(_PANELS, math.ceil((upper - lower) / _WIDEST))
        edges = np.linspace(lower, upper, panels + 1)
        half = 0.5 * (upper - lower) / panels
        u = ((edges[:-1] + half)[:, None] + half * _KNOTS).ravel()
        integrand = np.exp(-one * u - two * self.s(u) - top)
        return u, np.tile(half * _WEIGHTS, panels) * integrand, top

    def moments(self, theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return ln Z, mean and covariance of the statistics (u, s)."""
        u, w, top = self.nodes(theta)
        total = float(np.sum(w))
        statistics = np.stack([u, self.s(u)])
        mean = statistics @ w / total
        centred = statistics - mean[:, None]
        return top + math.log(total), mean, (centred * w) @ centred.T / total

    def fit(self, u: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Maximise the likelihood inside ``theta_2 > 0``: (theta, covariance of the statistics).

        None if Newton's method did not converge.
        """
        observed = np.array([np.mean(u), np.mean(self.s(u))])

        def value(theta: FloatArray, log_z: float) -> float:
            return -float(theta @ observed) - log_z

        theta = start
        log_z, mean, covariance = self.moments(theta)
        for _ in range(_ITERATIONS):
            gradient = mean - observed
            step = _solve(covariance, gradient)
            decrement = float(gradient @ step)
            if not decrement >= 0.0:
                return None
            if decrement < _CONVERGED:
                return theta, covariance
            if theta[1] + step[1] <= 0.1 * theta[1]:
                # Keep off the edge: the best step among those that go nine tenths of the way.
                near = -0.9 * float(theta[1])
                step = np.array([(gradient[0] - covariance[0, 1] * near) / covariance[0, 0], near])
                decrement = float(gradient @ step)
            size = 1.0
            now = value(theta, log_z)
            for _ in range(_HALVINGS):
                trial = theta + size * step
                log_z, mean, covariance = self.moments(trial)
                if value(trial, log_z) >= now + 0.1 * size * decrement - 1e-15 * abs(now):
                    break
                size *= 0.5
            theta = trial
        return None

    def log_density(self, u: FloatArray, theta: FloatArray) -> FloatArray:
        return np.asarray(-theta[0] * u - theta[1] * self.s(u) - self.moments(theta)[0])


_TPL = _Family(s=lambda u: np.expm1(u) - u, slope=lambda u: float(np.expm1(u)))
_LOGNORMAL = _Family(s=np.square, slope=lambda u: 2.0 * u)


# --- the laws -----------------------------------------------------------------------------------


def power_law(u: FloatArray, xmin: float) -> Law:
    """``p(x) ~ x^-alpha``: alpha = 1 + 1 / mean(u)."""
    beta = 1.0 / float(np.mean(u))
    return Law({"alpha": 1.0 + beta}, math.log(beta) - beta * u)


def exponential(u: FloatArray, xmin: float) -> Law:
    """``p(x) ~ e^(-Lambda x)``: Lambda = 1 / mean(x - xmin)."""
    rate = 1.0 / float(np.mean(np.expm1(u)))
    return Law({"Lambda": rate / xmin}, math.log(rate) - rate * np.expm1(u) + u)


def lognormal(u: FloatArray, xmin: float) -> Law | None:
    """``ln x ~ N(mu, sigma^2)``, cut off below xmin; sigma infinite where a power law fits best."""
    mean, square = float(np.mean(u)), float(np.mean(u**2))
    if square >= 2.0 * mean**2:
        edge = {"mu": -math.inf, "sigma": math.inf}
        return Law(edge, power_law(u, xmin).log_density)
    start = np.array([0.0, 0.5 / square])  # a half-normal of that mean square
    found = _LOGNORMAL.fit(u, start)
    if found is None:
        return None
    theta, _ = found
    parameters = {
        "mu": math.log(xmin) - 0.5 * float(theta[0] / theta[1]),
        "sigma": math.sqrt(0.5 / float(theta[1])),
    }
    return Law(parameters, _LOGNORMAL.log_density(u, theta))


def stretched(u: FloatArray, xmin: float) -> Law:
    r"""``P(X > x) = exp(-(Lambda x)^beta + (Lambda xmin)^beta)``; beta 0 is a power law.

    For given beta the likelihood is largest at :math:`(\Lambda x_{min})^\beta \beta = c = 1 /
    mean(q)`, :math:`q = (e^{\beta u} - 1) / \beta`; what is left is concave in beta.
    """
    mean = float(np.mean(u))
    largest = float(np.max(u))

    def slope(beta: float) -> float:
        b = beta * u
        # q and dq/dbeta over e^(beta max u); dq/dbeta = u^2 (b e^b - e^b + 1) / b^2.
        shrink = math.exp(-beta * largest)
        small = b < 1e-2
        near = 0.5 + b * (1 / 3 + b * (1 / 8 + b * (1 / 30 + b / 144)))
        safe = np.where(small, 1.0, b)
        rise = np.exp(b - beta * largest)
        far = ((safe - 1.0) * rise + shrink) / safe**2
        derivative = u**2 * np.where(small, near * shrink, far)
        q = u * np.where(small, shrink * (1 + b / 2 * (1 + b / 3 * (1 + b / 4 * (1 + b / 5)))),
                         (rise - shrink) / safe)  # fmt: skip
        return mean - float(np.sum(derivative)) / float(np.sum(q))

    if slope(0.0) <= 0.0:
        return Law({"Lambda": 0.0, "beta": 0.0}, power_law(u, xmin).log_density)
    high = 1.0 / mean
    while slope(high) > 0.0:
        high *= 2.0
    beta = _root(slope, 0.0, high)
    q = np.expm1(beta * u) / beta
    c = 1.0 / float(np.mean(q))
    rate = float(np.exp(math.log(c / beta) / beta - math.log(xmin)))  # may be infinite
    parameters = {"Lambda": rate, "beta": beta}
    return Law(parameters, math.log(c) + beta * u - c * q)


@dataclass(frozen=True)
class TruncatedPowerLaw:
    """Maximum-likelihood ``p(x) = C x^-alpha e^(-Lambda x)`` of a tail, in u = ln(x / xmin)."""

    theta: FloatArray  # alpha - 1 + Lambda xmin, Lambda xmin
    alpha_stderr: float

    @property
    def alpha(self) -> float:
        """Exponent of the power law before the cut-off; may be below 1."""
        return 1.0 + float(self.theta[0] - self.theta[1])

    def log_density(self, u: FloatArray) -> FloatArray:
        """Log density in u of points u >= 0."""
        if self.theta[1] == 0.0:
            return np.asarray(math.log(self.theta[0]) - self.theta[0] * u)
        return _TPL.log_density(u, self.theta)

    def cdf(self, u: FloatArray) -> FloatArray:
        """P(U <= u) at ascending points u >= 0."""
        if self.theta[1] == 0.0:
            return np.asarray(-np.expm1(-self.theta[0] * u))
        log_z = _TPL.moments(self.theta)[0]
        begin = np.concatenate([[0.0], u[:-1]])
        # A wide gap between two points is split until the law falls little within a piece.
        fall = abs(self.theta[0]) + self.theta[1] * np.expm1(u)
        widest = float(np.max((u - begin) * fall))
        pieces = int(min(max(1.0, widest / 8.0), 64.0))
        fractions = np.arange(pieces) / pieces
        half = 0.5 * (u - begin) / pieces
        at = (begin[:, None] + (u - begin)[:, None] * fractions + half[:, None])[..., None]
        at = at + half[:, None, None] * _KNOTS
        density = np.exp(-self.theta[0] * at - self.theta[1] * _TPL.s(at) - log_z)
        mass = half * np.sum(density @ _WEIGHTS, axis=1)
        return np.asarray(np.minimum(np.cumsum(mass), 1.0))


def fit_truncated(u: FloatArray) -> TruncatedPowerLaw | None:
    """Fit points u >= 0; Lambda 0 where a power law fits best, None if there is no convergence."""
    beta = 1.0 / float(np.mean(u))
    ratio = float(np.mean(np.exp(u)))
    edge = TruncatedPowerLaw(np.array([beta, 0.0]), beta / math.sqrt(len(u)))
    if beta > 1.0 and ratio >= beta / (beta - 1.0):  # E[x / xmin] of the power law
        return edge
    found = _TPL.fit(u, np.array([0.5 * beta + 0.5 / ratio, 0.5 / ratio]))
    # With one far outlier, or beta near 1, the maximum lies off the edge by less than one can tell.
    nearest = _EDGE * math.exp(-float(np.max(u)))
    if found is None:
        expected = _TPL.moments(np.array([beta, nearest]))[1][1]
        return edge if expected <= float(np.mean(_TPL.s(u))) else None
    if found[0][1] < nearest:
        return edge
    theta, covariance = found
    difference = np.array([1.0, -1.0])  # alpha - 1 in terms of theta
    variance = float(difference @ _solve(covariance, difference))
    if not variance > 0.0:
        return None
    return TruncatedPowerLaw(theta, math.sqrt(variance / len(u)))


def truncated(u: FloatArray, xmin: float) -> Law | None:
    """``p(x) = C x^-alpha e^(-Lambda x)``; Lambda 0 where a power law fits best."""
    found = fit_truncated(u)
    if found is None:
        return None
    parameters = {"alpha": found.alpha, "Lambda": float(found.theta[1]) / xmin}
    return Law(parameters, found.log_density(u))
