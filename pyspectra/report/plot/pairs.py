"""Two models in one picture: spectra of one layer, shifts of alpha, distances of spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pyspectra._support.text import pictured
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.compared_layers import LayerComparison
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.plot.axes import GREY, colour, finish, inches, mark, new_axes, sizes, title
from pyspectra.report.plot.layout import Layout, label_axis, layout, style
from pyspectra.report.plot.spectrum import bins_of, has_law, require_spectrum, size_words
from pyspectra.types import Status
from pyspectra.weights.roles import place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TWO_SIDED = 1.96


def has_both(row: LayerComparison) -> bool:
    """Tell whether both models have a spectrum of a layer."""
    return all(
        side.esd.status is Status.OK and len(side.esd.evals) and side.esd.evals[-1] > 0.0
        for side in (row.a, row.b)
    )


def draw_esd(found: ComparisonData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw the spectra of one layer in both models, each with its fitted law."""
    pair = _pair(found, layer)
    for side in (pair.a, pair.b):
        require_spectrum(side)
    ax = ax if ax is not None else new_axes()
    own = sizes(ax)
    starts = [side.fit.xmin for side in (pair.a, pair.b) if has_law(side)]
    bins = bins_of(pair.a.esd.evals, pair.b.esd.evals, xmin=min(starts, default=math.nan))
    heights: list[float] = []
    for number, (name, side) in enumerate(zip(found.names, (pair.a, pair.b), strict=True)):
        density = bins.density(side.esd.evals)
        steps = ax.stairs(
            np.where(density > 0.0, density, np.nan), bins.edges, color=colour(number),
            linewidth=own.line, linestyle="-" if number == 0 else "--", label=pictured(name),
        )  # fmt: skip
        mark(number, steps)
        heights += density[(density > 0.0) & (bins.edges[1:] >= bins.low)].tolist()
        if has_law(side) and math.isnan(side.fit.Lambda):
            fit = side.fit
            x = np.geomspace(fit.xmin, max(fit.xmax, fit.xmin * (1 + 1e-9)), 40)
            share = fit.n_tail / len(side.esd.evals)
            law = share * (fit.alpha - 1) / fit.xmin * (x / fit.xmin) ** -fit.alpha
            ax.plot(
                x, law, color=colour(number), linewidth=2.2 * own.line, alpha=0.5,
                label=f"its tail: α = {fit.alpha:.2f} ± {fit.alpha_stderr:.2f}",
            )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(bins.low, bins.high)
    ax.set_ylim(min(heights) / 2.0, max(heights) * 2.0)
    sure = pair.change in ("lower", "higher")
    told = f"α is {pair.change} in {found.names[1]}" if sure else pair.change
    title(ax, pair.a.label, f"{size_words(pair.a)}: {told}")
    finish(ax, r"eigenvalue λ of $W^T W$", "spectral density ρ(λ)")
    return ax


def _pair(found: ComparisonData, layer: int | str | None) -> LayerComparison:
    if layer is None:
        for row in found.layers:
            if has_both(row):
                return row
        raise ArgumentValueError("plot", "comparison", "have a layer with two spectra", "none")
    if not isinstance(layer, str):
        raise ArgumentTypeError("plot", "layer", "be a name", repr(layer))
    try:
        return found.layer(layer)
    except KeyError:
        hint = f"e.g. {found.layers[0].a.label!r}" if found.layers else None
        requirement = "be in both models"
        raise ArgumentValueError("plot", "layer", requirement, repr(layer), hint) from None


# --- a value for each layer ---------------------------------------------------------------------


