"""Pictures of a report; matplotlib loads on first use, and no figure is kept or shown.

Each kind is one record of `PLOTS` and one module. To add one, write a module with a function
``draw`` and add its record here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import check_choice
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.data import ReportData
from pyspectra.report.plot import alpha, depth, esd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PLOTS", "Plot", "plot"]


@dataclass(frozen=True)
class Plot:
    """One kind of picture.

    Attributes
    ----------
    kind : str
        Its name.
    draw : callable
        ``draw(report, layer, ax)`` draws and returns the axes; `layer` and `ax` may be None, and
        without axes a new figure is made.
    help : str
        What it shows, in one sentence.
    of_layer : bool
        Whether it shows one layer, which may be named.
    """

    kind: str
    draw: Callable[[ReportData, Any, Any], Any]
    help: str
    of_layer: bool = False


PLOTS = (
    Plot("alpha", alpha.draw, "Histogram of alpha over the layers."),
    Plot("esd", esd.draw, "Eigenvalues of one layer with the fitted power law.", of_layer=True),
    Plot("depth", depth.draw, "Alpha of each layer in order, with its standard error."),
)


def plot(
    report: ReportData, kind: str = "alpha", layer: int | str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a report.

    Parameters
    ----------
    report : Report
        What `pyspectra.analyze` returned.
    kind : str
        What to draw: one of `PLOTS`.
    layer : int or str, optional
        Id or name of the layer for ``"esd"``; the first that has a fit by default.
    ax : matplotlib.axes.Axes, optional
        The axes to draw in; by default those of a new figure, which belongs to the caller
        (``ax.figure``).

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
    check_choice("plot", "kind", kind, [known.kind for known in PLOTS])
    found = next(known for known in PLOTS if known.kind == kind)
    if layer is not None and not found.of_layer:
        fitting = " or ".join(repr(known.kind) for known in PLOTS if known.of_layer)
        raise ArgumentValueError("plot", "layer", f"come with kind {fitting}", f"kind {kind!r}")
    if ax is not None and not hasattr(ax, "set_title"):
        raise ArgumentTypeError("plot", "ax", "be matplotlib Axes or None", type(ax).__name__)
    with called_as("plot"):
        axes: Axes = found.draw(report, layer, ax)
    return axes
