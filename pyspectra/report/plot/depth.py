"""Alpha of each layer by its depth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra._support.text import pictured, shorten
from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.plot.axes import (
    BAND,
    band_label,
    despine,
    new_axes,
    require_fit,
    title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 45  # rows that a tick label each still leaves readable
LABEL_LENGTH = 30


def draw(report: ReportData, layer: int | str | None, ax: Axes | None) -> Axes:
    """Draw alpha of each layer, in the order of the model."""
    require_fit(report)
    rows = report.layers
    if ax is None:
        ax = new_axes(min(max(7.0, 0.24 * len(rows)), 14.0), 5.4)
    ax.axhspan(
        THRESHOLDS.alpha_low,
        THRESHOLDS.alpha_high,
        color=BAND,
        zorder=0,
        label=band_label(),
    )
    drawn = [i for i, row in enumerate(rows) if fitted(row)]
    ax.plot(drawn, [rows[i].alpha for i in drawn], color="#999999", linewidth=0.7, zorder=1)
    for number, kind in enumerate(dict.fromkeys(row.kind for row in rows)):
        own = [i for i in drawn if rows[i].kind == kind]
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
            label=pictured(kind),
        )
    top = max(rows[i].alpha + rows[i].fit.alpha_stderr for i in drawn)
    ax.set_ylim(0, 1.08 * max(top, THRESHOLDS.alpha_high + 1))
    failed = [i for i in range(len(rows)) if i not in set(drawn)]
    if failed:
        floor = np.zeros(len(failed))
        ax.plot(failed, floor, "x", color="black", clip_on=False, label="no fit")
    ax.set_xlim(-0.6, len(rows) - 0.4)
    ax.set_ylabel("tail exponent α, with its standard error")
    ax.set_xlabel("layers in the order of the model")
    _label_rows(ax, report)
    title(ax, "Power-law exponents by depth", report.source)
    ax.legend(frameon=False, fontsize="small", ncols=3)
    despine(ax)
    return ax


def _label_rows(ax: Any, report: ReportData) -> None:
    rows = report.layers
    every = max(1, math.ceil(len(rows) / MOST_LABELS))
    ticks = range(0, len(rows), every)
    labels = [
        pictured(shorten(rows[i].name, LABEL_LENGTH))
        + ("" if rows[i].slice_id is None else f"[{rows[i].slice_id}]")
        for i in ticks
    ]
    ax.set_xticks(list(ticks), labels, rotation=90, fontsize=7)
