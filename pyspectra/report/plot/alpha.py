"""The histogram of alpha over the layers, of one model or of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import counted, pictured, shorten
from pyspectra.report.columns import fitted
from pyspectra.report.comparison_data import ComparisonData, Outliers
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.histogram import alpha_histogram
from pyspectra.report.plot.axes import (
    band,
    colour,
    finish,
    mark,
    models_on,
    named,
    new_axes,
    require_fit,
    title,
    upright,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES = ("", "////", "....", "xxxx")


def draw(report: ReportData, layer: Any, ax: Axes | None) -> Axes:
    """Draw how many layers have which alpha; on axes that hold a histogram, beside it."""
    require_fit(report)
    ax = ax if ax is not None else new_axes()
    alphas = [row.alpha for row in report.wholes if fitted(row)]
    mean = report.verdict.mean_alpha  # over the layers whose alpha says something
    told = f", mean α = {mean:.2f}" if math.isfinite(mean) else ""
    before = models_on(ax)
    _bars(ax, alphas, f"{named(report)}{told}", mean)
    failed = len(report.wholes) - len(alphas)
    note = f"{failed} without a fit left out" if failed else ""
    if before:
        title(ax, "Power-law exponents")
    else:
        title(ax, f"Power-law exponents of {counted(len(alphas), 'layer')}", note)
    _finish(ax, "layers" if report.options.pool else "layers and slices")
    return ax


def draw_both(found: ComparisonData, layer: Any, ax: Axes | None) -> Axes:
    """Draw how many layers of two models have which alpha."""
    require_fit(found.a)
    require_fit(found.b)
    ax = ax if ax is not None else new_axes()
    edges = found.histogram.edges
    ax.hist(
        [list(alphas) for alphas in found.fitted_alphas], bins=list(edges), rwidth=1.0,
        color=[colour(0), colour(1)], label=list(map(_told, *_sides(found))), zorder=2,
    )  # fmt: skip
    for number, (bars, alphas) in enumerate(zip(ax.containers, found.fitted_alphas, strict=False)):
        mark(number, *bars)
        for bar in bars:
            bar.set_hatch(HATCHES[number])
            bar.set_edgecolor("white")
            bar.set_linewidth(0.0)
        mean = sum(alphas) / len(alphas)
        upright(ax, mean, color=colour(number), linestyle="--", linewidth=1.0, zorder=9)
    ax.set_xlim(edges[0], edges[-1])
    title(ax, "Power-law exponents of all layers with a fit")
    _finish(ax, "layers" if found.a.options.pool else "layers and slices")
    return ax


def _sides(
    found: ComparisonData,
) -> tuple[Sequence[str], Sequence[Sequence[float]], Sequence[Outliers]]:
    return found.names, found.fitted_alphas, found.outliers


def _told(name: str, alphas: Sequence[float], out: Outliers) -> str:
    """Say what a model is called, its mean, and how many layers are outliers."""
    mean, high = sum(alphas) / len(alphas), THRESHOLDS.alpha_high
    many = f"{len(out.above) or 'none'} above {high:g}"
    return f"{pictured(shorten(name, 24))}: mean α = {mean:.2f}, {many}"


def _bars(ax: Any, alphas: Sequence[float], label: str, mean: float) -> None:
    number = models_on(ax)
    edges = alpha_histogram(alphas).edges
    own = colour(number)
    _, _, bars = ax.hist(
        alphas, bins=list(edges), color=own, alpha=0.55 if number else 0.75, edgecolor=own,
        linewidth=0.8, hatch=HATCHES[number % len(HATCHES)], zorder=2 + number, label=label,
    )  # fmt: skip
    mark(number, *bars)
    if math.isfinite(mean):
        upright(ax, mean, color=own, linestyle="--", linewidth=1.0, zorder=9)
    low, high = (edges[0], edges[-1])
    if number:  # the limits hold every model
        low, high = min(low, ax.get_xlim()[0]), max(high, ax.get_xlim()[1])
    ax.set_xlim(low, high)


def _finish(ax: Any, ylabel: str) -> None:
    band(ax, upright=True)
    tallest = max(
        (patch.get_height() for group in ax.containers for patch in group.patches), default=1.0
    )
    ax.set_ylim(0.0, max(1.0, tallest) * 1.05)
    ax.locator_params(axis="y", integer=True)
    finish(ax, "tail exponent α", ylabel)
