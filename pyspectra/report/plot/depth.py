"""Alpha of each layer by its depth: a line for each role against the number of the block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.plot.axes import (
    FIT,
    band,
    finish,
    inches,
    named,
    new_axes,
    require_fit,
    sizes,
    title,
)
from pyspectra.report.plot.layout import Layout, label_axis, layout, style
from pyspectra.report.problems import has_tail

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Alphas above this are drawn at the upper border, unless many are: one of 35 would press all others
# into a line.
LARGE = 12.0
MANY = 0.05
MOST_ERRORS = 120  # layers whose error bars can be told apart


def draw(report: ReportData, layer: Any, ax: Axes | None) -> Axes:
    """Draw alpha of each layer against its depth, one line a role; random layers hollow."""
    require_fit(report)
    rows = report.wholes
    if ax is None:
        ax = new_axes(2.9)
    found = layout([row.place for row in rows], [row.kind for row in rows])
    band(ax, upright=False)
    top = _top([row.alpha + row.fit.alpha_stderr for row in rows if fitted(row)])
    columns = 2 if inches(ax)[0] < 2.0 else 3
    for role in found.roles:
        own = [i for i, spot in enumerate(found.spots) if spot.role == role and _fits(rows[i], top)]
        if own:
            _draw_role(ax, found, role, [(found.spots[i].x, rows[i]) for i in own], top)
    _mark_special(ax, found, rows, top)
    ax.set_ylim(0.0, top)
    names = [row.label for row in rows]
    xlabel = label_axis(ax, found, names)
    title(ax, "Power-law exponents by depth", named(report, 60))
    finish(ax, xlabel, "tail exponent α", columns=columns)
    return ax


def _top(upper: list[float]) -> float:
    """Return the upper limit: of all, or of most where few are very large."""
    values = np.array(upper)
    most = float(values.max())
    if most > LARGE and np.mean(values > LARGE) <= MANY + 1.0 / len(values):
        most = max(LARGE, float(values[values <= LARGE].max(initial=0.0)))
    return 1.05 * max(most, THRESHOLDS.alpha_high + 1.0)


def _fits(row: LayerReport, top: float) -> bool:
    return fitted(row) and row.alpha <= top


def _draw_role(
    ax: Any, found: Layout, role: str, drawn: list[tuple[float, LayerReport]], top: float
) -> None:
    colour, marker, dash = style(found, role)
    own = sizes(ax)
    size = own.marker * (1.0 if len(found.spots) < 100 else 0.6)
    x = np.array([spot for spot, _ in drawn])
    alpha = np.array([row.alpha for _, row in drawn])
    stderr = np.array([row.fit.alpha_stderr for _, row in drawn])
    errors = np.array([stderr, np.minimum(stderr, top - alpha)])
    structured = np.array([has_tail(row) for _, row in drawn])
    # Where there is no structure alpha says nothing, and no line goes there.
    _lines(
        ax, found, x[structured], alpha[structured], color=colour, linestyle=dash,
        linewidth=0.6 * own.line, alpha=0.7,
    )  # fmt: skip
    ax.errorbar(
        x, alpha, yerr=errors if len(found.spots) <= MOST_ERRORS else None, fmt=marker,
        color=colour, markersize=size, markeredgewidth=0.7, elinewidth=0.6, ecolor=(colour, 0.45),
        linestyle="none", label=role if len(found.roles) > 1 else None, zorder=3,
    )  # fmt: skip
    hollow = ~structured
    if hollow.any():
        ax.plot(
            x[hollow], alpha[hollow], marker, color=colour, markerfacecolor="white",
            markersize=size, markeredgewidth=0.7, zorder=4,
        )  # fmt: skip


def _lines(ax: Any, found: Layout, x: Any, y: Any, **look: Any) -> None:
    """Join the blocks of each stack: through the mean where a block has several such layers."""
    for _, start, blocks in found.stacks:
        inside = [start + block for block in blocks if np.any(x == start + block)]
        if len(inside) > 1:
            ax.plot(inside, [float(np.mean(y[x == at])) for at in inside], zorder=2, **look)


def _mark_special(ax: Any, found: Layout, rows: tuple[LayerReport, ...], top: float) -> None:
    """Mark what has no fit, what lies above the picture, and say what hollow means."""
    size = sizes(ax).marker
    failed = [found.spots[i].x for i, row in enumerate(rows) if not fitted(row)]
    if failed:
        ax.plot(
            failed, np.zeros(len(failed)), "x", color=FIT, markersize=size, clip_on=False,
            label="no fit", zorder=5,
        )  # fmt: skip
    above = [i for i, row in enumerate(rows) if fitted(row) and row.alpha > top]
    if above:
        most = max(rows[i].alpha for i in above)
        ax.plot(
            [found.spots[i].x for i in above], np.full(len(above), 0.985 * top), "^", color="black",
            markersize=size, label=f"above: up to {most:.0f}", zorder=5,
        )  # fmt: skip
    if any(fitted(row) and not has_tail(row) for row in rows):
        ax.plot(
            [], [], "o", color="black", markerfacecolor="white", markersize=size,
            markeredgewidth=0.7, label="hollow: no structure seen",
        )  # fmt: skip
