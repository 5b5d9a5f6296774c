"""The fit that counts for each spectrum of a report, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyspectra.analysis.rows import LayerFit, Spectrum
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import powerlaw
from pyspectra.spectra.bootstrap import on_host, with_goodness, with_uncertainty
from pyspectra.spectra.estimators import parse_estimator
from pyspectra.types import FloatArray, PowerLawFit, Status


def layer_fits(
    rows: Sequence[Spectrum], options: AnalyzeOptions, advance: Callable[[int], None]
) -> list[LayerFit]:
    """Fit each spectrum; `advance` hears how many replicates of each have been made."""
    spectra = [_below(row.esd.evals[row.esd.evals > row.threshold], options) for row in rows]
    fits = _fit(rows, spectra, options)
    if options.bootstrap:
        sure = with_uncertainty(
            spectra,
            [f.fit for f in fits],
            on_host(fit_options(options).compiled),
            options.bootstrap,
            options.seed,
            [row.label for row in rows],
            advance,
        )
        fits = [LayerFit(fit, f.raw_fit, f.n_fingers) for f, fit in zip(fits, sure, strict=True)]
    elif options.tests_goodness:
        tested = with_goodness(
            spectra,
            [f.fit for f in fits],
            fit_options(options).compiled,
            options.seed,
            [row.label for row in rows],
        )
        fits = [LayerFit(fit, f.raw_fit, f.n_fingers) for f, fit in zip(fits, tested, strict=True)]
    return fits


def _below(x: FloatArray, options: AnalyzeOptions) -> FloatArray:
    if options.xmax is not None:
        x = x[x <= options.xmax]
    return x[: max(len(x) - options.drop_largest, 0)]


def _fit(
    rows: Sequence[Spectrum], spectra: Sequence[FloatArray], options: AnalyzeOptions
) -> list[LayerFit]:
    good = [
        x
        for row, x in zip(rows, spectra, strict=True)
        if row.esd.status is Status.OK and row.windows is None
    ]
    found = iter(powerlaw.fit_spectra(good, fit_options(options)) if good else ())
    out = []
    for row, x in zip(rows, spectra, strict=True):
        if row.esd.status is not Status.OK:
            out.append(LayerFit(powerlaw.no_fit(row.esd.status, 0, options.estimator)))
            continue
        fit = next(found) if row.windows is None else row.windows
        if fit.status is Status.OK and powerlaw.is_rounding(x, row.layer.dtype):
            fit = powerlaw.no_fit(Status.DEGENERATE, fit.n, fit.estimator)
        if options.fix_fingers == "clip_xmax":
            out.append(LayerFit(*_clipped(x, fit)))
        else:
            out.append(LayerFit(fit))
    return out


def _clipped(x: FloatArray, raw: PowerLawFit) -> tuple[PowerLawFit, PowerLawFit, int]:
    fit, count = powerlaw.clip_fingers(x, raw)
    return fit, raw, count


def fit_options(options: AnalyzeOptions) -> powerlaw.FitOptions:
    """Return the options of the fit of eigenvalues above their threshold."""
    # The threshold has been applied already: it may differ from layer to layer.
    return powerlaw.FitOptions(parse_estimator(options.estimator, "analyze"), threshold=0.0)
