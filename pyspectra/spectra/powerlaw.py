"""Power-law fits of spectra. The formulas live in ``csrc/powerlaw/fit.hpp``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat

import numpy as np

from pyspectra import _cuda, ops
from pyspectra._arrays import as_host
from pyspectra.types import FloatArray, PowerLawFit, Status

ESTIMATORS = ("ww", "hill")

# WeightWatcher fits only eigenvalues above this absolute value (EVALS_THRESH, 0.7.7).
EVALS_THRESHOLD = 1e-5

# Relative spread of the eigenvalues of an orthogonal matrix that is due to its type. A QR in 32
# bits leaves up to 40 epsilon (n = 8 to 2048), rounding to 16 bits 1.2; with a margin of three.
ROUNDING_SPREAD = {
    "float64": 128 * 2.0**-52,
    "float32": 128 * 2.0**-23,
    "float16": 4 * 2.0**-10,
    "bfloat16": 4 * 2.0**-7,
}

# WeightWatcher's fix_fingers="clip_xmax": clip up to MAX_FINGERS - 1 eigenvalues, until alpha has
# dropped by more than FINGER_THRESHOLD; never below MIN_CLIPPED_ALPHA.
MAX_FINGERS = 10
FINGER_THRESHOLD = 1.0
MIN_CLIPPED_ALPHA = 2.0


def check_estimator(estimator: str, function: str) -> None:
    """Raise ValueError unless `estimator` is one of `ESTIMATORS`."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"{function}: 'estimator' must be one of {ESTIMATORS}, got {estimator!r}.")


def _spectrum(x: Any, function: str, argument: str) -> FloatArray:
    host = as_host(x, function=function, argument=argument)
    if host.ndim != 1:
        raise ValueError(f"{function}: {argument!r} must be 1-D, got shape {host.shape}.")
    values = np.ascontiguousarray(host.to_float64())
    # The kernel wants ascending points; NaN sorts to the end, where it is still found.
    return values if bool(np.all(values[:-1] <= values[1:])) else np.sort(values)


def _number(value: object, function: str, argument: str) -> float:
    if isinstance(value, bool | str) or not isinstance(value, SupportsFloat):
        raise TypeError(f"{function}: {argument!r} must be a number, got {value!r}.")
    return float(value)


def _bound(value: float | None, default: float, function: str, argument: str) -> float:
    if value is None:
        return default
    number = _number(value, function, argument)
    if not math.isfinite(number) or number <= 0.0:
        raise ValueError(
            f"{function}: {argument!r} must be positive and finite or None, got {value!r}."
        )
    return number


def fit_powerlaw_batch(
    list_of_evals: Sequence[Any],
    *,
    estimator: str = "ww",
    xmin: float | None = None,
    xmax: float | None = None,
    k: int | None = None,
    threshold: float = EVALS_THRESHOLD,
) -> list[PowerLawFit]:
    """Fit a power-law tail to each of many spectra, in parallel.

    Parameters
    ----------
    list_of_evals : sequence of 1-D arrays
        Eigenvalues (or any positive data), in any order.
    estimator : {"ww", "hill"}
        ``"ww"``: maximum likelihood, `xmin` chosen by the smallest Kolmogorov-Smirnov distance, as
        WeightWatcher 0.7.7 does (also its rule below 20 points). ``"hill"``: the Hill estimator on
        the `k` largest points.
    xmin : float, optional
        Take the tail ``x >= xmin`` instead of scanning. Estimator ``"ww"`` only.
    xmax : float, optional
        Leave out points above it.
    k : int, optional
        Estimator ``"hill"``: points in the tail; half of them by default.
    threshold : float
        Points must exceed it (absolute); WeightWatcher's 1e-5 by default.

    Returns
    -------
    list of PowerLawFit
        In order. A spectrum that cannot be fitted has NaN numbers and says why in ``.status``.

    Raises
    ------
    TypeError, ValueError
        For arguments of the wrong kind, shape or range, naming the argument.

    References
    ----------
    Clauset, Shalizi, Newman, "Power-law distributions in empirical data", SIAM Review 51 (2009).
    Hill, "A simple general approach to inference about the tail of a distribution" (1975).
    """
    name = "fit_powerlaw_batch"
    if isinstance(list_of_evals, str | bytes) or not isinstance(list_of_evals, Iterable):
        raise TypeError(
            f"{name}: 'list_of_evals' must be a sequence of arrays, got "
            f"{type(list_of_evals).__name__}."
        )
    return _fit(list(list_of_evals), name, "list_of_evals[{}]", estimator, xmin, xmax, k, threshold)


