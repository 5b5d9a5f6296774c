"""What every picture of a report shares: figures, titles, and the band of typical alphas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspectra._support.text import pictured, shorten
from pyspectra.errors import ArgumentValueError, missing_dependency
from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = "#dcefdc"


def new_axes(width: float, height: float) -> Axes:
    """Return the axes of a new figure, which belongs to the caller."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "plot", extra="plot") from error
    # Not pyplot's: that would keep every figure alive, and pick a backend for the whole process.
    axes: Axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    return axes


def title(ax: Axes, text: str, source: str) -> None:
    """Write what is shown, and of what model, above the picture."""
    ax.set_title(f"{text}\n{pictured(shorten(source, 70))}", fontsize="medium")


def despine(ax: Axes) -> None:
    """Take away the upper and the right border."""
    ax.spines[["top", "right"]].set_visible(False)


def band_label() -> str:
    """Say what the shaded band is."""
    return f"typical: {THRESHOLDS.alpha_low:g} ≤ α ≤ {THRESHOLDS.alpha_high:g}"


def require_fit(report: ReportData) -> None:
    """Raise ValueError unless some row has an alpha to draw."""
    if not any(map(fitted, report.layers)):
        got = f"{len(report.layers)} rows, all failed"
        raise ArgumentValueError("plot", "report", "have a fitted alpha to draw", got)
