"""WeightWatcher 0.7.7's dialect: its columns, its conventions, and its factor on convolutions.

All of its conventions live here and nowhere else:

- The eigenvalues of a 2-D convolution are multiplied by 1/2 where its slices are pooled and by half
  the size of the receptive field where they are not. Whatever depends on the scale of the weights
  (norms, absolute thresholds, ``alpha_weighted``) is evaluated on the spectrum so scaled.
- Eigenvalues up to 1e-5 are left out of fits, whatever the scale of the weights.
- ``spectral_norm`` is lambda_max.
- A failed fit is -1 everywhere, and "over-trained".
- A convolution with out < in swaps N and M once a slice, so that an even receptive field ends with
  N < M.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pyspectra._support.cached import cached_property
from pyspectra.metrics import METRICS, Spectrum
from pyspectra.metrics import rank as rank_metrics
from pyspectra.metrics.tail import log_power_sum
from pyspectra.metrics.vectors import bulk_and_tail
from pyspectra.report.columns import (
    CLIPPED,
    CUT_OFF,
    DETX,
    MP_FIT,
    RANDOMIZE,
    UNPOOLED,
    VECTORS,
    Column,
    mean,
)  # fmt: skip
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport, tail_size
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import marchenko_pastur, powerlaw
from pyspectra.spectra.distance import jensen_shannon
from pyspectra.spectra.estimators import parse_estimator
from pyspectra.spectra.randomize import n_replicas
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status
from pyspectra.weights.kinds import EMBEDDING, KINDS, LINEAR

# What it calls alpha < 2 and alpha > 6; the rest is well-trained and gets no word.
OVER_TRAINED, UNDER_TRAINED = "over-trained", "under-trained"


def alpha_warning(fit: PowerLawFit) -> str:
    """Return what alpha says of a layer in WeightWatcher's words."""
    if fit.alpha < THRESHOLDS.alpha_low:
        return OVER_TRAINED
    return UNDER_TRAINED if fit.alpha > THRESHOLDS.alpha_high else ""


def factor(layer: LayerReport) -> float:
    """Return what WeightWatcher multiplies the eigenvalues by; 1 unless it is a 2-D convolution."""
    if not layer.kind.startswith(("conv2d", "conv_transpose2d")):
        return 1.0
    return 0.5 if layer.slice_id is None else layer.rf / 2.0


