"""Localisation of eigenvectors in the bulk (lambda < xmin) and in the tail of a spectrum."""

from __future__ import annotations

import math

import numpy as np

from pyspectra.metrics.registry import MetricFunction, Spectrum, metric
from pyspectra.spectra.eigenvectors import EigenvectorStatistics

STATISTICS = ("vec_entropy", "loc_ratio", "part_ratio")


def bulk_and_tail(vectors: EigenvectorStatistics, start: int) -> dict[str, float]:
    """Mean and variance of each statistic before and from index `start`; NaN for an empty side."""
    out = {}
    for statistic in STATISTICS:
        values = getattr(vectors, statistic)
        for part, side in (("bulk", values[:start]), ("tail", values[start:])):
            out[f"{part}_mean_{statistic}"] = float(np.mean(side)) if len(side) else math.nan
            out[f"{part}_var_{statistic}"] = float(np.var(side)) if len(side) else math.nan
    return out


def _member(part: str, moment: str, statistic: str) -> tuple[str, MetricFunction]:
    name = f"{part}_{moment}_{statistic}"

    def function(s: Spectrum) -> float:
        vectors = s.measurement("vectors")
        if vectors is None or not s.has_tail:
            return math.nan
        # By the eigenvalues that were fitted: xmin is one of them, and another routine's rounding
        # would put its vector on either side.
        return bulk_and_tail(vectors, int(np.searchsorted(s.evals, s.fit.xmin)))[name]

    words = {"mean": "Mean", "var": "Variance"}[moment]
    function.__doc__ = f"{words} of {statistic} over the eigenvectors of the {part}."
    return name, function


for _part in ("bulk", "tail"):
    for _moment in ("mean", "var"):
        for _statistic in STATISTICS:
            _name, _function = _member(_part, _moment, _statistic)
            metric(_name, group="vectors")(_function)
