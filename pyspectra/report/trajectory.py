"""A model from checkpoint to checkpoint: what became of each layer, and the ways out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra.report.comparison import Comparison
from pyspectra.report.outputs import TableOutputs, plain
from pyspectra.report.plot import documents_plots, plot
from pyspectra.report.plot.folder import SavesPlots
from pyspectra.report.report import Report
from pyspectra.report.trajectory_data import TrajectoryData
from pyspectra.report.trajectory_words import sentences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console


JSON_SCHEMA = "pyspectra.trajectory/1"


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory(TrajectoryData, TableOutputs, SavesPlots):
    """What `pyspectra.compare` returns for several checkpoints: what became of each layer.

    Attributes
    ----------
    reports : tuple of Report
        One for each checkpoint, oldest first.
    names : tuple of str
        What the checkpoints are called.
    steps : tuple of float
        Their steps, by the numbers in their names, or 0, 1, 2 and so on.
    layers : tuple of LayerTrajectory
        Every layer that some checkpoint has, in the order of the first, then those that came later.
    ends : Comparison
        The last checkpoint against the first.
    notes : tuple of str
        What was done to names so that they agree.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> run = [{"fc.weight": c * W} for c in (1.0, 2.0, 4.0)]
    >>> found = ps.compare(run, names=["step-1", "step-10", "step-100"])
    >>> found.steps, [round(entry["log_spectral_norm"], 2) for entry in found.summary()]
    ((1.0, 10.0, 100.0), [1.14, 1.45, 1.75])
    """

    reports: tuple[Report, ...]
    ends: Comparison

    @property
    def text(self) -> str:
        """A few sentences: what was followed, how alpha went, and how the ends differ."""
        return " ".join(sentences(self))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Trajectory of {len(self.reports)} checkpoints: {len(self.layers)} layers>"

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the eigenvalues as plain values; NaN and infinity become None."""
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "names": self.names,
                "steps": self.steps,
                "sources": [report.source for report in self.reports],
                "options": self.reports[0].options.to_dict(),
                "notes": self.notes,
                "text": self.text,
                "summary": self.summary(),
                "missing": self.missing,
                "ends": self.ends.to_dict(),
                "layers": self.rows(),
            }
        )
        return found

    def to_html(self) -> str:
        """Return the trajectory as a page: one HTML file that needs nothing but itself.

        Alpha and norms by step read without a script and print; with one the table of layers sorts,
        filters and searches, and a layer opens with its first and its last spectrum.
        """
        from pyspectra.report.html.trajectory_page import trajectory_page

        return trajectory_page(self)

    def _repr_html_(self) -> str:
        """Return the trajectory as a notebook shows it: its sentences and a table."""
        from pyspectra.report.html.notebook import trajectory_note

        return trajectory_note(self, self.text)

    @documents_plots(TrajectoryData)
    def plot(self, kind: str = "alpha", *, ax: Axes | None = None) -> Axes:
        """Draw the trajectory with matplotlib.

        Parameters
        ----------
        kind : str
            {plots}
        ax : matplotlib.axes.Axes, optional
            The axes to draw in; by default those of a new figure of a paper's column.

        Returns
        -------
        matplotlib.axes.Axes
            ``ax.figure.savefig(path)`` writes the figure.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError, TypeError
            If an argument is wrong, or there is nothing to draw.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> W = np.random.default_rng(0).standard_normal((60, 40))
        >>> ps.compare([{"fc.weight": W}, {"fc.weight": 2 * W}]).plot("norm").get_xlabel()
        'checkpoint'
        """
        return plot(self, kind, ax=ax)

    def print(self, console: Console | None = None) -> None:
        """Print a row for each checkpoint, and the sentences.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        """
        from rich.console import Console

        from pyspectra.report.trajectory_table import render

        render(self, Console() if console is None else console)