def fit_powerlaw(
    evals: Any,
    *,
    estimator: str = "ww",
    xmin: float | None = None,
    xmax: float | None = None,
    k: int | None = None,
    threshold: float = EVALS_THRESHOLD,
) -> PowerLawFit:
    """Fit a power-law tail to one spectrum; see `fit_powerlaw_batch` for the arguments.

    Returns
    -------
    PowerLawFit
        With NaN numbers and a status that says why if the spectrum cannot be fitted.
    """
    return _fit([evals], "fit_powerlaw", "evals", estimator, xmin, xmax, k, threshold)[0]


def _fit(
    data: list[Any],
    function: str,
    argument: str,
    estimator: str,
    xmin: float | None,
    xmax: float | None,
    k: int | None,
    threshold: float,
) -> list[PowerLawFit]:
    # Tensors on a CUDA device stay there for what its kernels can do.
    there = estimator == "ww" and xmin is None and data != [] and all(map(_cuda.on_device, data))
    there = there and all(x.ndim == 1 for x in data)
    spectra = (
        [] if there else [_spectrum(x, function, argument.format(i)) for i, x in enumerate(data)]
    )
    check_estimator(estimator, function)
    if estimator == "hill" and xmin is not None:
        raise ValueError(f"{function}: 'xmin' does not go with estimator 'hill': give 'k'.")
    if estimator != "hill" and k is not None:
        raise ValueError(f"{function}: 'k' goes with estimator 'hill' only, got {estimator!r}.")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise ValueError(f"{function}: 'k' must be a positive integer, got {k!r}.")
    threshold = _number(threshold, function, "threshold")
    if not (threshold >= 0.0 and math.isfinite(threshold)):
        raise ValueError(f"{function}: 'threshold' must be >= 0 and finite, got {threshold!r}.")
    low = _bound(xmin, math.nan, function, "xmin")
    high = _bound(xmax, math.inf, function, "xmax")
    if low >= high:
        raise ValueError(f"{function}: 'xmin' must be below 'xmax' = {xmax!r}, got {xmin!r}.")
    if there:
        return _cuda.fit_powerlaw(data, threshold=threshold, xmax=high)
    return ops.fit_powerlaw(
        spectra, estimator=estimator, threshold=threshold, xmin=low, xmax=high, k=k or 0
    )


def no_fit(status: Status, n: int, estimator: str) -> PowerLawFit:
    """Return the fit of a spectrum that has none; `n` points were above the threshold."""
    nan = math.nan
    return PowerLawFit(nan, nan, nan, nan, nan, 0, n, -1, estimator, status)


def is_rounding(x: FloatArray, dtype: str) -> bool:
    """Tell whether eigenvalues (ascending) differ by no more than the rounding of the weights.

    So do those of an orthogonal matrix: equal, but for what its type cannot hold. A power law
    through such differences has a huge alpha that says nothing.
    """
    return x.size > 0 and float(x[-1] - x[0]) <= ROUNDING_SPREAD.get(dtype, 0.0) * float(x[-1])


def clip_fingers(x: FloatArray, raw: PowerLawFit) -> tuple[PowerLawFit, int]:
    """WeightWatcher's ``fix_fingers="clip_xmax"``: drop the largest eigenvalues while it helps.

    Parameters
    ----------
    x : ndarray of float64, shape (n,)
        Ascending; those that entered the fit.
    raw : PowerLawFit
        The fit of all of them by estimator ``"ww"``.

    Returns
    -------
    fit : PowerLawFit
        The first fit, without its k = 2, 3, ... 9 largest points, whose alpha lies more than 1
        below `raw`'s; `raw` if there is none before alpha falls to 2.
    n_fingers : int
        k - 1, WeightWatcher's count, or 0.
    """
    if raw.status is not Status.OK:
        return raw, 0
    clipped = [np.ascontiguousarray(x[:-k]) for k in range(2, MAX_FINGERS) if len(x) - k >= 2]
    fits = ops.fit_powerlaw(
        clipped, estimator="ww", threshold=0.0, xmin=math.nan, xmax=math.inf, k=0
    )
    for k, fit in enumerate(fits, start=2):
        if fit.status is not Status.OK:
            break
        if fit.alpha + FINGER_THRESHOLD < raw.alpha:
            return fit, k - 1
        if fit.alpha <= MIN_CLIPPED_ALPHA:
            break
    return raw, 0