@dataclass(frozen=True)
class Row:
    """A layer as WeightWatcher evaluates it; the columns below read their values from here.

    Attributes
    ----------
    layer : LayerReport
    options : AnalyzeOptions
    format : str
        How the model was stored: WeightWatcher knows some kinds of layers from a module only.
    """

    layer: LayerReport
    options: AnalyzeOptions
    format: str

    @cached_property
    def sides(self) -> tuple[int, int]:
        """N and M, swapped once for each slice where a convolution has out < in."""
        layer = self.layer
        N, M = layer.esd.N, layer.esd.M
        swapped = len(layer.shape) == 4 and layer.shape[0] < layer.shape[1] and layer.rf % 2 == 0
        return (M, N) if swapped else (N, M)

    @cached_property
    def esd(self) -> ESD:
        """The spectrum times the `factor`."""
        esd, f = self.layer.esd, factor(self.layer)
        if f == 1.0:
            return esd
        return replace(
            esd, evals=esd.evals * f, matrix_evals=tuple(e * f for e in esd.matrix_evals)
        )

    @cached_property
    def _fits(self) -> _Fits:
        layer, f = self.layer, factor(self.layer)
        found = _Fits(layer.fit, layer.raw_fit, layer.n_fingers, layer.n_tail)
        if layer.esd.status is not Status.OK:
            return found
        # The floors of a `base_model` are relative; sub-matrices are WeightWatcher's in no way.
        absolute = self.options.base_model is None and not layer.fit.estimator.startswith("farms")
        relative = powerlaw.RELATIVE_THRESHOLD * float(layer.esd.evals[-1])
        if absolute and _n_above(self.esd, powerlaw.EVALS_THRESHOLD) != _n_above(
            layer.esd, relative
        ):
            return _refit(self.esd.evals, f, layer.dtype, self.options)
        raw = None if found.raw_fit is None else _scaled(found.raw_fit, f)
        return replace(found, fit=_scaled(found.fit, f), raw_fit=raw)

    @property
    def fit(self) -> PowerLawFit:
        """The fit of the scaled spectrum."""
        return self._fits.fit

    @property
    def raw_fit(self) -> PowerLawFit | None:
        """The fit before fingers were clipped."""
        return self._fits.raw_fit

    @property
    def n_fingers(self) -> int | None:
        """Eigenvalues that were clipped."""
        return self._fits.n_fingers

    @property
    def n_tail(self) -> int:
        """Eigenvalues in the tail."""
        return self._fits.n_tail

    @cached_property
    def failed(self) -> bool:
        """Whether WeightWatcher has no fit."""
        return self.fit.status is not Status.OK or self._clipping_fails

    @property
    def alpha(self) -> float:
        """The tail exponent that WeightWatcher goes on to compute with."""
        return -1.0 if self.failed else self.fit.alpha

    @cached_property
    def spectrum(self) -> Spectrum:
        """What metrics look at."""
        return Spectrum(self.esd, self.fit, rank_side=self.sides[0])

    @cached_property
    def mp(self) -> tuple[float, ...] | None:
        """The Marchenko-Pastur fit of the spectrum, the values of `_MP`."""
        return None if self.layer.mp is None else _marchenko_pastur(self.esd.evals, *self.sides)

    @cached_property
    def random(self) -> tuple[FloatArray, FloatArray] | None:
        """The spectra of one permutation of the entries, and of all permutations together."""
        if self.layer.randomized is None:
            return None
        f = factor(self.layer)
        first, together = self.layer.randomized.evals * f, self.layer.randomized.all_evals * f
        # By its own M, which for some convolutions is the longer side, this is not a small layer.
        few = n_replicas(self.sides[1] * self.esd.n_matrices) > 1
        return first, together if few else first

    @cached_property
    def random_mp(self) -> tuple[float, ...] | None:
        """The Marchenko-Pastur fit of the permuted spectrum, the values of `_MP`."""
        return None if self.random is None else _marchenko_pastur(self.random[1], *self.sides)

    @cached_property
    def localisation(self) -> dict[str, float]:
        """Moments of the statistics of the eigenvectors, by column."""
        if self.layer.vectors is None:
            return {}
        # A failed fit has xmin = -1, so that all is tail.
        xmin = -1.0 if self.failed else self.fit.xmin
        return bulk_and_tail(self.layer.vectors, int(np.searchsorted(self.esd.evals, xmin)))

    @cached_property
    def _clipping_fails(self) -> bool:
        """WeightWatcher's clip_xmax fails where clipping leaves it fewer than two points.

        It tries k = 2, 3, ... until it stops, and then up to three more k as a check of the last.
        """
        raw = self.raw_fit
        if raw is None or raw.status is not Status.OK:
            return False
        x = self.esd.evals[self.esd.evals <= raw.xmax][-raw.n :]  # those that entered the fit
        if len(x) > powerlaw.MAX_FINGERS + 3:
            return False

        def alpha(k: int) -> float:
            return powerlaw.fit_powerlaw(x[:-k], threshold=0.0).alpha

        last = math.nan
        for k in range(2, powerlaw.MAX_FINGERS):
            if len(x) - k < 2:
                return True
            last = alpha(k)
            if last + powerlaw.FINGER_THRESHOLD < raw.alpha or last <= powerlaw.MIN_CLIPPED_ALPHA:
                break
        for check in range(k + 1, k + 4):
            if len(x) - check < 2:
                return True
            if abs(alpha(check) - last) > powerlaw.FINGER_THRESHOLD:
                break
        return False


@dataclass(frozen=True)
class _Fits:
    fit: PowerLawFit
    raw_fit: PowerLawFit | None
    n_fingers: int | None
    n_tail: int


def _n_above(esd: ESD, threshold: float) -> int:
    return int(np.count_nonzero(esd.evals > threshold))


def _scaled(fit: PowerLawFit, f: float) -> PowerLawFit:
    """Return the fit of the same points times f: exponents and distances stay."""
    return replace(fit, xmin=fit.xmin * f, xmax=fit.xmax * f, Lambda=fit.Lambda / f)


def _refit(evals: FloatArray, f: float, dtype: str, options: AnalyzeOptions) -> _Fits:
    """Fit the scaled spectrum: other points of it exceed the absolute threshold."""
    x = evals[evals > powerlaw.EVALS_THRESHOLD]
    if options.xmax is not None:
        x = x[x <= options.xmax * f]
    x = x[: max(len(x) - options.drop_largest, 0)]
    estimator = parse_estimator(options.estimator, "analyze")
    (fit,) = powerlaw.fit_spectra([x], powerlaw.FitOptions(estimator, threshold=0.0))
    if fit.status is Status.OK and powerlaw.is_rounding(x, dtype):
        fit = powerlaw.no_fit(Status.DEGENERATE, fit.n, fit.estimator)
    raw_fit, n_fingers = None, None
    if options.fix_fingers is not None:
        raw_fit = fit
        fit, n_fingers = powerlaw.clip_fingers(x, raw_fit)
    return _Fits(fit, raw_fit, n_fingers, tail_size(evals, fit, options))


