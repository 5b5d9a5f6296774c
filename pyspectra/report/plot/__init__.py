"""Pictures of reports, comparisons and trajectories; matplotlib loads on first use.

Each kind is one record of `PLOTS`. To add one, write a function that draws it and add its record:
the choices of every message, the documentation of the methods, ``--plot DIR`` and the checks derive
from it. No figure is kept or shown.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pyspectra._support.arguments import check_choice
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.report.columns import fitted
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.data import ReportData
from pyspectra.report.plot import alpha, course, depth, esd, pairs, random, xmin
from pyspectra.report.plot.pairs import FarLayer
from pyspectra.report.plot.spectrum import has_law
from pyspectra.report.trajectory_data import TrajectoryData
from pyspectra.types import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PLOTS", "Plot", "documents_plots", "draw_far", "kinds_of", "plot"]


@dataclass(frozen=True)
class Plot:
    """One kind of picture.

    Attributes
    ----------
    kind : str
        Its name, among those of one value.
    of : type
        What it is a picture of: reports, comparisons or trajectories.
    draw : callable
        ``draw(value, layer, ax)`` draws and returns the axes; `layer` and `ax` may be None, and
        without axes a new figure is made.
    help : str
        What it shows, in one sentence.
    drawable : callable or None
        Of a picture of one layer, which may be named: tells whether a row has what it shows. None
        for pictures of the whole.
    """

    kind: str
    of: type
    draw: Callable[[Any, Any, Any], Any]
    help: str
    drawable: Callable[[Any], bool] | None = None

    @property
    def of_layer(self) -> bool:
        """Whether it shows one layer."""
        return self.drawable is not None


def _has_spectrum(row: Any) -> bool:
    return bool(row.esd.status is Status.OK and len(row.esd.evals) and row.esd.evals[-1] > 0.0)


def _has_law(row: Any) -> bool:
    return has_law(row) and fitted(row)


PLOTS = (
    Plot("alpha", ReportData, alpha.draw, "Histogram of alpha over the layers."),
    Plot("depth", ReportData, depth.draw,
         "Alpha of each layer by block, a line a role, with its standard error."),
    Plot("esd", ReportData, esd.draw,
         "Eigenvalues of one layer on log axes, with the fitted power law and its interval.",
         _has_spectrum),
    Plot("esd_linear", ReportData, esd.draw_linear,
         "The same with a linear axis of counts.", _has_spectrum),
    Plot("xmin", ReportData, xmin.draw,
         "Distance D of one layer for each start of its tail, and the one chosen.", _has_law),
    Plot("mp", ReportData, random.draw_mp,
         "Eigenvalues of one layer with the Marchenko-Pastur law and spikes (mp_fit=True).",
         random.has_mp),
    Plot("randomized", ReportData, random.draw_randomized,
         "Eigenvalues of one layer, of its entries in random order, and traps (randomize=True).",
         random.has_randomized),
    Plot("alpha", ComparisonData, alpha.draw_both, "Histograms of alpha of both models."),
    Plot("shift", ComparisonData, pairs.draw_shift,
         "Shift of alpha of each layer with its 95 % interval."),
    Plot("distance", ComparisonData, pairs.draw_distances,
         "Kolmogorov-Smirnov distance between the two spectra of each layer."),
    Plot("esd", ComparisonData, pairs.draw_esd,
         "Spectra of one layer in both models, with both fits.", pairs.has_both),
    Plot("alpha", TrajectoryData, course.draw_alpha,
         "Alpha of each layer against the step, and the mean."),
    Plot("norm", TrajectoryData, course.draw_norm,
         "Change of log10 of the spectral norm of each layer against the step."),
    Plot("rank", TrajectoryData, course.draw_rank,
         "Stable rank of each layer against the step."),
)  # fmt: skip


def kinds_of(value: type) -> tuple[Plot, ...]:
    """Return the kinds of pictures of a class of values."""
    return tuple(known for known in PLOTS if issubclass(value, known.of))


_Function = TypeVar("_Function", bound=Callable[..., Any])


def documents_plots(of: type) -> Callable[[_Function], _Function]:
    """Complete the documentation of a method: ``{plots}`` becomes the kinds of a class."""

    def complete(function: _Function) -> _Function:
        if function.__doc__:  # python -OO strips it
            told = " ".join(f'``"{known.kind}"``: {known.help}' for known in kinds_of(of))
            text = textwrap.fill(told, 96, break_on_hyphens=False)
            function.__doc__ = function.__doc__.replace(
                "{plots}", textwrap.indent(text, " " * 12).lstrip()
            )
        return function

    return complete


def plot(
    value: Any, kind: str = "alpha", layer: int | str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a report, a comparison or a trajectory.

    Parameters
    ----------
    value : Report, Comparison or Trajectory
    kind : str
        What to draw: one of `kinds_of` its class.
    layer : int or str, optional
        Id or name of the layer where one is drawn; the first that has what is drawn by default.
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
    known = kinds_of(type(value))
    check_choice("plot", "kind", kind, [record.kind for record in known])
    found = next(record for record in known if record.kind == kind)
    if layer is not None and not found.of_layer:
        fitting = " or ".join(repr(record.kind) for record in known if record.of_layer)
        requirement = f"come with kind {fitting}" if fitting else "be None for these pictures"
        raise ArgumentValueError("plot", "layer", requirement, f"kind {kind!r}")
    _check_axes(ax)
    with called_as("plot"):
        axes: Axes = found.draw(value, layer, ax)
    return axes


def draw_far(method: str, layers: Sequence[FarLayer], ax: Axes | None = None) -> Axes:
    """Draw the distances of `pyspectra.distances`; `method` says what they are."""
    _check_axes(ax)
    with called_as("plot"):
        return pairs.draw_far(method, layers, ax)


def _check_axes(ax: Any) -> None:
    if ax is not None and not hasattr(ax, "set_title"):
        raise ArgumentTypeError("plot", "ax", "be matplotlib Axes or None", type(ax).__name__)
