"""Two models side by side: differences with errors, and a ranking only where one can be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra.report.compared_layers import LayerComparison
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.comparison_words import ranking_sentences, sentences
from pyspectra.report.outputs import TableOutputs, plain
from pyspectra.report.plot import documents_plots, plot
from pyspectra.report.plot.folder import SavesPlots
from pyspectra.report.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console


JSON_SCHEMA = "pyspectra.comparison/1"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(ComparisonData, TableOutputs, SavesPlots):
    """What `pyspectra.compare` returns: two reports, and what differs between them.

    Attributes
    ----------
    a, b : Report
    names : tuple of two str
        What the models are called in sentences.
    layers : tuple of LayerComparison
        The layers that both have, in the order of the first.
    only_in_a, only_in_b : tuple of str
        Names of the layers that the other model lacks, whether they were analysed or not.
    equal_architecture : bool
        Whether both have the same layers, of the same kinds and shapes.
    notes : tuple of str
        What was done to names so that they agree.
    correlation : float
        Median over the layers of the correlation of the weights.
    difference : Report or None
        The report of the second less the first, as ``analyze(b, base_model=a)`` makes it, where
        their weights correlate: one was trained from the other.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> comparison = ps.compare({"fc.weight": W}, {"fc.weight": 2 * W}, names=("old", "new"))
    >>> len(comparison), comparison.summary()["n_compared"]
    (1, 0)
    >>> comparison.ranking
    'No ranking: fewer than 3 layers can be compared.'
    """

    a: Report
    b: Report
    difference: Report | None = None

    @property
    def ranking(self) -> str:
        """Which model alpha would rank first, with what is known of such rankings; or why none."""
        return " ".join(ranking_sentences(self))

    @property
    def text(self) -> str:
        """A few sentences: what differs, how sure that is, outliers, and a ranking or none."""
        return " ".join(sentences(self))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"<Comparison of {self.names[0]} and {self.names[1]}: {len(self.layers)} layers, "
            f"{len(self.compared)} compared>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the eigenvalues as plain values; NaN and infinity become None."""
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "names": self.names,
                "sources": [self.a.source, self.b.source],
                "options": self.a.options.to_dict(),
                "notes": self.notes,
                "equal_architecture": self.equal_architecture,
                "only_in_a": self.only_in_a,
                "only_in_b": self.only_in_b,
                "verdicts": [self.a.verdict.label, self.b.verdict.label],
                "coverages": [vars(report.coverage) for report in (self.a, self.b)],
                "text": self.text,
                "ranking": self.ranking,
                "summary": self.summary(),
                "histogram": vars(self.histogram),
                "outliers": [vars(found) for found in self.outliers],
                "difference": None if self.difference is None else self.difference.to_dict(),
                "layers": [
                    {**row, **_intruders(x)} for row, x in zip(self.rows(), self, strict=True)
                ],
            }
        )
        return found

    def to_html(self) -> str:
        """Return the comparison as a page: one HTML file that needs nothing but itself.

        Both verdicts, alpha of both models and its shifts read without a script and print; with one
        the table sorts, filters and searches, and a layer opens with both spectra.
        """
        from pyspectra.report.html.comparison_page import comparison_page

        return comparison_page(self)

    def _repr_html_(self) -> str:
        """Return the comparison as a notebook shows it: its sentences and a table."""
        from pyspectra.report.html.notebook import comparison_note

        return comparison_note(self, self.text)

    @documents_plots(ComparisonData)
    def plot(
        self, kind: str = "alpha", *, layer: str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw the comparison with matplotlib.

        Parameters
        ----------
        kind : str
            {plots}
        layer : str, optional
            Its name where one layer is drawn; the first that both have by default.
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
        >>> ps.compare({"fc.weight": W}, {"fc.weight": 2 * W}).plot("esd").get_xscale()
        'log'
        """
        return plot(self, kind, layer, ax)

    def print(self, console: Console | None = None) -> None:
        """Print the table of layers and the sentences.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        """
        from rich.console import Console

        from pyspectra.report.comparison_table import render

        render(self, Console() if console is None else console)


def _intruders(layer: LayerComparison) -> dict[str, Any]:
    found = layer.intruders
    return {} if found is None else {"intruders": {**vars(found), "indices": found.indices}}