def _marchenko_pastur(evals: FloatArray, N: int, M: int) -> tuple[float, ...]:
    fit = marchenko_pastur.fit(evals, N, M, mp="ww")
    if fit.status is not Status.OK:
        return (-1,) + (-1.0,) * 5
    return (
        fit.n_spikes, fit.sigma_mp, fit.mp_soft_rank, fit.W_scale, fit.lambda_plus, fit.lambda_minus
    )  # fmt: skip


# --- the columns --------------------------------------------------------------------------------

Value = Callable[[Row], Any]


def _of_fit(value: Value) -> Value:
    """Return the function with -1 for rows that have no fit."""
    return lambda row: -1.0 if row.failed else value(row)


def _of_spectrum(value: Value) -> Value:
    """Return the function with NaN for rows that have no spectrum."""
    return lambda row: value(row) if row.esd.status is Status.OK else math.nan


def _metric(name: str) -> Value:
    """Return what evaluates our metric of that name on WeightWatcher's spectrum."""
    return _of_spectrum(lambda row: METRICS[name].function(row.spectrum))


def _num_pl_spikes(row: Row) -> int:
    return -1 if row.failed else row.n_tail


def _layer_type(row: Row) -> str:
    """Return WeightWatcher's name of the kind: in a file it takes embeddings for linear layers."""
    kind = row.layer.kind
    if kind == EMBEDDING.name:
        return (EMBEDDING if row.format == "torch_module" else LINEAR).layer_type
    return KINDS[kind].layer_type


def _mp_member(index: int) -> Value:
    return lambda row: math.nan if row.mp is None else row.mp[index]


def _random_mp_member(index: int) -> Value:
    return lambda row: math.nan if row.random_mp is None else row.random_mp[index]


def _of_random(value: Callable[[Row, FloatArray, FloatArray], float]) -> Value:
    """Return a function of the first permutation and of all together; NaN without permutations."""
    return lambda row: math.nan if row.random is None else value(row, *row.random)


def _localisation(name: str) -> Value:
    return lambda row: row.localisation.get(name, math.nan)


# Name and meaning of what the Marchenko-Pastur fit gives, in the order of `_marchenko_pastur`.
_MP = (
    ("num_spikes", "Eigenvalues beyond the bulk."),
    ("sigma_mp", "Scale of the bulk."),
    ("mp_softrank", "Edge of the bulk over the largest eigenvalue."),
    ("W_scale", "What W is multiplied by before the fit."),
    ("bulk_max", "Upper edge of the bulk."),
    ("bulk_min", "Lower edge of the bulk."),
)

