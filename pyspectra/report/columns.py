"""The two dialects of a report's table: our names, and WeightWatcher 0.7.7's.

WeightWatcher's dialect lives here and nowhere else, its quirks included: ``spectral_norm`` is
lambda_max; a failed fit is -1 everywhere and 'over-trained'; a convolution with out < in swaps N
and M once a slice, so that an even receptive field ends with N < M.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra.metrics import METRICS, Spectrum
from pyspectra.metrics import rank as rank_metrics
from pyspectra.metrics.tail import log_power_sum
from pyspectra.report import columns_random
from pyspectra.report.verdicts import OVER_TRAINED, alpha_warning
from pyspectra.spectra import powerlaw
from pyspectra.types import Status

if TYPE_CHECKING:
    from pyspectra.report.report import LayerReport, Report

DIALECTS = ("pyspectra", "weightwatcher")
SUMMARY = (
    "log_norm", "alpha", "alpha_weighted", "log_alpha_norm", "log_spectral_norm", "stable_rank"
)  # fmt: skip

_WW_LAYER_TYPE = {"conv1d_gpt2": "conv1d", "linear": "dense"}
_WW_DETX = ("ERG_gap", "detX_num", "detX_val", "detX_val_unrescaled", "num_ERG_spikes")
_WW_FINGERS = ("num_fingers", "raw_alpha")
_WW_DEFAULT = (
    "D", "M", "N", "Q", "alpha", "alpha_weighted", "entropy", "has_esd", "lambda_max", "layer_type",
    "log_alpha_norm", "log_norm", "log_spectral_norm", "longname", "matrix_rank", "norm",
    "num_evals", "num_pl_spikes", "rank_loss", "rf", "sigma", "spectral_norm", "stable_rank",
    "status", "sv_max", "sv_min", "warning", "weak_rank_loss", "xmax", "xmin",
)  # fmt: skip


def _check(dialect: str) -> None:
    if dialect not in DIALECTS:
        raise ValueError(f"Report: 'dialect' must be one of {DIALECTS}, got {dialect!r}.")


def names(report: Report, dialect: str) -> list[str]:
    """Return the columns in order; they depend on the options of the analysis."""
    _check(dialect)
    options = report.options
    if dialect == "pyspectra":
        own = [
            "layer_id", "name", "part_of", "kind", "shape", "dtype", "N", "M", "Q", "rf", "n_evals",
            "method", "status", "warning", "alpha", "alpha_stderr", "alpha_corrected", "xmin",
            "xmax", "D", "n_tail", "n_fit",
        ]  # fmt: skip
        if not options.pool:
            own.insert(1, "slice_id")
        if options.fix_fingers:
            own += ["n_fingers", "raw_alpha"]
        if options.bootstrap:
            own += ["ci_low", "ci_high", "p_value"]
        if options.estimator == "tpl":
            own.append("Lambda")
        return own + [m.name for m in METRICS.values() if m.group in options.groups]
    ww = [*_WW_DEFAULT]
    ww += _WW_DETX if options.detx else ()
    ww += columns_random.MP if options.mp_fit else ()
    ww += columns_random.RANDOMIZE if options.randomize else ()
    ww += columns_random.VECTORS if options.vectors else ()
    ww += _WW_FINGERS if options.fix_fingers else ()
    ww += ("Lambda",) if options.estimator == "tpl" else ()
    ww += () if options.pool else ("slice_id",)
    return ["layer_id", "name", *sorted(ww)]


def rows(report: Report, dialect: str) -> list[dict[str, Any]]:
    """Return one dict a layer, with the columns of `names`."""
    columns = names(report, dialect)
    one: Callable[[LayerReport, Report], dict[str, Any]] = (
        _own_row if dialect == "pyspectra" else _ww_row
    )
    layers = report.layers if dialect == "pyspectra" else report.wholes
    return [{c: values.get(c, math.nan) for c in columns}
            for values in (one(layer, report) for layer in layers)]  # fmt: skip


def summary(report: Report, dialect: str) -> dict[str, float]:
    """Mean of each main metric; see `Report.summary`."""
    _check(dialect)
    one = _own_row if dialect == "pyspectra" else _ww_row
    table = [one(layer, report) for layer in report.wholes]
    out: dict[str, float] = {}
    averaged = [*SUMMARY]
    if report.options.mp_fit:
        averaged.append("mp_soft_rank" if dialect == "pyspectra" else "mp_softrank")
    for column in averaged:
        values = [float(row.get(column, math.nan)) for row in table]
        # pandas' mean, which is WeightWatcher's, leaves NaN out but neither infinity nor -1.
        counts = math.isfinite if dialect == "pyspectra" else lambda v: not math.isnan(v)
        values = [v for v in values if counts(v)]
        out[column] = sum(values) / len(values) if values else math.nan
    if dialect == "pyspectra":
        out["n_layers"] = len(table)
        out["n_failed"] = sum(layer.status is not Status.OK for layer in report.wholes)
    return out


def _own_row(layer: LayerReport, report: Report) -> dict[str, Any]:
    esd, fit = layer.esd, layer.fit
    return {
        "layer_id": layer.layer_id,
        "slice_id": layer.slice_id,
        "name": layer.name,
        "part_of": layer.part_of,
        "kind": layer.kind,
        "shape": "x".join(map(str, layer.shape)),
        "dtype": layer.dtype,
        "N": esd.N,
        "M": esd.M,
        "Q": esd.Q,
        "rf": layer.rf,
        "n_evals": len(esd.evals),
        "method": esd.method,
        "status": str(layer.status),
        "warning": layer.warning,
        "alpha": fit.alpha,
        "alpha_stderr": fit.alpha_stderr,
        "alpha_corrected": fit.alpha_corrected,
        "xmin": fit.xmin,
        "xmax": fit.xmax,
        "D": fit.D,
        "n_tail": layer.n_tail,
        "n_fit": fit.n,
        "ci_low": fit.ci[0],
        "ci_high": fit.ci[1],
        "p_value": fit.p_value,
        "Lambda": fit.Lambda,
        "n_fingers": layer.n_fingers,
        "raw_alpha": layer.raw_fit.alpha if layer.raw_fit else math.nan,
        **layer.metrics,
    }


def _ww_sides(layer: LayerReport) -> tuple[int, int]:
    """WeightWatcher's N and M: swapped once a slice where a convolution has out < in."""
    N, M = layer.esd.N, layer.esd.M
    swapped = len(layer.shape) == 4 and layer.shape[0] < layer.shape[1] and layer.rf % 2 == 0
    return (M, N) if swapped else (N, M)


