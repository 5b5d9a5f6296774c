"""What pictures of one spectrum share: which layer, what part of the axis, and the bins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra.errors import ArgumentValueError
from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.types import FloatArray, Status

# Below this fraction of lambda_max an eigenvalue is rounding.
ESD_FLOOR = 1e-12
# Left of a tail at most so many times its own decades are shown, and never less than so many
# decades: near-zero eigenvalues would press it into the last pixels.
LEFT_OF_TAIL, LEAST_DECADES = 1.5, 1.0
# Without a tail all but this share of the eigenvalues are shown.
LEFT_OUT = 0.02


def chosen_row(report: ReportData, layer: int | str | None) -> LayerReport:
    """Return the row to draw: the one that is named, else the first that has a fit."""
    if layer is not None:
        return report.layer(layer)
    for row in report.layers:
        if fitted(row):
            return row
    requirement, hint = "have a layer with a fit", "name one with 'layer'"
    raise ArgumentValueError("plot", "report", requirement, "none", hint)


def require_spectrum(row: LayerReport) -> None:
    """Raise ValueError unless a row has a positive eigenvalue."""
    if row.esd.status is not Status.OK:
        got = f"{row.name!r}, whose status is {row.esd.status}"
        raise ArgumentValueError("plot", "layer", "have a spectrum", got)
    if not (len(row.esd.evals) and row.esd.evals[-1] > 0.0):
        got = f"{row.name!r}, which has none"
        raise ArgumentValueError("plot", "layer", "have a positive eigenvalue to draw", got)


def has_law(row: LayerReport) -> bool:
    """Whether the fit is one of these very eigenvalues: that of sub-matrices is not."""
    return fitted(row) and not row.fit.estimator.startswith("farms")


def size_words(row: LayerReport) -> str:
    """Return kind and size of a layer: ``"conv2d 9x 64x32"``."""
    count = f"{row.esd.n_matrices}x " if row.esd.n_matrices > 1 else ""
    return f"{row.kind} {count}{row.esd.N}x{row.esd.M}"


@dataclass(frozen=True)
class Bins:
    """Bins of equal width on a log axis.

    Attributes
    ----------
    edges : ndarray
        Their borders, for all positive eigenvalues.
    low, high : float
        The part of the axis that is shown.
    n : int
        Number of eigenvalues, zeros included: what densities are divided by.
    """

    edges: FloatArray
    low: float
    high: float
    n: int

    def counts(self, values: FloatArray) -> FloatArray:
        """Return the number of values in each bin."""
        found: FloatArray = np.histogram(values, self.edges)[0].astype(float)
        return found

    def density(self, values: FloatArray) -> FloatArray:
        """Return the density of values: their shares over the widths of the bins."""
        found: FloatArray = self.counts(values) / np.diff(self.edges) / max(1, len(values))
        return found

    def shown(self, left: float) -> bool:
        """Tell whether a bin is in the part of the axis that is shown."""
        return self.low <= left <= self.high


def bins_of(*spectra: FloatArray, xmin: float = math.nan, border: float = math.nan) -> Bins:
    """Choose bins for some spectra that are drawn together.

    Parameters
    ----------
    *spectra : ndarray
        Ascending eigenvalues, one array for each.
    xmin : float
        Start of a tail, which becomes a border of two bins; NaN for none.
    border : float
        Another border of two bins where there is no tail.
    """
    largest = max(float(x[-1]) for x in spectra)
    positive = [x[x > ESD_FLOOR * largest] for x in spectra]
    smallest = min(float(x[0]) for x in positive if len(x))
    top, bottom = math.log10(largest), math.log10(smallest)
    low = min(math.log10(float(np.quantile(x, LEFT_OUT))) for x in positive if len(x)) - 0.1
    if xmin > 0.0:
        start = math.log10(xmin)
        low = max(low, start - max(LEAST_DECADES, LEFT_OF_TAIL * (top - start)))
        low = min(low, start - 0.1 * (top - start))
    low = max(low, bottom)
    if top - low < 1e-3:  # all equal
        low, top, bottom = low - 0.05, top + 0.05, min(bottom, low - 0.05)
    most = max(map(len, spectra))
    step = (top - low) / min(60, max(10, round(2 * math.sqrt(most))))
    fixed = xmin if xmin > 0.0 else border
    anchor = math.log10(fixed) if fixed > 0.0 else top
    below = max(1, math.ceil((anchor - bottom) / step + 1e-9))
    above = max(1, math.ceil((top - anchor) / step + 1e-9))
    edges: FloatArray = np.power(10.0, anchor + step * np.arange(-below, above + 1), dtype=float)
    if fixed > 0.0:
        edges[below] = fixed  # exactly, or rounding moves the first point of the tail out of it
    edges[0] = min(edges[0], smallest)
    edges[-1] = max(edges[-1], largest)
    margin = 0.03 * (top - low)
    return Bins(edges, 10.0 ** (low - margin), 10.0 ** (top + margin), most)


def hidden_words(row: LayerReport, bins: Bins) -> str:
    """Say how many eigenvalues lie left of the picture; empty for none."""
    left = int(np.count_nonzero(row.esd.evals < bins.low))
    return f"{left} further left" if left else ""


def draw_bars(ax: Any, bins: Bins, heights: FloatArray, mask: Any, **look: Any) -> Any:
    """Draw bars where `mask` holds and there is a height; return their container or None."""
    drawn = mask & (heights > 0.0)
    if not drawn.any():
        return None
    return ax.bar(
        bins.edges[:-1][drawn], heights[drawn], width=np.diff(bins.edges)[drawn], align="edge",
        linewidth=0.0, **look,
    )  # fmt: skip
