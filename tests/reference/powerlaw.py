"""Power-law tails p(x) ~ x**-alpha, x >= xmin: the exhaustive scan and its relatives.

References
----------
Clauset, Shalizi, Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009): 3.1
for the maximum-likelihood alpha and its standard error, 3.3 for xmin by the Kolmogorov-Smirnov
distance.
WeightWatcher 0.7.7 for the one-sided empirical distribution and the rule below 20 points.
Hill, "A simple general approach to inference about the tail of a distribution", Annals of
Statistics 3 (1975).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

THRESHOLD = 1e-5
SMALL = 20
SMALL_TAIL = 8
FLAT = 1e-12
"""T below this does not tell points apart; a tail like that is no candidate."""


@dataclass(frozen=True)
class RefFit:
    """The numbers of a fit; `distances` of every candidate (infinite where it is none)."""

    status: str
    alpha: float = math.nan
    xmin: float = math.nan
    xmax: float = math.nan
    D: float = math.nan
    alpha_stderr: float = math.nan
    n: int = 0
    n_tail: int = 0
    index: int = -1
    distances: Array | None = None

    @property
    def margin(self) -> float:
        """By how much the best D beats every other candidate."""
        assert self.distances is not None
        others = np.delete(self.distances, self.index)
        return float(np.min(others, initial=np.inf) - self.D)


def usable(x: Array, threshold: float = THRESHOLD, xmax: float = math.inf) -> Array:
    """Points that enter a fit: above the threshold, not above xmax; ascending."""
    x = np.sort(np.asarray(x, dtype=np.float64))
    return x[(x > threshold) & (x <= xmax)]


def log_sum(x: Array, xmin: float) -> float:
    """T = sum_j ln(x_j / xmin)."""
    return float(np.sum(np.log(x) - math.log(xmin)))


def distance(tail: Array, xmin: float, alpha: float) -> float:
    """D = max_j | 1 - (x_j / xmin)**(1 - alpha) - j / m | over the m points of the tail."""
    m = len(tail)
    model = 1.0 - np.exp((1.0 - alpha) * (np.log(tail) - math.log(xmin)))
    return float(np.max(np.abs(model - np.arange(m) / m)))


def fit_ww(x: Array, threshold: float = THRESHOLD, xmax: float = math.inf) -> RefFit:
    """Estimator ``ww``: every i = 0..n-2 is tried, the first with the smallest D wins.

    alpha_i = 1 + m / T_i with m = n - i. Below 20 points: alpha_i = 1 + (m - 1) / T_i, only m >= 8
    count, and if there is none, i = 0 is taken.
    """
    if not np.all(np.isfinite(x)):
        return RefFit("not_finite")
    x = usable(x, threshold, xmax)
    n = len(x)
    if n < 2:
        return RefFit("too_few_points", n=n)
    small = n < SMALL
    candidates = range(0, n - 1)
    if small:
        candidates = range(0, n - SMALL_TAIL + 1) if n >= SMALL_TAIL else range(0, 1)
    log_x = np.log(x)
    D = np.full(n, np.inf)
    alpha = np.full(n, np.nan)
    for i in candidates:
        m = n - i
        rises = log_x[i:] - log_x[i]
        T = float(np.sum(rises))
        if not T > FLAT:
            continue
        alpha[i] = 1.0 + (m - 1 if small else m) / T
        model = 1.0 - np.exp((1.0 - alpha[i]) * rises)
        D[i] = np.max(np.abs(model - np.arange(m) / m))
    if not np.any(np.isfinite(D)):
        return RefFit("degenerate", n=n)
    i = int(np.argmin(D))
    return RefFit(
        status="ok",
        alpha=float(alpha[i]),
        xmin=float(x[i]),
        xmax=float(x[-1]),
        D=float(D[i]),
        alpha_stderr=float((alpha[i] - 1.0) / math.sqrt(n - i)),
        n=n,
        n_tail=int(np.sum(x >= x[i])),
        index=i,
        distances=D,
    )


def fit_fixed(
    x: Array, xmin: float, threshold: float = THRESHOLD, xmax: float = math.inf
) -> RefFit:
    """The tail x >= xmin, without a scan; bias-corrected below 20 points as `fit_ww` is."""
    x = usable(x, threshold, xmax)
    n = len(x)
    tail = x[x >= xmin]
    m = len(tail)
    if m < 2:
        return RefFit("too_few_points", n=n)
    T = log_sum(tail, xmin)
    if not T > FLAT:
        return RefFit("degenerate", n=n)
    beta = (m - 1 if n < SMALL else m) / T
    return RefFit(
        status="ok",
        alpha=1.0 + beta,
        xmin=xmin,
        xmax=float(x[-1]),
        D=distance(tail, xmin, 1.0 + beta),
        alpha_stderr=beta / math.sqrt(m),
        n=n,
        n_tail=m,
        index=n - m,
    )


def fit_hill(
    x: Array, k: int | None = None, threshold: float = THRESHOLD, xmax: float = math.inf
) -> RefFit:
    """Hill's estimator on the k largest points; the next one below them is xmin.

    alpha = 1 + k / sum_{i=1..k} ln(x_{n-i+1} / x_{n-k}), k = n // 2 by default.
    """
    x = usable(x, threshold, xmax)
    n = len(x)
    if n < 2:
        return RefFit("too_few_points", n=n)
    k = n // 2 if k is None else k
    if k > n - 1:
        return RefFit("too_few_points", n=n)
    xmin = float(x[n - k - 1])
    tail = x[n - k :]
    T = sum(math.log(v / xmin) for v in tail)
    if not T > FLAT:
        return RefFit("degenerate", n=n)
    beta = k / T
    return RefFit(
        status="ok",
        alpha=1.0 + beta,
        xmin=xmin,
        xmax=float(x[-1]),
        D=distance(tail, xmin, 1.0 + beta),
        alpha_stderr=beta / math.sqrt(k),
        n=n,
        n_tail=k,
        index=n - k,
    )


def clip_xmax(x: Array) -> tuple[RefFit, int]:
    """WeightWatcher's fix_fingers="clip_xmax".

    f0 = fit(x). For k = 2..9, f = fit without the k largest: accept the first with
    f.alpha + 1 < f0.alpha (its count is k - 1); stop, keeping f0, at the first with f.alpha <= 2.
    """
    x = usable(x)
    raw = fit_ww(x)
    for k in range(2, 10):
        fit = fit_ww(x[:-k]) if len(x) - k >= 2 else RefFit("too_few_points")
        if fit.status != "ok":
            break
        if fit.alpha + 1.0 < raw.alpha:
            return fit, k - 1
        if fit.alpha <= 2.0:
            break
    return raw, 0
