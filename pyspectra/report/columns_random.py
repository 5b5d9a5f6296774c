"""WeightWatcher 0.7.7's columns of ``mp_fit``, ``randomize`` and ``vectors``; see `columns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra.metrics.vectors import bulk_and_tail
from pyspectra.spectra import marchenko_pastur
from pyspectra.spectra.randomize import n_replicas
from pyspectra.types import FloatArray, Status

if TYPE_CHECKING:
    from pyspectra.report.report import LayerReport

_FIT = ("num_spikes", "sigma_mp", "mp_softrank", "W_scale", "bulk_max", "bulk_min")
_RAND_FIT = tuple(f"rand_{name}" for name in _FIT)

MP = _FIT
RANDOMIZE = (
    "max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist", "num_traps", *_RAND_FIT
)  # fmt: skip
VECTORS = tuple(
    f"{part}_{moment}_{statistic}"
    for part in ("bulk", "tail")
    for moment in ("mean", "var")
    for statistic in ("vec_entropy", "loc_ratio", "part_ratio")
)


def row(layer: LayerReport, N: int, M: int, xmin: float) -> dict[str, Any]:
    """Return the columns of what was asked for; `N` and `M` are WeightWatcher's."""
    out: dict[str, Any] = {}
    if layer.mp is not None:
        out |= zip(_FIT, _fit(layer.esd.evals, N, M), strict=True)
    if layer.randomized is not None:
        first, together = layer.randomized.evals, layer.randomized.all_evals
        # By its own M, which for some convolutions is the longer side, this is not a small layer.
        if n_replicas(M * layer.esd.n_matrices) == 1:
            together = first
        fit = _fit(together, N, M)
        out |= zip(_RAND_FIT, fit, strict=True)
        largest = float(layer.esd.evals[-1])
        out |= {
            "num_traps": fit[0],
            "max_rand_eval": float(together[-1]),
            "rand_distance": layer.metrics["rand_distance"],
            "ww_softrank": layer.metrics["rand_soft_rank"],
            "ww_maxdist": largest - float(first[-1]),
        }
    if layer.vectors is not None:
        # A failed fit has xmin = -1, so that all is tail.
        out |= bulk_and_tail(layer.vectors, int(np.searchsorted(layer.esd.evals, xmin)))
    return out


def _fit(evals: FloatArray, N: int, M: int) -> tuple[float, ...]:
    fit = marchenko_pastur.fit(evals, N, M, mp="ww")
    if fit.status is not Status.OK:
        return (-1,) + (-1.0,) * 5
    return (
        fit.n_spikes, fit.sigma_mp, fit.mp_soft_rank, fit.W_scale, fit.lambda_plus, fit.lambda_minus
    )  # fmt: skip
