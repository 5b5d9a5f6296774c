"""Power-law fits of spectra. The formulas live in ``csrc/powerlaw/fit.hpp``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from pyspectra import ops
from pyspectra._arrays import as_host
from pyspectra._cuda import devices
from pyspectra._cuda import fits as device_fits
from pyspectra._support.arguments import check_count, check_number, shown
from pyspectra._support.dtypes import DTYPES
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.spectra.alternatives import fit_truncated
from pyspectra.spectra.bootstrap import (
    check_bootstrap,
    check_bootstrap_goes_with,
    on_host,
    with_uncertainty,
)
from pyspectra.spectra.estimators import ARGUMENTS, MAX_COUNT, NOTES, Estimator, parse_estimator
from pyspectra.types import FloatArray, PowerLawFit, Status

# WeightWatcher fits only eigenvalues above this absolute value (EVALS_THRESH, 0.7.7).
EVALS_THRESHOLD = 1e-5

# A report fits eigenvalues above this part of the largest, so that alpha does not depend on the
# unit of the weights. What lies below is zero but for rounding of the weights: singular values
# below 1e-5 of the largest.
RELATIVE_THRESHOLD = 1e-10

# Relative spread of the eigenvalues of an orthogonal matrix that is due to its type. A QR in 32
# bits leaves up to 40 epsilon (n = 8 to 2048), rounding to 16 bits 1.2; with a margin of three.
ROUNDING_SPREAD = {t.name: (128 if t.bits > 16 else 4) * t.spacing for t in DTYPES if t.is_float}

# WeightWatcher's fix_fingers="clip_xmax": clip up to MAX_FINGERS - 1 eigenvalues, until alpha has
# dropped by more than FINGER_THRESHOLD; never below MIN_CLIPPED_ALPHA.
MAX_FINGERS = 10
FINGER_THRESHOLD = 1.0
MIN_CLIPPED_ALPHA = 2.0


def as_spectrum(x: Any, function: str, argument: str) -> FloatArray:
    """Ascending, contiguous float64 of a 1-D array."""
    host = as_host(x, function=function, argument=argument)
    if host.ndim != 1:
        raise ArgumentValueError(function, argument, "be 1-D", f"shape {host.shape}")
    values = np.ascontiguousarray(host.to_float64())
    # The kernel wants ascending points; NaN sorts to the end, where it is still found.
    return values if bool(np.all(values[:-1] <= values[1:])) else np.sort(values)


def _bound(value: float | None, default: float, function: str, argument: str) -> float:
    return default if value is None else check_number(function, argument, value, above=0.0)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _documented(function: _Function) -> _Function:
    """Complete the documentation of a function by what it shares with its twin."""
    if function.__doc__:  # python -OO strips it
        text = function.__doc__.replace("{arguments}", ARGUMENTS.strip())
        function.__doc__ = text.replace("{notes}", NOTES.strip())
    return function


@_documented
def fit_powerlaw_batch(
    list_of_evals: Sequence[Any],
    *,
    estimator: str = "ww",
    xmin: float | None = None,
    xmax: float | None = None,
    k: int | None = None,
    threshold: float = EVALS_THRESHOLD,
    bootstrap: int = 0,
    seed: int | None = None,
) -> list[PowerLawFit]:
    """Fit a power-law tail to each of many spectra, in parallel.

    Parameters
    ----------
    list_of_evals : sequence of 1-D arrays
        Eigenvalues (or any positive data), in any order.
    {arguments}

    Returns
    -------
    list of PowerLawFit
        The fits, in order. A spectrum that cannot be fitted has NaN numbers and says why in
        ``.status``.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; the message names it.

    {notes}

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> x = np.exp(np.random.default_rng(0).exponential(1 / 1.5, 500))  # alpha = 2.5
    >>> fits = ps.fit_powerlaw_batch([x, x[:50], x[:1]], estimator="hill(25)")
    >>> [fit.n_tail for fit in fits], str(fits[2].status)
    ([25, 25, 0], 'too_few_points')
    """
    name = "fit_powerlaw_batch"
    if isinstance(list_of_evals, str | bytes) or not isinstance(list_of_evals, Iterable):
        got = f"an object of type {type(list_of_evals).__name__}"
        raise ArgumentTypeError(name, "list_of_evals", "be a sequence of arrays", got)
    data = list(list_of_evals)
    bootstrap, seed = check_bootstrap(bootstrap, seed, name)
    options = _options(name, estimator, xmin, xmax, k, threshold, bootstrap)
    if _stays_on_device(data, options):
        return _fit_on_device(data, options, bootstrap, seed)
    spectra = [as_spectrum(x, name, f"list_of_evals[{i}]") for i, x in enumerate(data)]
    return _fit(spectra, options, bootstrap, seed)


@_documented
def fit_powerlaw(
    evals: Any,
    *,
    estimator: str = "ww",
    xmin: float | None = None,
    xmax: float | None = None,
    k: int | None = None,
    threshold: float = EVALS_THRESHOLD,
    bootstrap: int = 0,
    seed: int | None = None,
) -> PowerLawFit:
    """Fit a power-law tail to one spectrum.

    Parameters
    ----------
    evals : 1-D array or tensor
        Eigenvalues (or any positive data), in any order. On a CUDA device they are fitted there.
    {arguments}

    Returns
    -------
    PowerLawFit
        The fit; its numbers are NaN and its status says why if the spectrum cannot be fitted.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; the message names it.

    {notes}

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> x = np.exp(np.random.default_rng(0).exponential(1 / 1.5, 500))  # alpha = 2.5
    >>> fit = ps.fit_powerlaw(x, bootstrap=200, seed=0)
    >>> round(fit.alpha, 2), fit.n_tail
    (2.44, 350)
    >>> fit.ci[0] < 2.5 < fit.ci[1], fit.p_value > 0.1
    (True, True)
    """
    name = "fit_powerlaw"
    bootstrap, seed = check_bootstrap(bootstrap, seed, name)
    options = _options(name, estimator, xmin, xmax, k, threshold, bootstrap)
    if _stays_on_device([evals], options):
        return _fit_on_device([evals], options, bootstrap, seed)[0]
    spectrum = as_spectrum(evals, name, "evals")
    return _fit([spectrum], options, bootstrap, seed)[0]


def _stays_on_device(data: list[Any], options: FitOptions) -> bool:
    """Tell whether the spectra are tensors on a CUDA device, and the fit one of its kernels'."""
    fits = options.estimator.name == "ww" and math.isnan(options.xmin)
    return fits and data != [] and all(devices.on_device(x) and x.ndim == 1 for x in data)


