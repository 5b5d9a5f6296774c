"""Which layers to look at first.

A report does not know which layer was trained badly, and this order does not say so. It puts what
is certain to be wrong before what a test says, and that before an alpha outside of the typical
range:

1. layers without a spectrum or without a fit, entries that are not finite before all others;
2. layers without structure, then those without a power law (`pyspectra.report.problems`);
3. layers whose alpha lies outside of 2 to 6, by how many standard errors it does;
4. all others, by how many standard errors alpha lies inside; then those that are too small to tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyspectra.report.findings import SEVERITIES, THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import (
    HEAVY_TAIL,
    LIGHT_TAIL,
    NO_POWER_LAW,
    NO_STRUCTURE,
    TOO_SMALL,
    layer_finding,
    problem_of,
)
from pyspectra.types import Status

__all__ = ["by_attention", "distance_in_errors", "stands_out"]

_TAILS = (HEAVY_TAIL, LIGHT_TAIL)


def distance_in_errors(layer: LayerReport) -> float:
    """Return by how many standard errors alpha lies outside of the typical range.

    Parameters
    ----------
    layer : LayerReport

    Returns
    -------
    float
        Negative inside of the range; NaN where there is no alpha.

    Notes
    -----
    ``max(2 - alpha, alpha - 6) / alpha_stderr``. The standard error takes xmin for known and
    eigenvalues for independent; an error of zero makes the distance infinite.
    """
    if layer.status is not Status.OK or not math.isfinite(layer.alpha):
        return math.nan
    outside = max(THRESHOLDS.alpha_low - layer.alpha, layer.alpha - THRESHOLDS.alpha_high)
    error = layer.fit.alpha_stderr
    if error > 0.0:
        return outside / error
    return math.copysign(math.inf, outside) if outside else 0.0


def stands_out(layer: LayerReport) -> bool:
    """Tell whether something is said of a layer that asks for a look."""
    finding = layer_finding(layer)
    return finding is not None and finding.severity != "info"


def by_attention(layers: Sequence[LayerReport]) -> list[LayerReport]:
    """Return rows in the order in which to look at them (see the module); ties stay in order."""
    return sorted(layers, key=_key)


def _key(layer: LayerReport) -> tuple[int, int, float]:
    finding, problem = layer_finding(layer), problem_of(layer)
    if layer.status is not Status.OK and finding is not None:
        return 0, SEVERITIES.index(finding.severity), 0.0
    if problem is TOO_SMALL:
        return 4, 0, 0.0
    if problem in (NO_STRUCTURE, NO_POWER_LAW):
        return 1, (NO_STRUCTURE, NO_POWER_LAW).index(problem), 0.0
    distance = distance_in_errors(layer)
    if problem in _TAILS:
        return 2, 0, -distance
    return 3, 0, math.inf if math.isnan(distance) else -distance
