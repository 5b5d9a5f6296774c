"""The eigenvalues of one layer, with the law that was fitted to their tail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pyspectra._support.text import pictured, shorten
from pyspectra.errors import ArgumentValueError
from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.report.plot.axes import despine, new_axes
from pyspectra.spectra.alternatives import TruncatedPowerLaw
from pyspectra.types import FloatArray, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Below this fraction of lambda_max an eigenvalue is rounding; it would stretch a log axis.
ESD_FLOOR = 1e-9

TAIL = "#e07b39"
FIT = "#b3261e"
REST = "#b8c4d6"


def _first(report: ReportData) -> LayerReport:
    for row in report.layers:
        if fitted(row):
            return row
    requirement, hint = "have a layer with a fit", "name one with 'layer'"
    raise ArgumentValueError("plot", "report", requirement, "none", hint)


def draw(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw the eigenvalues of one layer, and the law fitted to their tail."""
    row = _first(report) if layer is None else report.layer(layer)
    evals = row.esd.evals
    if row.esd.status is not Status.OK:
        got = f"{row.name!r}, whose status is {row.esd.status}"
        raise ArgumentValueError("plot", "layer", "have a spectrum", got)
    largest = float(evals[-1]) if len(evals) else 0.0
    if not largest > 0.0:
        got = f"{row.name!r}, which has none"
        raise ArgumentValueError("plot", "layer", "have a positive eigenvalue to draw", got)
    ax = ax if ax is not None else new_axes(7.0, 4.8)
    shown = evals[evals > ESD_FLOOR * largest]
    # The fit of sub-matrices is one of other eigenvalues than these.
    has_law = fitted(row) and not row.fit.estimator.startswith("farms")
    edges = _log_edges(shown, row.fit.xmin if has_law else math.nan)
    # The density is that of all eigenvalues, so that the tail and the law share their scale.
    counts, _ = np.histogram(shown, edges)
    density = counts / np.diff(edges) / len(evals)
    in_tail = np.zeros(len(counts), bool)
    tail = ""
    if has_law:
        # `xmax` and clipped fingers leave the largest out.
        cut = row.fit.xmax < largest * (1 - 1e-12)
        in_tail = edges[:-1] >= row.fit.xmin * (1 - 1e-12)
        in_tail &= edges[:-1] <= (row.fit.xmax if cut else math.inf)
        bound = f" and λ ≤ {row.fit.xmax:.3g}" if cut else ""
        tail = f"tail: {row.fit.n_tail if cut else row.n_tail} with λ ≥ λ_min{bound}"
    for mask, color, label in (
        (~in_tail, REST, f"{len(evals)} eigenvalues"),
        (in_tail, TAIL, tail),
    ):
        drawn = mask & (counts > 0)
        if drawn.any():
            ax.bar(
                edges[:-1][drawn],
                density[drawn],
                width=np.diff(edges)[drawn],
                align="edge",
                color=color,
                edgecolor="white",
                linewidth=0.5,
                label=label.replace("λ_min", r"$\lambda_{\min}$"),
            )
    heights = density[density > 0]
    if has_law:
        heights = np.append(heights, _draw_law(ax, row))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(heights.min() / 3, heights.max() * 3)
    ax.set_xlabel(r"eigenvalue λ of $W^T W$")
    ax.set_ylabel("spectral density ρ(λ)")
    ax.set_title(_headline(row, len(evals) - len(shown), has_law), fontsize="medium")
    ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="upper right")
    despine(ax)
    return ax


def _headline(row: LayerReport, hidden: int, has_law: bool) -> str:
    which = "" if row.slice_id is None else f", slice {row.slice_id}"
    what = f"{pictured(row.kind)} {row.esd.N}x{row.esd.M}"
    note = f"; {hidden} eigenvalues ≈ 0 not shown" if hidden else ""
    reason = ""
    if not fitted(row):
        reason = f"; no fit ({row.status.words})"
    elif not has_law:
        reason = f"; fit of its sub-matrices: α = {row.alpha:.2f}"
    return f"{pictured(shorten(row.name, 60))}{which}\n{what}{note}{reason}"


def _log_edges(values: FloatArray, xmin: float) -> FloatArray:
    """Bins of equal width on a log axis, one border of which is xmin."""
    low, high = math.log10(values[0]) - 1e-9, math.log10(values[-1]) + 1e-9
    if high - low < 1e-3:  # all equal
        low, high = low - 0.05, high + 0.05
    step = (high - low) / min(100, max(10, round(3 * math.sqrt(len(values)))))
    anchor = math.log10(xmin) if xmin > 0 else low
    below, above = math.ceil((anchor - low) / step), max(1, math.ceil((high - anchor) / step))
    edges: FloatArray = np.power(10.0, anchor + step * np.arange(-below, above + 1), dtype=float)
    if xmin > 0:
        edges[below] = xmin  # exactly, or rounding moves the first point of the tail out of it
    return edges


def _draw_law(ax: Axes, row: LayerReport) -> FloatArray:
    """Draw the fitted law from xmin to xmax; return its heights."""
    fit = row.fit
    x = np.geomspace(fit.xmin, max(fit.xmax, fit.xmin * (1 + 1e-9)), 50)
    share = fit.n_tail / len(row.esd.evals)
    if math.isnan(fit.Lambda):
        density = (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha
    else:
        cut_off = fit.Lambda * fit.xmin
        truncated = TruncatedPowerLaw(np.array([fit.alpha - 1 + cut_off, cut_off]), math.nan)
        density = np.exp(truncated.log_density(np.log(x / fit.xmin))) / x
    law: FloatArray = share * density
    label = f"fit: α = {fit.alpha:.2f} ± {fit.alpha_stderr:.2f}, D = {fit.D:.3f}"
    ax.plot(x, law, color=FIT, linewidth=2, label=label)
    label = rf"$\lambda_{{\min}}$ = {fit.xmin:.3g}"
    ax.axvline(fit.xmin, color=FIT, linestyle=":", linewidth=1.2, label=label)
    return law
