"""A spectrum beside what random matrices have: the Marchenko-Pastur law, permuted entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra._support.text import counted
from pyspectra.errors import ArgumentValueError
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.report.plot.axes import (
    FIT,
    GREY,
    REST,
    TAIL,
    colour,
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
    draw_bars,
    hidden_words,
    require_spectrum,
    size_words,
)
from pyspectra.types import FloatArray, MPFit, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def has_mp(row: LayerReport) -> bool:
    """Tell whether a row has a Marchenko-Pastur fit to draw."""
    return row.mp is not None and row.mp.status is Status.OK


def has_randomized(row: LayerReport) -> bool:
    """Tell whether a row has the spectrum of its permuted entries."""
    return row.randomized is not None and row.esd.status is Status.OK


def draw_mp(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw a spectrum, the Marchenko-Pastur law of its bulk, and the spikes above it."""
    row = _row(report, layer, has_mp, "mp_fit")
    mp = row.mp
    assert mp is not None
    ax = ax if ax is not None else new_axes()
    bins = bins_of(row.esd.evals, border=mp.spike_threshold)
    counts = bins.counts(row.esd.evals)
    spikes = bins.edges[:-1] >= mp.spike_threshold * (1 - 1e-12)
    hidden = hidden_words(row, bins)
    all_of = f"{len(row.esd.evals)} eigenvalues" + (f", {hidden}" if hidden else "")
    draw_bars(ax, bins, counts, ~spikes, color=REST, label=all_of)
    draw_bars(ax, bins, counts, spikes, color=TAIL, label=counted(mp.n_spikes, "spike"))
    share = (len(row.esd.evals) - mp.n_spikes) / len(row.esd.evals)
    top = _law(ax, mp, bins, share * len(row.esd.evals), "Marchenko-Pastur", FIT)
    upright(ax, mp.spike_threshold, color=FIT, linestyle=":", linewidth=sizes(ax).line)
    title(ax, row.label, f"{size_words(row)}, {named(report)}")
    return _end(ax, bins, max(top, float(counts.max())))


def draw_randomized(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw a spectrum, that of the same entries in random order, and what stands out even then."""
    row = _row(report, layer, has_randomized, "randomize")
    found = row.randomized
    assert found is not None
    ax = ax if ax is not None else new_axes()
    bins = bins_of(row.esd.evals, found.evals)
    own = sizes(ax)
    counts, random = bins.counts(row.esd.evals), bins.counts(found.evals)
    everywhere = np.ones(len(counts), bool)
    draw_bars(ax, bins, counts, everywhere, color=REST, label=f"{len(row.esd.evals)} eigenvalues")
    ax.stairs(
        random, bins.edges, color=colour(0), linewidth=own.line, linestyle="--", zorder=4,
        label="entries in random order",
    )  # fmt: skip
    top = 0.0
    if found.mp.status is Status.OK:
        n = len(found.evals) - max(found.mp.n_spikes, 0)
        top = _law(ax, found.mp, bins, n, "Marchenko-Pastur of these", FIT)
        traps = found.evals[found.evals > found.mp.spike_threshold]
        label = _trap_words(len(traps), found.n_means)
        if len(traps):
            ax.plot(
                traps, np.zeros(len(traps)), "^", color="black", markersize=1.4 * own.marker,
                clip_on=False, zorder=6, label=label,
            )  # fmt: skip
    for value, tint in ((row.esd.evals[-1], GREY), (found.evals[-1], colour(0))):
        upright(ax, float(value), color=tint, linestyle=":", linewidth=0.8 * own.line)
    title(ax, row.label, f"{size_words(row)}, {named(report)}")
    return _end(ax, bins, max(top, float(counts.max()), float(random.max())))


def _trap_words(n: int, n_means: int) -> str:
    traps = counted(max(0, n - n_means), "trap")
    return traps if not n_means else f"{traps} and {counted(n_means, 'mean')}"


def _row(report: ReportData, layer: int | str | None, has: Any, option: str) -> LayerReport:
    """Return the row to draw: the one that is named, else the first that has what is drawn."""
    rows = report.layers if layer is None else (report.layer(layer),)
    for row in rows:
        if has(row):
            require_spectrum(row)
            return row
    got = "none" if layer is None else f"{rows[0].name!r}, which has none"
    requirement = f"have a layer analysed with {option}=True"
    argument = "report" if layer is None else "layer"
    raise ArgumentValueError("plot", argument, requirement, got, f"analyze(..., {option}=True)")


def _law(ax: Any, mp: MPFit, bins: Bins, n: float, label: str, tint: str) -> float:
    """Draw the law of `n` eigenvalues as counts of these bins; return its top."""
    low, high = max(mp.lambda_minus, bins.low), mp.lambda_plus
    if not low < high:
        return 0.0
    x = np.geomspace(low, high, 400)
    width = float(np.diff(np.log(bins.edges)).max())
    law = n * marchenko_pastur_density(mp, x) * x * width
    ax.plot(x, law, color=tint, linewidth=sizes(ax).line, zorder=5, label=label)
    return float(law.max())


def marchenko_pastur_density(mp: MPFit, x: FloatArray) -> FloatArray:
    """Return the density of the law between its edges.

    Notes
    -----
    ``sqrt((b - x) (x - a)) / (2 pi v M x)`` with the edges a and b, and v the variance of the
    entries: ``sqrt(a) + sqrt(b) = 2 sqrt(v N)``.
    """
    a, b = mp.lambda_minus, mp.lambda_plus
    variance = ((math.sqrt(max(a, 0.0)) + math.sqrt(b)) / 2.0) ** 2 / max(mp.N, mp.M)
    inside = np.maximum((b - x) * (x - a), 0.0)
    law: FloatArray = np.sqrt(inside) / (2.0 * math.pi * variance * min(mp.N, mp.M) * x)
    return law


def _end(ax: Any, bins: Bins, top: float) -> Axes:
    ax.set_xscale("log")
    ax.set_xlim(bins.low, bins.high)
    ax.set_ylim(0.0, 1.05 * top)
    finish(ax, r"eigenvalue λ of $W^T W$", "eigenvalues in a bin")
    found: Axes = ax
    return found