_COLUMNS: tuple[Column[Row], ...] = (
    Column("slice_id", lambda r: r.layer.slice_id or 0, "Number of the slice.", UNPOOLED),
    Column("longname", lambda r: r.layer.name, "Name of the layer."),
    Column("layer_type", _layer_type, "Kind of layer."),
    Column("N", lambda r: r.sides[0], "Longer side of a matrix; see the conventions."),
    Column("M", lambda r: r.sides[1], "Shorter side of a matrix; see the conventions."),
    Column("Q", lambda r: r.sides[0] / r.sides[1], "N / M."),
    Column("rf", lambda r: r.layer.rf, "Size of the receptive field."),
    Column("num_evals", lambda r: len(r.esd.evals), "Number of eigenvalues."),
    Column("has_esd", lambda r: r.esd.status is Status.OK, "Whether there is a spectrum."),
    Column("alpha", lambda r: r.alpha, "Tail exponent."),
    Column("D", _of_fit(lambda r: r.fit.D), "Kolmogorov-Smirnov distance of the fit."),
    Column("sigma", _of_fit(lambda r: r.fit.alpha_stderr), "Standard error of alpha."),
    Column("xmin", _of_fit(lambda r: r.fit.xmin), "Start of the tail."),
    Column("xmax", lambda r: None if r.failed else r.fit.xmax, "Largest point of the fit."),
    Column("num_pl_spikes", _num_pl_spikes, "Eigenvalues in the tail."),
    Column("Lambda", _of_fit(lambda r: r.fit.Lambda), "Rate of the cut-off.", CUT_OFF),
    Column("status", lambda r: "failed" if r.failed else "success", "What became of the fit."),
    Column("warning", lambda r: OVER_TRAINED if r.failed else alpha_warning(r.fit),
           "What alpha says."),
    Column("num_fingers", lambda r: r.n_fingers or 0, "Eigenvalues clipped.", CLIPPED),
    Column("raw_alpha", _of_fit(lambda r: r.raw_fit.alpha if r.raw_fit else -1.0),
           "Alpha before clipping.", CLIPPED),
    Column("lambda_max", _metric("lambda_max"), "Largest eigenvalue."),
    Column("spectral_norm", _metric("lambda_max"), "Largest eigenvalue, too."),
    Column("log_spectral_norm", _of_spectrum(lambda r: r.spectrum.log_lambda_max),
           "log10 of the largest eigenvalue."),
    Column("norm", _metric("norm"), "Sum of the eigenvalues."),
    Column("log_norm", _metric("log_norm"), "log10 of the sum of the eigenvalues."),
    Column("alpha_weighted", _of_spectrum(lambda r: r.alpha * r.spectrum.log_lambda_max),
           "alpha log10(lambda_max)."),
    Column("log_alpha_norm", _of_spectrum(lambda r: log_power_sum(r.esd.evals, r.alpha)),
           "log10 of sum(lambda ** alpha)."),
    Column("stable_rank", _metric("stable_rank"), "Sum of the eigenvalues over the largest."),
    Column("sv_max", _metric("sv_max"), "Largest singular value."),
    Column("sv_min", _metric("sv_min"), "Largest of the smallest singular values of the slices."),
    Column("weak_rank_loss", _metric("weak_rank_loss"), "Eigenvalues below 1e-6."),
    Column("rank_loss", _metric("rank_loss"), "Size minus rank, summed over the slices."),
    Column("matrix_rank", _metric("matrix_rank"), "Rank of the pooled spectrum."),
    Column("entropy", _of_spectrum(lambda r: rank_metrics.regularized_entropy(r.spectrum)),
           "Entropy of the spectrum over the log of its rank."),
    Column("detX_num", _metric("detX_num"), "Eigenvalues in the tail by the trace-log.", DETX),
    Column("num_ERG_spikes", _metric("detX_num"), "The same.", DETX),
    Column("detX_val", _metric("detX_val"), "Smallest eigenvalue of that tail.", DETX),
    Column("detX_val_unrescaled", _metric("detX_val_unrescaled"),
           "The same, over the mean of all.", DETX),
    Column("ERG_gap",
           _of_spectrum(lambda r: METRICS["detX_num"].function(r.spectrum) - _num_pl_spikes(r)),
           "detX_num minus num_pl_spikes.", DETX),
    *(Column(name, _mp_member(i), text, MP_FIT) for i, (name, text) in enumerate(_MP)),
    *(Column(f"rand_{name}", _random_mp_member(i), f"Permuted: {text}", RANDOMIZE)
      for i, (name, text) in enumerate(_MP)),
    Column("num_traps", _random_mp_member(0), "Spikes of the permuted spectrum.", RANDOMIZE),
    Column("max_rand_eval", _of_random(lambda r, first, every: float(every[-1])),
           "Largest permuted eigenvalue.", RANDOMIZE),
    Column("rand_distance", _of_random(lambda r, first, every: jensen_shannon(r.esd.evals, first)),
           "Jensen-Shannon distance from the permuted spectrum.", RANDOMIZE),
    Column("ww_softrank", _of_random(lambda r, first, every: float(first[-1] / r.esd.evals[-1])),
           "Largest permuted eigenvalue over the largest.", RANDOMIZE),
    Column("ww_maxdist", _of_random(lambda r, first, every: float(r.esd.evals[-1] - first[-1])),
           "Largest eigenvalue minus the largest permuted one.", RANDOMIZE),
    *(Column(f"{part}_{moment}_{statistic}", _localisation(f"{part}_{moment}_{statistic}"),
             f"The {moment} of {statistic} over the eigenvectors of the {part}.", VECTORS)
      for part in ("bulk", "tail") for moment in ("mean", "var")
      for statistic in ("vec_entropy", "loc_ratio", "part_ratio")),
)  # fmt: skip

# As in WeightWatcher's table: the layer, then the alphabet.
COLUMNS: tuple[Column[Row], ...] = (
    Column("layer_id", lambda r: r.layer.position, "Place among the weights of the source."),
    Column("name", lambda r: r.layer.name, "Name of the layer."),
    *sorted(_COLUMNS, key=lambda column: column.name),
)

# Its means, which are pandas', leave out NaN but neither infinity nor the -1 of a failed fit.
SUMMARY = tuple(
    mean(COLUMNS, name, keep=lambda v: not math.isnan(v))
    for name in (
        "log_norm", "alpha", "alpha_weighted", "log_alpha_norm", "log_spectral_norm",
        "stable_rank", "mp_softrank",
    )
)  # fmt: skip
