"""Doors to ``csrc/powerlaw``: power-law fits and their bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pyspectra import _core
from pyspectra.types import FloatArray, PowerLawFit, Status

__all__ = [
    "DEVICE_SOURCE",
    "FIT_BYTES",
    "bootstrap_powerlaw",
    "device_draw",
    "device_fit",
    "fit_options",
    "fit_powerlaw",
    "powerlaw_fits",
]


def fit_options(
    *,
    estimator: str,
    threshold: float,
    xmin: float,
    xmax: float,
    k: int = 0,
    min_tail: int = 10,
    xmin_max: float = math.nan,
) -> _core.powerlaw.FitOptions:
    """Options of a compiled fit, by estimator name of ``csrc/powerlaw/fit.hpp``.

    ``xmin`` NaN scans for it; ``k`` 0 stands for half of the points; ``xmin_max`` NaN for 1.5
    times the peak.
    """
    return _core.powerlaw.FitOptions(
        estimator=estimator,
        threshold=threshold,
        xmin=xmin,
        xmax=xmax,
        k=k,
        min_tail=min_tail,
        xmin_max=xmin_max,
    )


def fit_powerlaw(
    spectra: Sequence[FloatArray], options: _core.powerlaw.FitOptions, *, estimator: str
) -> list[PowerLawFit]:
    """Fit ascending, contiguous float64 spectra; `estimator` is the name that the fits carry."""
    return [_powerlaw_fit(f, estimator) for f in _core.powerlaw.fit(list(spectra), options)]


def _powerlaw_fit(f: _core.powerlaw.Fit, estimator: str) -> PowerLawFit:
    return PowerLawFit(
        alpha=f.alpha,
        xmin=f.xmin,
        xmax=f.xmax,
        D=f.D,
        alpha_stderr=f.alpha_stderr,
        alpha_corrected=f.alpha_corrected,
        n_tail=f.n_tail,
        n=f.n,
        index=f.index,
        estimator=estimator,
        status=Status(f.status),
    )


def bootstrap_powerlaw(
    spectra: Sequence[FloatArray],
    options: _core.powerlaw.FitOptions,
    fits: Sequence[PowerLawFit],
    count: int,
    keys: Sequence[int],
    *,
    first: int = 0,
) -> list[FloatArray]:
    """Refit `count` semi-parametric replicates of each (successful) fit of each spectrum.

    Returns one array of shape (count, 3) a fit: alpha, D and n_tail of each replicate, NaN where
    it could not be fitted. ``csrc/powerlaw/bootstrap.hpp`` says how replicates are made. They are
    numbered, and the first one is `first`: replicate b is the same bits whichever are asked for.
    """
    laws = [(f.alpha, f.xmin, f.n, f.index) for f in fits]
    return _core.powerlaw.bootstrap(list(spectra), options, laws, first, count, list(keys))


FIT_BYTES: int = _core.powerlaw.FIT_BYTES


def powerlaw_fits(fits: np.ndarray) -> list[PowerLawFit]:
    """Read what `device_fit` wrote, `FIT_BYTES` bytes (uint8) a spectrum."""
    return [_powerlaw_fit(f, "ww") for f in _core.powerlaw.fits_from_bytes(fits)]


# A row of the table that `device_draw` reads: ``csrc/powerlaw/device_bootstrap.hpp``.
DEVICE_SOURCE = np.dtype(
    [("begin", "i8"), ("n", "i8"), ("body", "i8"), ("xmin", "f8"), ("alpha", "f8"), ("key", "u8")]
)
assert DEVICE_SOURCE.itemsize == _core.powerlaw.SOURCE_BYTES


# Launches on a CUDA device: addresses there, and a stream. ``csrc/<ring>/device_*.hpp`` say what
# each argument is. CudaError where a launch fails, or the package was built without CUDA.
device_draw = _core.powerlaw.device_draw
device_fit = _core.powerlaw.device_fit