@dataclass(frozen=True)
class FitOptions:
    """An estimator (not farms) and its bounds, checked."""

    estimator: Estimator
    xmin: float = math.nan
    xmax: float = math.inf
    threshold: float = EVALS_THRESHOLD

    @property
    def compiled(self) -> Any:
        """The options as the kernel reads them."""
        arguments: dict[str, Any] = dict(self.estimator.arguments)
        return ops.fit_options(
            estimator=_KERNELS[self.estimator.name],
            threshold=self.threshold,
            xmin=self.xmin,
            xmax=self.xmax,
            **arguments,
        )


# What the kernel runs for each estimator.
_KERNELS = {
    "ww": "ww", "csn": "csn", "hill": "hill", "tempbalance_median": "median",
    "fix_finger": "fix_finger", "tpl": "ww",
}  # fmt: skip


def _options(
    function: str,
    name: str,
    xmin: float | None,
    xmax: float | None,
    k: int | None,
    threshold: float,
    bootstrap: int,
) -> FitOptions:
    estimator = parse_estimator(name, function)
    if estimator.name == "farms":
        raise ArgumentValueError(
            function, "estimator", "be one that fits eigenvalues", repr(name),
            "'farms' needs the weight matrix: farms(W) or analyze(model, estimator='farms(...)')",
        )  # fmt: skip
    if xmin is not None and estimator.name not in ("ww", "csn", "tpl"):
        hint = "give 'k'" if estimator.name == "hill" else None
        requirement = f"be None with estimator {estimator.name!r}"
        raise ArgumentValueError(function, "xmin", requirement, shown(xmin), hint)
    if k is not None:
        if estimator.name != "hill" or estimator.arguments:
            requirement = f"be None with estimator {str(estimator)!r}"
            raise ArgumentValueError(
                function, "k", requirement, shown(k), "it goes with estimator 'hill' only"
            )
        count = check_count(function, "k", k, most=MAX_COUNT)
        estimator = Estimator("hill", {"k": count})
    threshold = check_number(function, "threshold", threshold, least=0.0)
    check_bootstrap_goes_with(estimator, bootstrap, function)
    low = _bound(xmin, math.nan, function, "xmin")
    high = _bound(xmax, math.inf, function, "xmax")
    if low >= high:
        raise ArgumentValueError(function, "xmin", f"be below 'xmax' = {high!r}", repr(low))
    return FitOptions(estimator, low, high, threshold)


