"""D against xmin: how the start of the tail was chosen, and how clear that choice was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pyspectra.errors import ArgumentValueError
from pyspectra.report.data import ReportData
from pyspectra.report.plot.axes import FIT, colour, finish, named, new_axes, sizes, title, upright
from pyspectra.report.plot.spectrum import (
    bins_of,
    chosen_row,
    has_law,
    require_spectrum,
    size_words,
)
from pyspectra.spectra.powerlaw import fit_powerlaw_batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 256


def draw(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw the distance D of the tail from its law for each start of the tail, and the chosen."""
    row = chosen_row(report, layer)
    require_spectrum(row)
    if not has_law(row):
        got = f"{row.name!r}, which has none"
        raise ArgumentValueError("plot", "layer", "have a fit of its eigenvalues", got)
    ax = ax if ax is not None else new_axes()
    fit, own = row.fit, sizes(ax)
    points = row.esd.evals[row.esd.evals <= fit.xmax]
    points = points[len(points) - fit.n :]  # those that were fitted
    places = np.unique(np.linspace(0, len(points) - 2, MOST_POINTS).astype(int))
    starts = points[places]
    fits = [fit_powerlaw_batch([points], xmin=float(x), threshold=0.0)[0] for x in starts]
    found = np.array([each.D for each in fits])
    ax.plot(
        starts, found, color=colour(0), linewidth=own.line,
        label=f"D for each start of the tail ({len(points)} points)",
    )  # fmt: skip
    upright(ax, fit.xmin, color=FIT, linestyle=":", linewidth=own.line)
    ax.plot(
        [fit.xmin], [fit.D], "o", color=FIT, markersize=1.4 * own.marker, zorder=4,
        label=f"chosen: xmin = {fit.xmin:.3g}, D = {fit.D:.3f}, α = {fit.alpha:.2f}",
    )  # fmt: skip
    bins = bins_of(row.esd.evals, xmin=fit.xmin)
    ax.set_xscale("log")
    ax.set_xlim(bins.low, bins.high)
    ax.set_ylim(0.0, 1.05 * max(float(np.nanmax(found)), fit.D))
    title(ax, row.label, f"{size_words(row)}, {named(report)}")
    finish(ax, "start of the tail, xmin", "distance D")
    return ax
