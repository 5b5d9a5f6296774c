"""Pictures of a report; matplotlib loads on first use, and no figure is kept or shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra._support.arguments import as_integer
from pyspectra._support.text import printable, shorten
from pyspectra.errors import missing_dependency
from pyspectra.report.verdicts import ALPHA_OVER_TRAINED, ALPHA_UNDER_TRAINED
from pyspectra.spectra.alternatives import TruncatedPowerLaw
from pyspectra.types import FloatArray, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pyspectra.report.report import LayerReport, Report

KINDS = ("alpha", "esd", "depth")

BIN_WIDTH = 0.5
MOST_BINS = 60
MOST_LABELS = 45  # rows that a tick label each still leaves readable
LABEL_LENGTH = 30

# Below this fraction of lambda_max an eigenvalue is rounding; it would stretch a log axis.
ESD_FLOOR = 1e-9

BAND = "#dcefdc"
BARS = "#4c78a8"
TAIL = "#e07b39"
FIT = "#b3261e"
REST = "#b8c4d6"


def plot(
    report: Report, kind: str = "alpha", layer: int | str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a report.

    Parameters
    ----------
    report : Report
        What `pyspectra.analyze` returned.
    kind : {"alpha", "esd", "depth"}
        ``"alpha"``: histogram of alpha over the layers. ``"esd"``: the eigenvalues of one layer
        with the fitted power law. ``"depth"``: alpha of each layer in order, with its standard
        error. The first and the last shade the range of well-trained layers, 2 to 6.
    layer : int or str, optional
        Id or name of the layer for ``"esd"``; the first that has a fit by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default, which belongs to the caller (``ax.figure``).

    Returns
    -------
    matplotlib.axes.Axes
        For a new figure, ``ax.figure.savefig(path)`` writes it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    ValueError
        If `kind` is unknown, `layer` does not exist or goes with another kind, or there is nothing
        to draw.
    TypeError
        If `layer` is neither an id nor a name, or `ax` no Axes.
    """
    if kind not in KINDS:
        raise ValueError(f"plot: 'kind' must be one of {KINDS}, got {kind!r}.")
    if layer is not None and kind != "esd":
        raise ValueError(f"plot: 'layer' goes with kind 'esd' only, got kind {kind!r}.")
    if ax is not None and not hasattr(ax, "set_title"):
        raise TypeError(f"plot: 'ax' must be matplotlib Axes or None, got {type(ax).__name__}.")
    if kind == "esd":
        return _plot_esd(_find(report, layer), ax)
    if not any(_fitted(row) for row in report.layers):
        raise ValueError(
            f"plot: 'report' has no fitted alpha to draw: {len(report.layers)} rows, all failed."
        )
    return _plot_alpha(report, ax) if kind == "alpha" else _plot_depth(report, ax)


def _new_axes(width: float, height: float) -> Axes:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "plot", extra="plot") from error
    # Not pyplot's: that would keep every figure alive, and pick a backend for the whole process.
    axes: Axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    return axes


def _fitted(row: LayerReport) -> bool:
    return row.status is Status.OK and math.isfinite(row.alpha)


def _title(ax: Axes, text: str, source: str) -> None:
    ax.set_title(f"{text}\n{_plain(shorten(source, 70))}", fontsize="medium")