def fit_spectra(spectra: Sequence[FloatArray], options: FitOptions) -> list[PowerLawFit]:
    """Fit ascending, contiguous float64 spectra."""
    fits = ops.fit_powerlaw(spectra, options.compiled, estimator=str(options.estimator))
    if options.estimator.name == "tpl":
        return [_cut_off(x, fit) for x, fit in zip(spectra, fits, strict=True)]
    return fits


def _fit(
    spectra: Sequence[FloatArray], options: FitOptions, bootstrap: int, seed: int | None
) -> list[PowerLawFit]:
    fits = fit_spectra(spectra, options)
    if not bootstrap:
        return fits
    refits = on_host(options.compiled)
    return with_uncertainty(spectra, fits, refits, bootstrap, seed, _names(spectra))


def _fit_on_device(
    spectra: list[Any], options: FitOptions, bootstrap: int, seed: int | None
) -> list[PowerLawFit]:
    threshold, xmax = options.threshold, options.xmax
    fits = device_fits.fit_powerlaw(spectra, threshold=threshold, xmax=xmax)
    if not bootstrap:
        return fits
    refits = partial(device_fits.bootstrap_powerlaw, threshold=threshold, xmax=xmax)
    return with_uncertainty(spectra, fits, refits, bootstrap, seed, _names(spectra))


def _names(spectra: Sequence[Any]) -> list[str]:
    """What tells the random numbers of one spectrum from another's: its place in the list."""
    return [str(i) for i in range(len(spectra))]


def _cut_off(x: FloatArray, fit: PowerLawFit) -> PowerLawFit:
    """The truncated power law on the tail of `fit`."""
    if fit.status is not Status.OK:
        return fit
    tail = x[(x >= fit.xmin) & (x <= fit.xmax)]
    u = np.maximum(np.log(tail) - math.log(fit.xmin), 0.0)
    with np.errstate(all="ignore"):
        law = fit_truncated(u)
        if law is None:
            return no_fit(Status.NO_CONVERGENCE, fit.n, fit.estimator)
        D = float(np.max(np.abs(law.cdf(u) - np.arange(len(u)) / len(u))))
    return replace(
        fit,
        alpha=law.alpha,
        Lambda=float(law.theta[1]) / fit.xmin,
        alpha_stderr=law.alpha_stderr,
        alpha_corrected=math.nan,
        D=D,
    )


def no_fit(status: Status, n: int, estimator: str) -> PowerLawFit:
    """Return the fit of a spectrum that has none; `n` points were above the threshold."""
    nan = math.nan
    return PowerLawFit(nan, nan, nan, nan, nan, nan, 0, n, -1, estimator, status)


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
    fits = fit_spectra(clipped, FitOptions(Estimator("ww"), threshold=0.0))
    for k, fit in enumerate(fits, start=2):
        if fit.status is not Status.OK:
            break
        if fit.alpha + FINGER_THRESHOLD < raw.alpha:
            return fit, k - 1
        if fit.alpha <= MIN_CLIPPED_ALPHA:
            break
    return raw, 0