def draw_shift(found: ComparisonData, layer: Any, ax: Axes | None) -> Axes:
    """Draw by how much alpha of each layer differs, with its 95 % interval; hollow within noise."""
    rows = found.compared
    if not rows:
        raise ArgumentValueError("plot", "comparison", "have a layer that can be compared", "none")
    ax = ax if ax is not None else new_axes(2.9)
    shifts = [row.alpha_shift for row in rows]
    errors = [TWO_SIDED * row.alpha_shift_stderr for row in rows]
    sure = [row.change in ("lower", "higher") for row in rows]
    laid = layout([row.a.place for row in rows], [row.a.kind for row in rows])
    ax.axhline(0.0, color=GREY, linewidth=0.7, zorder=1)
    _dots(ax, laid, shifts, errors, sure)
    if not all(sure):
        ax.plot(
            [], [], "o", color="black", markerfacecolor="white", markersize=sizes(ax).marker,
            markeredgewidth=0.7, label="hollow: within its error",
        )  # fmt: skip
    reach = 1.08 * max(abs(x) + e for x, e in zip(shifts, errors, strict=True))
    ax.set_ylim(-reach, reach)
    xlabel = label_axis(ax, laid, [row.a.label for row in rows])
    first, second = found.names
    title(ax, "Shift of α with its 95 % interval", f"{second} less {first}")
    finish(ax, xlabel, "shift of α", columns=_columns(ax))
    return ax


def draw_distances(found: ComparisonData, layer: Any, ax: Axes | None) -> Axes:
    """Draw the Kolmogorov-Smirnov distance between the two spectra of each layer."""
    rows = [row for row in found.layers if math.isfinite(row.distances["ks"])]
    if not rows:
        raise ArgumentValueError("plot", "comparison", "have a layer with two spectra", "none")
    ax = ax if ax is not None else new_axes(2.9)
    first, second = found.names
    _draw_values(
        ax, [row.a.label for row in rows], [row.a.kind for row in rows],
        [row.distances["ks"] for row in rows],
    )  # fmt: skip
    title(ax, "Distance of the spectra (Kolmogorov-Smirnov)", f"{first} and {second}")
    return ax


class FarLayer(Protocol):
    """What is drawn of a layer of `pyspectra.distances`."""

    @property
    def name(self) -> str:
        """Name of the layer."""

    @property
    def distance(self) -> float:
        """The distance; NaN where it could not be formed."""


def draw_far(method: str, layers: Sequence[FarLayer], ax: Axes | None) -> Axes:
    """Draw the distances that `pyspectra.distances` returned."""
    rows = [row for row in layers if math.isfinite(row.distance)]
    if not rows:
        raise ArgumentValueError("plot", "distances", "have a layer with a distance", "none")
    ax = ax if ax is not None else new_axes(2.9)
    _draw_values(ax, [x.name for x in rows], ["layer"] * len(rows), [x.distance for x in rows])
    title(ax, f"Distance of two models by layer ({method})")
    ax.set_ylabel(method)
    return ax


def _draw_values(
    ax: Any, names: Sequence[str], kinds: Sequence[str], values: Sequence[float]
) -> None:
    laid = layout([place_of(n, k) for n, k in zip(names, kinds, strict=True)], kinds)
    _dots(ax, laid, values, None, [True] * len(values))
    ax.set_ylim(min(0.0, *values, 0.0), 1.08 * max(*values, 1e-12, 0.0))
    xlabel = label_axis(ax, laid, names)
    finish(ax, xlabel, "distance", columns=_columns(ax))


def _columns(ax: Any) -> int:
    return 2 if inches(ax)[0] < 2.0 else 3


def _dots(
    ax: Any,
    laid: Layout,
    values: Sequence[float],
    errors: Sequence[float] | None,
    solid: Sequence[bool],
) -> None:
    """Draw a marker for each layer, of the colour of its role, hollow where it is not `solid`."""
    own = sizes(ax)
    size = own.marker * (1.0 if len(laid.spots) < 100 else 0.6)
    x, y = np.array([spot.x for spot in laid.spots]), np.array(values, dtype=float)
    for role in laid.roles:
        mine = np.array([i for i, spot in enumerate(laid.spots) if spot.role == role])
        tint, marker, _ = style(laid, role)
        ax.errorbar(
            x[mine], y[mine], yerr=None if errors is None else np.array(errors)[mine], fmt=marker,
            color=tint, markersize=size, markeredgewidth=0.7, elinewidth=0.6, ecolor=(tint, 0.45),
            linestyle="none", label=role if len(laid.roles) > 1 else None, zorder=3,
        )  # fmt: skip
        hollow = mine[~np.array(solid)[mine]]
        if len(hollow):
            ax.plot(
                x[hollow], y[hollow], marker, color=tint, markerfacecolor="white", markersize=size,
                markeredgewidth=0.7, zorder=4,
            )  # fmt: skip