def _plain(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return printable(text).replace("$", r"\$")


def _despine(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


# --- alpha --------------------------------------------------------------------------------------


def _plot_alpha(report: Report, ax: Axes | None) -> Axes:
    ax = ax if ax is not None else _new_axes(7.0, 4.2)
    alphas = np.array([row.alpha for row in report.wholes if _fitted(row)])
    start = math.floor(min(alphas.min(), ALPHA_OVER_TRAINED - BIN_WIDTH) / BIN_WIDTH) * BIN_WIDTH
    end = max(float(alphas.max()), ALPHA_UNDER_TRAINED)
    step = BIN_WIDTH * max(1, math.ceil((end - start) / BIN_WIDTH / MOST_BINS))
    edges = start + step * np.arange(math.floor((end - start) / step) + 2)

    ax.axvspan(
        ALPHA_OVER_TRAINED,
        ALPHA_UNDER_TRAINED,
        color=BAND,
        zorder=0,
        label=f"well trained: {ALPHA_OVER_TRAINED:g} ≤ α ≤ {ALPHA_UNDER_TRAINED:g}",
    )
    ax.hist(alphas, bins=edges.tolist(), color=BARS, edgecolor="white", zorder=2)
    mean = float(alphas.mean())
    ax.axvline(mean, color="black", linestyle="--", linewidth=1, label=f"mean α = {mean:.2f}")
    ax.set_xlim(edges[0], edges[-1])
    ax.set_xlabel("tail exponent α")
    ax.set_ylabel("layers" if report.options.pool else "layers and slices")
    ax.locator_params(axis="y", integer=True)
    failed = len(report.wholes) - len(alphas)
    note = f", {failed} without a fit left out" if failed else ""
    noun = "layer" if len(alphas) == 1 else "layers"
    _title(ax, f"Power-law exponents of {len(alphas)} {noun}{note}", report.source)
    ax.legend(frameon=False, fontsize="small")
    _despine(ax)
    return ax


# --- one spectrum -------------------------------------------------------------------------------


def _find(report: Report, layer: int | str | None) -> LayerReport:
    if layer is None:
        for row in report.layers:
            if _fitted(row):
                return row
        raise ValueError("plot: 'report' has no layer with a fit. Hint: name one with 'layer'.")
    wanted = layer if isinstance(layer, str) else as_integer(layer)
    if wanted is None:
        raise TypeError(f"plot: 'layer' must be an id or a name, got {layer!r}.")
    found = [row for row in report.layers if wanted in (row.layer_id, row.name)]
    if not found:
        example = report.layers[0] if report.layers else None
        hint = f" Hint: e.g. {example.name!r} (id {example.layer_id})." if example else ""
        raise ValueError(f"plot: 'layer' must be a layer of the report, got {layer!r}.{hint}")
    # Slices of a convolution share its id: the first that can be drawn stands for them.
    return next((row for row in found if _fitted(row)), found[0])


def _plot_esd(row: LayerReport, ax: Axes | None) -> Axes:
    evals = row.esd.evals
    if row.esd.status is not Status.OK:
        raise ValueError(f"plot: 'layer' {row.name!r} has no spectrum: {row.esd.status}.")
    largest = float(evals[-1]) if len(evals) else 0.0
    if not largest > 0.0:
        raise ValueError(f"plot: 'layer' {row.name!r} has no positive eigenvalue to draw.")
    ax = ax if ax is not None else _new_axes(7.0, 4.8)
    shown = evals[evals > ESD_FLOOR * largest]
    # The fit of sub-matrices is one of other eigenvalues than these.
    of_windows = row.fit.estimator.startswith("farms")
    fitted = _fitted(row) and not of_windows
    edges = _log_edges(shown, row.fit.xmin if fitted else math.nan)
    # The density is that of all eigenvalues, so that the tail and the law share their scale.
    counts, _ = np.histogram(shown, edges)
    density = counts / np.diff(edges) / len(evals)
    in_tail = np.zeros(len(counts), bool)
    tail = ""
    if fitted:
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
    if fitted:
        heights = np.append(heights, _draw_law(ax, row))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(heights.min() / 3, heights.max() * 3)
    ax.set_xlabel(r"eigenvalue λ of $W^T W$")
    ax.set_ylabel("spectral density ρ(λ)")
    which = "" if row.slice_id is None else f", slice {row.slice_id}"
    hidden = len(evals) - len(shown)
    what = f"{_plain(row.kind)} {row.esd.N}x{row.esd.M}"
    note = f"; {hidden} eigenvalues ≈ 0 not shown" if hidden else ""
    reason = "" if _fitted(row) else f"; no fit ({str(row.status).replace('_', ' ')})"
    if of_windows and _fitted(row):
        reason = f"; fit of its sub-matrices: α = {row.alpha:.2f}"
    name = _plain(shorten(row.name, 60))
    ax.set_title(f"{name}{which}\n{what}{note}{reason}", fontsize="medium")
    ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="upper right")
    _despine(ax)
    return ax


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


# --- depth --------------------------------------------------------------------------------------


def _plot_depth(report: Report, ax: Axes | None) -> Axes:
    rows = report.layers
    if ax is None:
        ax = _new_axes(min(max(7.0, 0.24 * len(rows)), 14.0), 5.4)
    ax.axhspan(
        ALPHA_OVER_TRAINED,
        ALPHA_UNDER_TRAINED,
        color=BAND,
        zorder=0,
        label=f"well trained: {ALPHA_OVER_TRAINED:g} ≤ α ≤ {ALPHA_UNDER_TRAINED:g}",
    )
    where = [i for i, row in enumerate(rows) if _fitted(row)]
    ax.plot(where, [rows[i].alpha for i in where], color="#999999", linewidth=0.7, zorder=1)
    for number, kind in enumerate(dict.fromkeys(row.kind for row in rows)):
        own = [i for i in where if rows[i].kind == kind]
        if not own:
            continue
        ax.errorbar(
            own,
            [rows[i].alpha for i in own],
            yerr=[rows[i].fit.alpha_stderr for i in own],
            fmt="osD^vP*X"[number % 8],  # not by colour alone
            color=f"C{number % 10}",
            markersize=5 if len(rows) < 100 else 3,
            linewidth=1,
            capsize=2,
            label=_plain(kind),
        )
    top = max(rows[i].alpha + rows[i].fit.alpha_stderr for i in where)
    ax.set_ylim(0, 1.08 * max(top, ALPHA_UNDER_TRAINED + 1))
    failed = [i for i in range(len(rows)) if i not in set(where)]
    if failed:
        floor = np.zeros(len(failed))
        ax.plot(failed, floor, "x", color="black", clip_on=False, label="no fit")
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylabel("tail exponent α, with its standard error")
    ax.set_xlabel("layers in the order of the model")
    _label_rows(ax, report)
    _title(ax, "Power-law exponents by depth", report.source)
    ax.legend(frameon=False, fontsize="small", ncols=3)
    _despine(ax)
    return ax


def _label_rows(ax: Any, report: Report) -> None:
    rows = report.layers
    every = max(1, math.ceil(len(rows) / MOST_LABELS))
    ticks = range(0, len(rows), every)
    labels = [
        _plain(shorten(rows[i].name, LABEL_LENGTH))
        + ("" if rows[i].slice_id is None else f"[{rows[i].slice_id}]")
        for i in ticks
    ]
    ax.set_xticks(list(ticks), labels, rotation=90, fontsize=7)