def _ww_row(layer: LayerReport, report: Report) -> dict[str, Any]:
    esd, fit = layer.esd, layer.fit
    N, M = _ww_sides(layer)
    failed = fit.status is not Status.OK or _ww_clipping_fails(layer)
    alpha = -1.0 if failed else fit.alpha
    row: dict[str, Any] = {
        "layer_id": layer.layer_id,
        "slice_id": layer.slice_id or 0,
        "name": layer.name,
        "longname": layer.name,
        "layer_type": _ww_layer_type(layer, report),
        "N": N,
        "M": M,
        "Q": N / M,
        "rf": layer.rf,
        "num_evals": len(esd.evals),
        "has_esd": esd.status is Status.OK,
        "alpha": alpha,
        "D": -1.0 if failed else fit.D,
        "sigma": -1.0 if failed else fit.alpha_stderr,
        "xmin": -1.0 if failed else fit.xmin,
        "xmax": None if failed else fit.xmax,
        "num_pl_spikes": -1 if failed else layer.n_tail,
        "Lambda": -1.0 if failed else fit.Lambda,
        "status": "failed" if failed else "success",
        "warning": OVER_TRAINED if failed else alpha_warning(fit.alpha),
        "num_fingers": layer.n_fingers or 0,
        "raw_alpha": layer.raw_fit.alpha if layer.raw_fit and not failed else -1.0,
    }
    if esd.status is not Status.OK:
        return row
    m = layer.metrics
    with np.errstate(all="ignore"):
        spectrum = Spectrum(esd, fit, rank_side=N)
        row |= {
            "lambda_max": m["lambda_max"],
            "spectral_norm": m["lambda_max"],
            "log_spectral_norm": spectrum.log_lambda_max,
            "norm": m["norm"],
            "log_norm": m["log_norm"],
            "alpha_weighted": alpha * spectrum.log_lambda_max,
            "log_alpha_norm": log_power_sum(esd.evals, alpha),
            "stable_rank": m["stable_rank"],
            "sv_max": m["sv_max"],
            "sv_min": m["sv_min"],
            "weak_rank_loss": m["weak_rank_loss"],
            "rank_loss": rank_metrics.rank_loss(spectrum),
            "matrix_rank": rank_metrics.matrix_rank(spectrum),
            "entropy": rank_metrics.regularized_entropy(spectrum),
        }
    row |= columns_random.row(layer, N, M, -1.0 if failed else fit.xmin)
    if report.options.detx:
        row |= {name: m[name] for name in ("detX_num", "detX_val", "detX_val_unrescaled")}
        row["num_ERG_spikes"] = m["detX_num"]
        row["ERG_gap"] = m["detX_num"] - row["num_pl_spikes"]
    return row


def _ww_clipping_fails(layer: LayerReport) -> bool:
    """WeightWatcher's clip_xmax fails where clipping leaves it fewer than two points.

    It tries k = 2, 3, ... until it stops, and then up to three more k as a check of the last fit.
    """
    if layer.raw_fit is None or layer.raw_fit.status is not Status.OK:
        return False
    raw = layer.raw_fit
    x = layer.esd.evals[layer.esd.evals <= raw.xmax][-raw.n :]  # those that entered the fit
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


def _ww_layer_type(layer: LayerReport, report: Report) -> str:
    """WeightWatcher knows embeddings and GPT-2's Conv1D only from a module, not from a file."""
    if layer.kind == "embedding":
        return "embedding" if report.format == "torch_module" else "dense"
    return _WW_LAYER_TYPE.get(layer.kind, layer.kind)
