"""Power-law tails p(x) ~ x**-alpha, x >= xmin: the exhaustive scan and its relatives.

References
----------
Clauset, Shalizi, Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009): 3.1
for the maximum-likelihood alpha and its standard error, 3.3 for xmin by the Kolmogorov-Smirnov
distance.
WeightWatcher 0.7.7 for the one-sided empirical distribution and the rule below 20 points.
Hill, "A simple general approach to inference about the tail of a distribution", Annals of
Statistics 3 (1975).
Zhou et al., "Temperature balancing, layer-wise weight analysis, and neural network training",
NeurIPS 2023, for ``tempbalance_median``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    T: float = math.nan  # log_sum of the tail
    outside: bool = False  # xmin is no point of the tail

    @property
    def alpha_corrected(self) -> float:
        """1 + (m - 2) / T, or (m - 1) / T if xmin is outside: T is Gamma of m - 1, or of m."""
        m = self.n - self.index
        left = m - 1 if self.outside else m - 2
        return 1.0 + left / self.T if self.status == "ok" and left > 0 else math.nan

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
        T=log_sum(x[i:], float(x[i])),
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
        T=T,
        outside=True,
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
        T=T,
        outside=True,
    )


def fit_csn(
    x: Array,
    min_tail: int = 10,
    threshold: float = THRESHOLD,
    xmax: float = math.inf,
    xmin: float | None = None,
) -> RefFit:
    """Estimator ``csn``: xmin among the distinct values whose tail has min_tail points.

    alpha = 1 + (m - 1) / T, unbiased. D = sup over x of |F - S|, S the empirical distribution with
    its steps: at each distinct value, its height before the step and after it.
    """
    x = usable(x, threshold, xmax)
    n = len(x)
    if n < 2:
        return RefFit("too_few_points", n=n)
    if n < min_tail:
        return RefFit("too_few_points", n=n)
    best: RefFit | None = None
    distances = np.full(n, np.inf)
    values = np.unique(x) if xmin is None else [xmin]
    for value in values:
        tail = x[x >= value]
        m = len(tail)
        if m < min_tail:
            continue
        T = log_sum(tail, value)
        if not T > FLAT:
            continue
        beta = (m - 1) / T
        steps, counts = np.unique(tail, return_counts=True)
        model = 1.0 - np.exp(-beta * (np.log(steps) - math.log(value)))
        after = np.cumsum(counts) / m
        before = after - counts / m
        D = float(np.max(np.maximum(np.abs(model - before), np.abs(model - after))))
        distances[n - m] = D
        if best is None or best.D > D:
            stderr = beta / math.sqrt(m)
            best = RefFit(
                *("ok", 1.0 + beta, value, float(x[-1]), D, stderr, n, m, n - m, distances),
                T=T,
                outside=xmin is not None,
            )
    if best is None:
        short = xmin is not None and np.sum(x >= xmin) < min_tail
        return RefFit("too_few_points" if short else "degenerate", n=n)
    return best


def fit_at(x: Array, i: int) -> RefFit:
    """The tail of the (usable, ascending) points from index i on, alpha = 1 + m / T."""
    n, m = len(x), len(x) - i
    T = log_sum(x[i:], float(x[i]))
    if not T > FLAT:
        return RefFit("degenerate", n=n)
    beta = m / T
    D = distance(x[i:], float(x[i]), 1.0 + beta)
    stderr = beta / math.sqrt(m)
    n_tail = int(np.sum(x >= x[i]))
    xmin, xmax = float(x[i]), float(x[-1])
    return RefFit("ok", 1.0 + beta, xmin, xmax, D, stderr, n, n_tail, i, T=T)


def fit_tempbalance_median(
    x: Array, threshold: float = THRESHOLD, xmax: float = math.inf
) -> RefFit:
    """Estimator ``tempbalance_median``: i = n // 2."""
    x = usable(x, threshold, xmax)
    if len(x) < 2:
        return RefFit("too_few_points", n=len(x))
    return fit_at(x, len(x) // 2)


def fit_fix_finger(
    x: Array, xmin_max: float | None = None, threshold: float = THRESHOLD, xmax: float = math.inf
) -> RefFit:
    """Estimator ``fix_finger``: `fit_ww`'s scan (for n >= 20) over a window of xmin.

    p = 10^(left edge of the fullest of 100 bins of log10 x); xmin from log10(0.95 p), a slip that
    became the definition, to xmin_max or 1.5 p.
    """
    x = usable(x, threshold, xmax)
    n = len(x)
    if n < 2:
        return RefFit("too_few_points", n=n)
    counts, edges = np.histogram(np.log10(x), bins=100)
    peak = 10.0 ** edges[np.argmax(counts)]
    high = 1.5 * peak if xmin_max is None else xmin_max
    distances = np.full(n, np.inf)
    best: RefFit | None = None
    for i in range(n - 1):
        if not math.log10(0.95 * peak) <= x[i] <= high:
            continue
        fit = fit_at(x, i)
        if fit.status == "ok":
            distances[i] = fit.D
            if best is None or fit.D < best.D:
                best = fit
    if best is None:
        return RefFit("degenerate", n=n)
    return RefFit(**{**vars(best), "distances": distances})


def replicate(
    body: Array, n: int, log_xmin: float, beta: float, words: Callable[[int], Iterator[int]]
) -> Array:
    """Ascending logarithms of one bootstrap replicate, as ``csrc/powerlaw/bootstrap.hpp`` says.

    words(stream) yields the 32-bit words of a stream of random numbers.
    """
    drawn: list[float] = []
    if len(body):
        choice = words(0)
        places = [(next(choice) * n) >> 32 for _ in range(n)]
        drawn = [float(np.log(body[r])) for r in sorted(places) if r < len(body)]
    k = n - len(drawn)
    noise = words(1)
    u = 0.0
    tail = []
    for j in range(k):
        bits = ((next(noise) << 32) | next(noise)) >> 11
        u += -math.log((bits + 1) * 2.0**-53) / (k - j)
        tail.append(log_xmin + u / beta)
    return np.array(drawn + tail)


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
