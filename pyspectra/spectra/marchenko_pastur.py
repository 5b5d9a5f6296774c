"""Marchenko-Pastur fits: which part of a spectrum looks random, and whether all of it does.

References
----------
Marchenko, Pastur, "Distribution of eigenvalues for some sets of random matrices", Mat. Sb. 72
(1967).
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021).
Kritchman, Nadler, "Determining the number of components in a factor model from limited noisy
data", Chemometr. Intell. Lab. 94 (2008): spikes one Tracy-Widom test after the other.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from pyspectra._arrays import as_host
from pyspectra._support.arguments import check_choice, check_count, check_number
from pyspectra.errors import ArgumentValueError
from pyspectra.spectra import marchenko_pastur_ww as ww
from pyspectra.spectra import random_null, tracy_widom
from pyspectra.types import FloatArray, MPFit, Status

FITS = ("robust", "ww")

# Largest side of a matrix: products of two sides must fit in the 64 bits of an index.
MAX_SIDE = 2**31 - 1

# A random layer of Gaussian entries shows a spike with this probability.
SPIKE_LEVEL = 0.01
# The largest part by which the kurtosis of the entries moves the edge: above it a few entries alone
# make eigenvalues beyond the bulk, which are then counted.
MOST_SHIFT = 0.5
# An eigenvalue that is the reach itself is within it.
ROUNDING = 1e-6
# Nodes of the cumulative law: trapezoids of a smooth function, good to 1e-7.
LAW_NODES = 2049


def marchenko_pastur(
    evals: Any, N: int, M: int, *, mp: str = "robust", kurtosis: float = 0.0
) -> MPFit:
    """Fit the Marchenko-Pastur law to the bulk of a spectrum and test it for randomness.

    Parameters
    ----------
    evals : 1-D array or tensor
        Eigenvalues of ``W.T @ W``, any order; of several matrices together for a convolution.
    N, M : int
        Longer and shorter side of each matrix (``mp="ww"``: either may be the longer).
    mp : {"robust", "ww"}
        ``"robust"``: the variance of the bulk without its spikes; a spike exceeds what the largest
        eigenvalue of a random matrix of this shape and `kurtosis` does not exceed with probability
        0.99 (Tracy-Widom, its edge moved to first order). Where the largest entries make
        eigenvalues of their own, spikes are more often; `analyze`, which sees the entries, keeps
        the level there.
        ``"ww"``: WeightWatcher 0.7.7's least-squares fit of a density estimate.
    kurtosis : float
        Excess kurtosis of the entries of W, for the p-value and the threshold of spikes: 0 for
        Gaussian, -1.2 for uniform entries. ``"robust"`` only.

    Returns
    -------
    MPFit
        Numbers are NaN (``n_spikes`` -1) and ``status`` says why where there is nothing to fit.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; the message names it.

    Notes
    -----
    The law of the eigenvalues of an N x M matrix with entries of variance v has its edges at
    ``v (sqrt(N) -+ sqrt(M))^2``. ``sigma_mp^2`` is v in units of the mean square of all entries:
    one for a random matrix, the share of the bulk in the norm for others.

    ``"robust"`` alternates until nothing changes: v is the mean of the eigenvalues that are no
    spikes, over N; spikes are the eigenvalues above the Tracy-Widom quantile for v. Starting from
    no spikes, v falls and spikes grow, so that this ends. Removing spikes before v is estimated
    from what is left is what makes it robust; starting from none is what keeps the level.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> esd = ps.esd(W)
    >>> fit = ps.marchenko_pastur(esd.evals, esd.N, esd.M)
    >>> fit.n_spikes, fit.p_value > 0.05
    (0, True)
    >>> W[:, 0] += 5.0  # a direction that stands out
    >>> ps.marchenko_pastur(ps.esd(W).evals, esd.N, esd.M).n_spikes
    1
    """
    name = "marchenko_pastur"
    mp = check_choice(name, "mp", mp, FITS)
    host = as_host(evals, function=name, argument="evals")
    if host.ndim != 1:
        raise ArgumentValueError(name, "evals", "be 1-D", f"shape {host.shape}")
    N = check_count(name, "N", N, most=MAX_SIDE)
    M = check_count(name, "M", M, most=MAX_SIDE)
    # That of N M entries, one of which is not zero, is N M - 3.
    excess = check_number(name, "kurtosis", kurtosis, least=-2.0, most=MAX_SIDE**2)
    if mp == "ww" and excess != 0.0:
        raise ArgumentValueError(name, "kurtosis", "be 0 with mp='ww'", repr(excess))
    x = np.sort(host.to_float64())
    if mp == "robust":
        if N < M:
            raise ArgumentValueError(name, "N", "be the longer side", f"N = {N}, M = {M}")
        if len(x) % M:
            requirement = f"hold M = {M} eigenvalues of each matrix"
            raise ArgumentValueError(name, "evals", requirement, f"{len(x)} in all")
    return fit(x, N, M, mp=mp, kurtosis=excess)


def fit(
    x: FloatArray,
    N: int,
    M: int,
    *,
    mp: str,
    kurtosis: float = 0.0,
    test: bool = True,
    reach: float = 0.0,
) -> MPFit:
    """Fit ascending eigenvalues: `marchenko_pastur` without its checks.

    The p-value is there only if `test`. A spike exceeds, besides the threshold, the share `reach`
    of the sum of the eigenvalues of the bulk.
    """
    status = Status.OK
    total = float(np.sum(x)) if len(x) else 0.0
    if len(x) < 2:
        status = Status.TOO_FEW_POINTS
    elif not math.isfinite(total):
        status = Status.NOT_FINITE
    elif not total > len(x) * np.finfo(np.float64).tiny or x[0] < 0.0:
        status = Status.DEGENERATE
    if status is not Status.OK:
        nan = math.nan
        return MPFit(mp, N, M, len(x), nan, nan, nan, nan, -1, nan, nan, nan, nan, status)
    return (
        _fit_ww(x, N, M, total)
        if mp == "ww"
        else _fit_robust(x, N, M, total, kurtosis, test, reach)
    )


def _fit_ww(x: FloatArray, N: int, M: int, total: float) -> MPFit:
    n, Q = len(x), N / M
    W_scale = math.sqrt(n) / math.sqrt(total)
    e = (W_scale * W_scale) * x
    s = ww.fit_scale(e, Q)
    edge = (s * (1.0 + 1.0 / math.sqrt(Q))) ** 2
    threshold = edge + ww.edge_width(edge, Q, M)
    return MPFit(
        mp="ww",
        N=N,
        M=M,
        n=n,
        sigma_mp=s,
        W_scale=W_scale,
        lambda_minus=(s * (1.0 - 1.0 / math.sqrt(Q)) / W_scale) ** 2,
        lambda_plus=edge / W_scale**2,
        n_spikes=int(np.count_nonzero(e > threshold)),
        spike_threshold=threshold / W_scale**2,
        mp_soft_rank=edge / float(e[-1]),
        D=law_distance(x, total / n, N, M),
        p_value=math.nan,
        status=Status.OK,
    )


def _fit_robust(
    x: FloatArray, N: int, M: int, total: float, kurtosis: float, test: bool, reach: float
) -> MPFit:
    n = len(x)
    count = n // M
    centre, scale = tracy_widom.largest_eigenvalue_scale(N, M, df=n * N)
    # The largest of `count` independent largest eigenvalues.
    level = -math.expm1(math.log1p(-SPIKE_LEVEL) / count)
    centre *= 1.0 + _edge_shift(N, M, kurtosis)
    cut = max(centre + scale * tracy_widom.quantile(level), reach * n * N * (1.0 + ROUNDING))
    # Where the bulk is zero (deficient rank), what rounding makes of it is no spike.
    rounding = float(x[-1]) * N * np.finfo(np.float64).eps
    sums = np.cumsum(x)
    n_bulk = n
    while True:
        variance = float(sums[n_bulk - 1]) / (n_bulk * N)
        threshold = max(variance * cut, rounding)
        bulk = int(np.searchsorted(x, threshold, side="right"))
        # All above the cut would leave no bulk: matrices of one column, or rounding.
        if bulk >= n_bulk or bulk == 0:
            break
        n_bulk = bulk
    plus = variance * (math.sqrt(N) + math.sqrt(M)) ** 2
    return MPFit(
        mp="robust",
        N=N,
        M=M,
        n=n,
        sigma_mp=math.sqrt(variance * n * N / total),
        W_scale=math.sqrt(n / total),
        lambda_minus=variance * (math.sqrt(N) - math.sqrt(M)) ** 2,
        lambda_plus=plus,
        n_spikes=n - n_bulk,
        spike_threshold=float(threshold),
        mp_soft_rank=plus / float(x[-1]),
        D=law_distance(x, total / n, N, M),
        p_value=random_null.p_value(x, N, M, kurtosis) if test else math.nan,
        status=Status.OK,
    )


def _edge_shift(N: int, M: int, kurtosis: float) -> float:
    """By what part the edge of the bulk moves where entries have an excess kurtosis; see `p_value`.

    It is the first order, which serves as long as it is small.
    """
    return min(kurtosis / math.sqrt(N * M), MOST_SHIFT)


@functools.lru_cache(maxsize=64)
def _law(y: float) -> tuple[FloatArray, FloatArray]:
    """Points, and the cumulative law there, for aspect ratio y = M / N <= 1 and mean one.

    With x = 1 + y - 2 sqrt(y) cos(t) the density of t is (2 / pi) sin(t)^2 / x, which is smooth.
    """
    t = np.linspace(0.0, math.pi, LAW_NODES)
    x = 1.0 + y - 2.0 * math.sqrt(y) * np.cos(t)
    # sin^2 t / x at t = 0 for y = 1, where both vanish: cos^2(t / 2).
    density = np.cos(t / 2.0) ** 2 if y == 1.0 else np.sin(t) ** 2 / x
    steps = (density[1:] + density[:-1]) / 2.0
    law = np.concatenate(([0.0], np.cumsum(steps)))
    return x, law / law[-1]


def law_distance(x: FloatArray, mean: float, N: int, M: int) -> float:
    """Kolmogorov-Smirnov distance of ascending eigenvalues from the law of a random matrix.

    The law has the aspect ratio of N x M and the given mean, that of the eigenvalues themselves.
    """
    n = len(x)
    points, law = _law(min(N, M) / max(N, M))
    model = np.interp(x / mean, points, law)
    steps = np.arange(n + 1) / n
    return float(max(np.max(model - steps[:-1]), np.max(steps[1:] - model)))
