"""The histogram of alpha over the layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.plot.axes import BAND, band_label, despine, new_axes, require_fit, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BIN_WIDTH = 0.5
MOST_BINS = 60
BARS = "#4c78a8"


def draw(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw how many layers have which alpha."""
    require_fit(report)
    ax = ax if ax is not None else new_axes(7.0, 4.2)
    alphas = np.array([row.alpha for row in report.wholes if fitted(row)])
    start = math.floor(min(alphas.min(), THRESHOLDS.alpha_low - BIN_WIDTH) / BIN_WIDTH) * BIN_WIDTH
    end = max(float(alphas.max()), THRESHOLDS.alpha_high)
    step = BIN_WIDTH * max(1, math.ceil((end - start) / BIN_WIDTH / MOST_BINS))
    edges = start + step * np.arange(math.floor((end - start) / step) + 2)

    ax.axvspan(
        THRESHOLDS.alpha_low,
        THRESHOLDS.alpha_high,
        color=BAND,
        zorder=0,
        label=band_label(),
    )
    ax.hist(alphas, bins=edges.tolist(), color=BARS, edgecolor="white", zorder=2)
    mean = report.verdict.mean_alpha  # over the layers whose alpha says something
    if math.isfinite(mean):
        ax.axvline(mean, color="black", linestyle="--", linewidth=1, label=f"mean α = {mean:.2f}")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_xlabel("tail exponent α")
    ax.set_ylabel("layers" if report.options.pool else "layers and slices")
    ax.locator_params(axis="y", integer=True)
    failed = len(report.wholes) - len(alphas)
    note = f", {failed} without a fit left out" if failed else ""
    noun = "layer" if len(alphas) == 1 else "layers"
    title(ax, f"Power-law exponents of {len(alphas)} {noun}{note}", report.source)
    ax.legend(frameon=False, fontsize="small")
    despine(ax)
    return ax
