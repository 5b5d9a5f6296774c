"""The report of an analysis: its values, and the ways out of them (pandas, CSV, JSON, plots)."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import check_output, check_path
from pyspectra._support.files import write_text
from pyspectra.errors import missing_dependency
from pyspectra.report.data import ReportData
from pyspectra.report.findings import Finding
from pyspectra.report.layer import LayerReport
from pyspectra.report.outputs import plain
from pyspectra.report.plot import documents_plots, plot
from pyspectra.report.plot.folder import SavesPlots

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from rich.console import Console


JSON_SCHEMA = "pyspectra.report/1"


@dataclass(frozen=True, eq=False, repr=False)
class Report(ReportData, SavesPlots):
    """The diagnosis of a model: its values (`ReportData`), and the ways out of them.

    Attributes
    ----------
    layers : tuple of LayerReport
    skipped : tuple of SkippedLayer
        Every tensor that was not analysed, each with its reason.
    source, format : str
        What was analysed, and how it was stored.
    options : AnalyzeOptions
    notes : tuple of str
        What a reader should know besides, as clauses: how names of two models were matched.
    files : tuple of str
        What was read: weights, index, configuration. No method writes over one of these.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
    >>> len(report), report["fc"].esd.M
    (1, 40)
    """

    def to_pandas(self, dialect: str = "pyspectra") -> pandas.DataFrame:
        """Return the layers as a pandas DataFrame.

        Parameters
        ----------
        dialect : {"pyspectra", "weightwatcher"}
            ``"weightwatcher"`` gives the columns, names and conventions of WeightWatcher 0.7.7: its
            ``spectral_norm`` is lambda_max, failed fits are -1, and for convolutions with
            out < in and an even receptive field N and M are swapped.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        ValueError
            If `dialect` is unknown.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.to_pandas()[["name", "M"]].to_dict("list")
        {'name': ['fc'], 'M': [40]}
        """
        rows = self.rows(dialect)
        try:
            import pandas
        except ImportError as error:
            raise missing_dependency("pandas", "Report.to_pandas", extra="pandas") from error
        return pandas.DataFrame(rows, columns=list(self.columns(dialect)))

    def to_csv(self, path: str | PathLike[str] | None = None, dialect: str = "pyspectra") -> str:
        """Return the layers as CSV, and write them to `path` if one is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write, whole or not at all.
        dialect : {"pyspectra", "weightwatcher"}
            Which columns; see `to_pandas`.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.to_csv().splitlines()[1][:4]
        '1,fc'
        """
        out = io.StringIO()
        writer = csv.DictWriter(out, list(self.columns(dialect)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows(dialect))
        if path is not None:
            write_text(check_output("Report.to_csv", "path", path, self.files), out.getvalue())
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the eigenvalues as plain values; NaN and infinity become None."""
        verdict = self.verdict
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "source": self.source,
                "format": self.format,
                "options": self.options.to_dict(),
                "notes": self.notes,
                "coverage": {**vars(self.coverage), "share": self.coverage.share},
                "verdict": vars(verdict),
                "summary": self.summary(),
                "layers": self.rows(),
                "skipped": [
                    {
                        "name": s.name,
                        "shape": s.shape,
                        "code": s.skip.code,
                        "reason": s.reason,
                        "failed": s.failed,
                        "parameters": s.parameters,
                        "matrix": s.is_matrix,
                    }
                    for s in self.skipped
                ],
                "findings": [_fields(finding) for finding in self.findings],
            }
        )
        return found

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path` if one is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write, whole or not at all.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.to_json().splitlines()[1]
        ' "schema": "pyspectra.report/1",'
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        if path is not None:
            write_text(check_output("Report.to_json", "path", path, self.files), text)
        return text

    def save(self, path: str | PathLike[str]) -> None:
        """Write the whole report to one file, eigenvalues included; `load` brings it back.

        Parameters
        ----------
        path : str or path
            The file to write (atomically); any name will do, ``model.npz`` lets ``numpy.load`` show
            the arrays.

        Raises
        ------
        OSError
            If it cannot be written; an existing file is then unchanged.
        """
        from pyspectra.report.saved import save

        save(self, check_output("Report.save", "path", path, self.files))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Report:
        """Return the report that `save` wrote: equal to the one that was saved.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        FormatError
            If the file is no saved report, one of a later version, or damaged. Nothing in it is
            executed, and it takes no more memory than its size.
        FileNotFoundError
            If there is no such file.

        Examples
        --------
        >>> import os, tempfile, numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> path = os.path.join(tempfile.mkdtemp(), "report.npz")
        >>> report.save(path)
        >>> ps.Report.load(path) == report
        True
        """
        from pyspectra.report.saved import load

        return load(cls, check_path("Report.load", "path", path))

    def to_markdown(
        self,
        path: str | PathLike[str] | None = None,
        *,
        everything: bool = False,
        top: int | None = None,
        sort: str | None = None,
        reverse: bool = False,
        by: str | None = None,
    ) -> str:
        """Return the verdict and the table as Markdown, and write it to `path` if one is given.

        Parameters
        ----------
        path : str or path, optional
            The file to write, whole or not at all.
        everything, top, sort, reverse, by
            Which layers, as in `Report.print`.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.to_markdown().splitlines()[6][:11]
        '| id | laye'
        """
        from pyspectra.report.markdown import markdown
        from pyspectra.report.shown import Shown

        wanted = Shown(everything, top, sort, reverse, by)
        wanted.check("Report.to_markdown")
        text = markdown(self, wanted)
        if path is not None:
            write_text(check_output("Report.to_markdown", "path", path, self.files), text)
        return text

    def to_html(self) -> str:
        """Return the report as a page: one HTML file that needs nothing but itself.

        Verdict, overview and the table of layers read without a script and print; with one the
        table sorts, filters and searches, and a layer opens with its spectrum. Nothing is loaded:
        a policy in the page allows only the scripts and the style that it brings.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.to_html()[:15]
        '<!DOCTYPE html>'
        """
        from pyspectra.report.html.report_page import report_page

        return report_page(self)

    def save_html(self, path: str | PathLike[str]) -> None:
        """Write the page of `to_html` to a file.

        Parameters
        ----------
        path : str or path
            The file to write, whole or not at all.

        Raises
        ------
        ArgumentValueError
            If it is one of the files that were analysed.
        OSError
            If it cannot be written; an existing file is then unchanged.

        Examples
        --------
        >>> import os, tempfile, numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> path = os.path.join(tempfile.mkdtemp(), "report.html")
        >>> report.save_html(path)
        >>> os.path.getsize(path) < 200_000
        True
        """
        write_text(check_output("Report.save_html", "path", path, self.files), self.to_html())

    @documents_plots(ReportData)
    def plot(
        self, kind: str = "alpha", *, layer: int | str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw the report with matplotlib.

        Parameters
        ----------
        kind : str
            {plots}
        layer : int or str, optional
            Id or name where one layer is drawn; the first that has what is drawn by default.
        ax : matplotlib.axes.Axes, optional
            The axes to draw in; by default those of a new figure of a paper's column, 3.4 inches
            wide (``ax.figure``). Histograms of several reports can share axes.

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
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((60, 40))})
        >>> report.plot("esd", layer="fc").get_xscale()
        'log'
        """
        return plot(self, kind, layer, ax)

    def _repr_html_(self) -> str:
        """Return the report as a notebook shows it: verdict, means, layers to look at first."""
        from pyspectra.report.html.notebook import report_note

        return report_note(self)

    def print(
        self,
        console: Console | None = None,
        *,
        everything: bool = False,
        top: int | None = None,
        sort: str | None = None,
        reverse: bool = False,
        by: str | None = None,
        hint: str = "everything=True lists all",
    ) -> None:
        """Print the verdict, a table of layers and the histogram of alpha.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        everything : bool
            Every layer. More than 40 are not listed by default, but the 12 that `worst` puts first.
        top : int, optional
            This many layers.
        sort : str, optional
            A column to sort by, the smallest first; rows without a value come last.
        reverse : bool
            The largest first.
        by : {"role", "block", "stack", "kind"}, optional
            A row of numbers for each group of layers (`Report.by`) in their place.
        hint : str
            How the reader can have all layers, for the line below a table that lists some.

        Raises
        ------
        ArgumentValueError, ArgumentTypeError
            If there is no such column or group, or `top` is no count.
        """
        from rich.console import Console

        from pyspectra.report.shown import Shown
        from pyspectra.report.table import render

        wanted = Shown(everything, top, sort, reverse, by, hint)
        wanted.check("Report.print")
        render(self, Console() if console is None else console, wanted)


def _layer_note(layer: LayerReport) -> str:
    from pyspectra.report.html.notebook import layer_note

    return layer_note(layer)


LayerReport.notebook_view = staticmethod(_layer_note)


def _fields(finding: Finding) -> dict[str, Any]:
    return {f.name: getattr(finding, f.name) for f in fields(finding)}
