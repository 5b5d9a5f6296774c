"""Trajectories: what became of each layer from checkpoint to checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra._support.text import pictured, shorten
from pyspectra.errors import ArgumentValueError
from pyspectra.report.plot.axes import (
    LINES,
    MARKERS,
    PALETTE,
    band,
    colour,
    finish,
    new_axes,
    sizes,
    title,
)
from pyspectra.report.trajectory_data import LayerTrajectory, TrajectoryData

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMES = 6  # layers that have a name in the legend; more are coloured by their depth
MUCH = 10.0  # a factor between values, from which on they stand on a log axis
WIDE_RANGE = 30.0  # steps that span more than this factor stand on a log axis


def draw_alpha(found: TrajectoryData, layer: Any, ax: Axes | None) -> Axes:
    """Draw alpha of each layer against the step, and its mean; hollow where it says nothing."""
    return _draw(found, ax, lambda row: row.alpha, "tail exponent α", hollow=True)


def draw_norm(found: TrajectoryData, layer: Any, ax: Axes | None) -> Axes:
    """Draw by how much log10 of the spectral norm of each layer has changed since the first."""
    return _draw(
        found, ax, lambda row: row.shifts("log_spectral_norm"),
        "change of log10 spectral norm",
    )  # fmt: skip


def draw_rank(found: TrajectoryData, layer: Any, ax: Axes | None) -> Axes:
    """Draw the stable rank of each layer against the step."""
    return _draw(found, ax, lambda row: row.values("stable_rank"), "stable rank", log=True)


Values = Callable[[LayerTrajectory], Sequence[float]]


def _draw(
    found: TrajectoryData,
    ax: Any,
    values: Values,
    ylabel: str,
    *,
    hollow: bool = False,
    log: bool = False,
) -> Axes:
    rows = [row for row in found.layers if np.isfinite(values(row)).any()]
    if not rows:
        raise ArgumentValueError("plot", "trajectory", f"have a layer with a {ylabel}", "none")
    ax = ax if ax is not None else new_axes()
    own, steps = sizes(ax), np.array(found.steps)
    if hollow:
        band(ax, upright=False)
    few = len(rows) <= MOST_NAMES
    for number, row in enumerate(rows):
        y = np.array(values(row))
        _line(ax, steps, y, number, len(rows), pictured(shorten(row.name, 28)) if few else None)
        silent = ~np.array(row.has_tail) & np.isfinite(y)
        if hollow and few and silent.any():
            ax.plot(
                steps[silent], y[silent], MARKERS[number % len(MARKERS)], color=colour(number),
                markerfacecolor="white", markersize=own.marker, zorder=5,
            )  # fmt: skip
    if not few:
        mean = _mean(np.array([values(row) for row in rows]))
        ax.plot(steps, mean, "o-", color="black", linewidth=1.4 * own.line, markersize=own.marker,
                label=f"mean of {len(rows)} layers", zorder=6)  # fmt: skip
        _colour_bar(ax, len(rows))
    if log and _spans(rows, values):
        ax.set_yscale("log")
    xlabel = _steps(ax, found)
    title(ax, ylabel[0].upper() + ylabel[1:], f"{found.names[0]} to {found.names[-1]}")
    finish(ax, xlabel, ylabel, columns=2 if few else 1)
    axes: Axes = ax
    return axes


def _line(ax: Any, steps: Any, y: Any, number: int, count: int, label: str | None) -> None:
    own = sizes(ax)
    if label is not None:
        ax.plot(
            steps, y, marker=MARKERS[number % len(MARKERS)], color=colour(number),
            linestyle=LINES[number // len(PALETTE) % len(LINES)], linewidth=own.line,
            markersize=own.marker, label=label,
        )  # fmt: skip
        return
    import matplotlib

    # From dark to light with depth; the lightest of the map would not show on white.
    tint = matplotlib.colormaps["viridis"](0.9 * number / max(1, count - 1))
    ax.plot(steps, y, color=tint, linewidth=0.6 * own.line, alpha=0.75, zorder=2)


def _spans(rows: Sequence[LayerTrajectory], values: Values) -> bool:
    """Tell whether positive values span so much that they want a log axis."""
    found = np.array([x for row in rows for x in values(row) if math.isfinite(x)])
    return bool(found.min() > 0.0 and found.max() > MUCH * found.min())


def _mean(values: Any) -> Any:
    """Return the means at each step: over the layers that all steps have, if there are any."""
    whole = np.isfinite(values).all(axis=1)
    values = values[whole] if whole.any() else values
    known = np.isfinite(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), math.nan)


def _colour_bar(ax: Any, count: int) -> None:
    """Say what the colours mean, in the margin."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    own = sizes(ax)
    part = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, 128)))
    shades = ScalarMappable(Normalize(1, count), part)
    bar = ax.figure.colorbar(shades, ax=ax, fraction=0.045, pad=0.02)
    bar.set_label("layer, in order", fontsize=own.tick)
    bar.ax.tick_params(labelsize=own.tick)
    bar.outline.set_linewidth(0.4)


def _steps(ax: Any, found: TrajectoryData) -> str:
    """Put the steps on the axis; return what it is called."""
    steps = found.steps
    if steps == tuple(map(float, range(len(steps)))):
        room = max(4, 60 // len(steps))
        ax.set_xticks(steps, [pictured(shorten(name, room)) for name in found.names])
        return "checkpoint"
    if steps[0] > 0.0 and steps[-1] / steps[0] > WIDE_RANGE:
        ax.set_xscale("log")
    return "step"
