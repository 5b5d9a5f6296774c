"""What every picture shares: figures for a paper's column, colours, titles, legends, log bins.

Sizes of letters and lines are those of a column of 3.4 inches; on axes that are wider than 4 inches
they grow a little. A legend stands above what is drawn: the upper limit moves to make room for it,
and vertical lines end below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import model_name, pictured, shorten
from pyspectra.errors import ArgumentValueError, missing_dependency
from pyspectra.report.columns import fitted
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN = (3.4, 2.6)
"""Width and height of a figure, in inches: a column of a paper."""
DPI = 200
DECADES = 30.0  # a factor, from which on a log axis has numbers enough at its decades
WIDE = 4.0  # inches, from which on axes are no column

# Okabe and Ito's colours, which the colour-blind tell apart; the lightest last. Never alone: each
# has its marker and its line.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b5b5b", "#8c6d1f",
)  # fmt: skip
MARKERS = "osD^v<>Pph"  # which are seen to be hollow when small
LINES = ("-", "--", ":", "-.")

BAND = "#e4f0e4"
REST = "#b9c3d0"
TAIL = "#e69f00"
FIT = "#b3261e"
GREY = "#777777"

_MODEL = "pyspectra-model-"
_BAND = "pyspectra-band"
_BAND_UPRIGHT = "pyspectra-band-upright"
_UPRIGHT = "pyspectra-upright"


@dataclass(frozen=True)
class Sizes:
    """Sizes in points."""

    title: float = 7.5
    label: float = 7.5
    tick: float = 6.5
    legend: float = 6.3
    line: float = 1.2
    marker: float = 3.2


_LARGE = Sizes(title=10.0, label=9.5, tick=8.5, legend=8.5, line=1.6, marker=4.5)


def new_axes(height: float = COLUMN[1]) -> Axes:
    """Return the axes of a new figure of a column's width, which belongs to the caller."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", "plot", extra="plot") from error
    # Not pyplot's: that would keep every figure alive, and pick a backend for the whole process.
    figure = Figure(figsize=(COLUMN[0], height), dpi=DPI, layout="constrained")
    axes: Axes = figure.add_subplot()
    return axes


def inches(ax: Any) -> tuple[float, float]:
    """Return width and height of axes, about: before the layout is made."""
    box = ax.get_position()
    width, height = ax.figure.get_size_inches()
    return float(box.width * width), float(box.height * height)


def sizes(ax: Any) -> Sizes:
    """Return the sizes of letters and lines on axes of this width."""
    return Sizes() if inches(ax)[0] < WIDE else _LARGE


# --- models on one axes -------------------------------------------------------------------------


def models_on(ax: Any) -> int:
    """Return how many models are drawn on these axes, by what they were marked with."""
    gids = {child.get_gid() for child in ax.get_children()}
    return sum(isinstance(gid, str) and gid.startswith(_MODEL) for gid in gids)


def mark(number: int, *artists: Any) -> None:
    """Mark artists as those of the model of that number."""
    for artist in artists:
        artist.set_gid(f"{_MODEL}{number}")


def colour(number: int) -> str:
    """Return the colour of a model, a layer or a role, by its number."""
    return PALETTE[number % len(PALETTE)]


# --- what stands around -------------------------------------------------------------------------


def band(ax: Any, *, upright: bool) -> None:
    """Shade the typical range of alpha, once."""
    if any(child.get_gid() in (_BAND, _BAND_UPRIGHT) for child in ax.patches):
        return
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    label = f"typical: {low:g} ≤ α ≤ {high:g}"
    from matplotlib.patches import Rectangle

    corner, size = ((low, 0.0), (high - low, 1.0)) if upright else ((0.0, low), (1.0, high - low))
    across = ax.get_xaxis_transform() if upright else ax.get_yaxis_transform()
    shade = Rectangle(
        corner, *size, transform=across, color=BAND, linewidth=0.0, zorder=0, label=label
    )
    shade.set_gid(_BAND_UPRIGHT if upright else _BAND)
    ax.add_patch(shade)


def upright(ax: Any, x: float, **style: Any) -> Any:
    """Draw a vertical line that ends below the legend."""
    (line,) = ax.plot([x, x], [0.0, 1.0], transform=ax.get_xaxis_transform(), **style)
    line.set_gid(_UPRIGHT)
    return line


def named(report: ReportData, width: int = 40) -> str:
    """Return what a model is called in a picture: the end of its path."""
    return pictured(shorten(model_name(report.source), width))


def title(ax: Any, *lines: str) -> None:
    """Write what is shown above the picture, each line shortened to the width of the axes."""
    size = sizes(ax).title
    room = max(20, int(inches(ax)[0] * 72.0 / (0.53 * size)))
    text = "\n".join(pictured(shorten(line, room)) for line in lines if line)
    # As the title in the middle, which `get_title` returns, but at the left.
    ax.set_title(text, fontsize=size, x=0.0, ha="left", linespacing=1.25)


def finish(ax: Any, xlabel: str, ylabel: str, *, columns: int = 1) -> None:
    """Label the axes, put the legend above what is drawn, take two borders away."""
    from matplotlib.ticker import NullFormatter

    own = sizes(ax)
    ax.set_xlabel(xlabel, fontsize=own.label)
    ax.set_ylabel(ylabel, fontsize=own.label)
    ax.tick_params(which="both", labelsize=own.tick)
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_linewidth(0.6)
    ax.tick_params(which="major", width=0.6, length=3.0)
    ax.tick_params(which="minor", width=0.4, length=1.8)
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if axis.get_scale() == "log" and limits[1] > DECADES * limits[0]:
            # Between decades there is nothing to read, and laying out nothing takes half the time.
            axis.set_minor_formatter(NullFormatter())
    _legend(ax, own, columns)


def _legend(ax: Any, own: Sizes, columns: int) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    ax.legend(
        handles, labels, frameon=False, fontsize=own.legend, loc="upper right", ncols=columns,
        handlelength=1.6, handletextpad=0.5, columnspacing=1.0, labelspacing=0.25,
        borderaxespad=0.1, borderpad=0.2,
    )  # fmt: skip
    rows = math.ceil(len(handles) / columns)
    share = min(0.5, (rows * own.legend * 1.32 + 4.0) / (inches(ax)[1] * 72.0))
    _make_room(ax, share)
    for line in ax.lines:
        if line.get_gid() == _UPRIGHT:
            line.set_ydata([0.0, 1.0 - share])
    for patch in ax.patches:
        if patch.get_gid() == _BAND_UPRIGHT:
            patch.set_height(1.0 - share)


def _make_room(ax: Any, share: float) -> None:
    """Raise the upper limit so that what is drawn leaves this share of the height free."""
    low, high = ax.get_ylim()
    forward, back = _scale(ax.get_yscale())
    bottom, top = forward(low), forward(high)
    ax.set_ylim(low, back(bottom + (top - bottom) / (1.0 - share)))


def _scale(name: str) -> tuple[Callable[[float], float], Callable[[float], float]]:
    if name == "log":
        return math.log10, lambda x: float(10.0**x)
    return float, float


def require_fit(report: ReportData) -> None:
    """Raise ValueError unless some row has an alpha to draw."""
    if not any(map(fitted, report.layers)):
        got = f"{len(report.layers)} rows, all failed"
        raise ArgumentValueError("plot", "report", "have a fitted alpha to draw", got)
