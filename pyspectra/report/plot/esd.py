"""The eigenvalues of one layer, with the law that was fitted to their tail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.report.plot.axes import (
    FIT,
    REST,
    TAIL,
    finish,
    named,
    new_axes,
    sizes,
    title,
    upright,
)
from pyspectra.report.plot.spectrum import (
    Bins,
    bins_of,
    chosen_row,
    draw_bars,
    has_law,
    hidden_words,
    require_spectrum,
    size_words,
)
from pyspectra.spectra.alternatives import TruncatedPowerLaw
from pyspectra.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TWO_SIDED = 1.96  # standard errors of a 95 % interval


def draw(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw the density of the eigenvalues on log axes, and the law fitted to their tail."""
    row, bins, ax = _begin(report, layer, ax)
    heights = bins.density(row.esd.evals)
    _bars(ax, row, bins, heights)
    low, high = _limits(bins, heights)
    if has_law(row):
        top = _law(ax, row, np.ones_like)
        high = max(high, top)
    ax.set_yscale("log")
    ax.set_ylim(low / 2.0, high * 2.0)
    return _end(ax, report, row, bins, "spectral density ρ(λ)")


def draw_linear(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw how many eigenvalues there are in bins of equal width on a log axis, and the law."""
    row, bins, ax = _begin(report, layer, ax)
    counts = bins.counts(row.esd.evals)
    _bars(ax, row, bins, counts)
    high = float(counts[bins.edges[:-1] >= bins.low].max(initial=1.0))
    if has_law(row):
        width = float(np.diff(np.log(bins.edges)).max())
        high = max(high, _law(ax, row, lambda x: len(row.esd.evals) * x * width))
    ax.set_ylim(0.0, 1.05 * high)
    return _end(ax, report, row, bins, "eigenvalues in a bin")


def _begin(report: ReportData, layer: int | str | None, ax: Any) -> tuple[LayerReport, Bins, Any]:
    row = chosen_row(report, layer)
    require_spectrum(row)
    ax = ax if ax is not None else new_axes()
    ax.set_xscale("log")
    return row, bins_of(row.esd.evals, xmin=row.fit.xmin if has_law(row) else math.nan), ax


def _bars(ax: Any, row: LayerReport, bins: Bins, heights: FloatArray) -> None:
    """Draw the bars, those of the tail in another colour."""
    in_tail, tail = np.zeros(len(heights), bool), ""
    if has_law(row):
        # `xmax` and clipped fingers leave the largest out.
        cut = row.fit.xmax < float(row.esd.evals[-1]) * (1 - 1e-12)
        in_tail = bins.edges[:-1] >= row.fit.xmin * (1 - 1e-12)
        in_tail &= bins.edges[:-1] <= (row.fit.xmax if cut else math.inf)
        bound = f" ≤ {row.fit.xmax:.3g}" if cut else ""
        count = row.fit.n_tail if cut else row.n_tail
        tail = f"tail: {count} from xmin = {row.fit.xmin:.3g}{bound}"
    hidden = hidden_words(row, bins)
    all_of = f"{len(row.esd.evals)} eigenvalues" + (f", {hidden}" if hidden else "")
    draw_bars(ax, bins, heights, ~in_tail, color=REST, label=all_of)
    draw_bars(ax, bins, heights, in_tail, color=TAIL, label=tail)


def _limits(bins: Bins, heights: FloatArray) -> tuple[float, float]:
    """Return the least and the largest height in the part that is shown."""
    seen = heights[(heights > 0.0) & (bins.edges[1:] >= bins.low)]
    return float(seen.min()), float(seen.max())


def _law(ax: Any, row: LayerReport, scale: Any) -> float:
    """Draw the fitted law with its interval, and where the tail starts; return its top."""
    fit, own = row.fit, sizes(ax)
    x = np.geomspace(fit.xmin, max(fit.xmax, fit.xmin * (1 + 1e-9)), 60)
    share = fit.n_tail / len(row.esd.evals)
    law: FloatArray = share * _density(row, fit.alpha, x) * scale(x)
    label = f"fit: α = {fit.alpha:.2f} ± {fit.alpha_stderr:.2f}, D = {fit.D:.3f}"
    top = float(law.max())
    ax.plot(x, law, color=FIT, linewidth=1.2 * own.line, label=label, zorder=5)
    low, high = fit.ci
    if not math.isfinite(low):
        reach = TWO_SIDED * fit.alpha_stderr
        low, high = max(1.0 + 1e-6, fit.alpha - reach), fit.alpha + reach
    if math.isnan(fit.Lambda) and math.isfinite(low + high):
        edges: list[FloatArray] = [
            share * _density(row, alpha, x) * scale(x) for alpha in (low, high)
        ]
        top = max(top, *(float(edge.max()) for edge in edges))
        ax.fill_between(
            x, np.minimum(*edges), np.maximum(*edges), color=FIT, alpha=0.18, linewidth=0.0,
            label=f"95 % of α: {low:.2f} to {high:.2f}", zorder=4,
        )  # fmt: skip
    upright(ax, fit.xmin, color=FIT, linestyle=":", linewidth=own.line)
    return top


def _density(row: LayerReport, alpha: float, x: FloatArray) -> FloatArray:
    """Return the density of the law that was fitted, with another exponent perhaps."""
    fit = row.fit
    if math.isnan(fit.Lambda):
        law: FloatArray = (alpha - 1) / fit.xmin * (x / fit.xmin) ** -alpha
        return law
    cut_off = fit.Lambda * fit.xmin
    truncated = TruncatedPowerLaw(np.array([alpha - 1 + cut_off, cut_off]), math.nan)
    return np.asarray(np.exp(truncated.log_density(np.log(x / fit.xmin))) / x)


def _end(ax: Any, report: ReportData, row: LayerReport, bins: Bins, ylabel: str) -> Axes:
    ax.set_xlim(bins.low, bins.high)
    reason = ""
    if not fitted(row):
        reason = f"no fit ({row.status.words})"
    elif not has_law(row):
        reason = f"fit of its sub-matrices: α = {row.alpha:.2f}"
    title(ax, row.label, f"{size_words(row)}, {named(report)}", reason)
    finish(ax, r"eigenvalue λ of $W^T W$", ylabel)
    found: Axes = ax
    return found
