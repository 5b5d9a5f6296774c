"""What `analyze` returns: frozen values, and the ways out of them (pandas, CSV, JSON)."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import check_choice
from pyspectra._support.files import write_text
from pyspectra.errors import missing_dependency
from pyspectra.report import columns, weightwatcher
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.verdicts import Verdict, judge
from pyspectra.spectra.eigenvectors import EigenvectorStatistics
from pyspectra.spectra.randomize import Randomized
from pyspectra.types import ESD, MPFit, PowerLawFit, Status
from pyspectra.weights import SkippedLayer

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

JSON_SCHEMA = "pyspectra.report/1"
DIALECTS = ("pyspectra", "weightwatcher")


@dataclass(frozen=True)
class LayerReport:
    """One row of a report: a layer, or a slice of a convolution with ``pool=False``.

    Attributes
    ----------
    layer_id, name, kind, shape, dtype
        Of the layer, as in `pyspectra.weights.Layer`.
    slice_id : int or None
        Which slice; None for a pooled layer.
    rf : int
        Number of matrices of the layer (the size of a receptive field).
    part_of : str or None
        Name of the layer that this is a part of (q of a fused qkv, a gate of an LSTM).
    esd : ESD
    fit : PowerLawFit
        The fit that counts (after clipping fingers, if asked for).
    n_tail : int
        Eigenvalues >= xmin among all of the layer (estimator ``"farms"``: of its sub-matrices;
        ``"hill"`` and with `xmax`: those of the fit).
    raw_fit : PowerLawFit or None
        The fit before fingers were clipped.
    n_fingers : int or None
        Eigenvalues clipped, by WeightWatcher's count.
    metrics : mapping of str to number
        Every registered metric that was asked for; empty if the spectrum failed.
    warning : str
        ``"random"``, ``"no power law"``, ``"over-trained"``, ``"under-trained"`` or ``""``; see
        `pyspectra.report.verdicts.layer_warning`.
    mp : MPFit or None
        Marchenko-Pastur fit and test for randomness, with ``mp_fit=True``.
    randomized : Randomized or None
        Spectrum of the permuted entries, with ``randomize=True``.
    vectors : EigenvectorStatistics or None
        With ``vectors=True``.
    """

    layer_id: int
    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    slice_id: int | None
    rf: int
    part_of: str | None
    esd: ESD
    fit: PowerLawFit
    n_tail: int
    raw_fit: PowerLawFit | None
    n_fingers: int | None
    metrics: Mapping[str, float | int]
    warning: str
    mp: MPFit | None = None
    randomized: Randomized | None = None
    vectors: EigenvectorStatistics | None = None

    @property
    def status(self) -> Status:
        """Of the spectrum if that failed, else of the fit."""
        return self.esd.status if self.esd.status is not Status.OK else self.fit.status

    @property
    def alpha(self) -> float:
        """Tail exponent; NaN where the fit failed."""
        return self.fit.alpha


@dataclass(frozen=True, repr=False)
class Report:
    """The diagnosis of a model.

    Attributes
    ----------
    layers : tuple of LayerReport
    skipped : tuple of SkippedLayer
        Every tensor that was not analysed, each with its reason.
    source, format : str
        What was analysed, and how it was stored.
    options : AnalyzeOptions
    """

    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...]
    source: str
    format: str
    options: AnalyzeOptions

    @cached_property
    def verdict(self) -> Verdict:
        """The judgement of the whole model, in words."""
        return judge(self.wholes, len(self.skipped))

    @cached_property
    def wholes(self) -> tuple[LayerReport, ...]:
        """The layers without the parts of those that were analysed whole: nothing counts twice."""
        analysed = {layer.name for layer in self.layers}
        return tuple(layer for layer in self.layers if layer.part_of not in analysed)

    def rows(self, dialect: str = "pyspectra") -> list[dict[str, Any]]:
        """One dict a layer; `dialect` as in `to_pandas`."""
        check_choice("Report", "dialect", dialect, DIALECTS)
        if dialect == "weightwatcher":
            return columns.tabulate(weightwatcher.COLUMNS, self._foreign, self.options)
        return columns.tabulate(columns.COLUMNS, self.layers, self.options)

    def _names(self, dialect: str) -> list[str]:
        check_choice("Report", "dialect", dialect, DIALECTS)
        own: Sequence[columns.Column[Any]] = columns.COLUMNS
        if dialect == "weightwatcher":
            own = weightwatcher.COLUMNS
        return [column.name for column in columns.shown(own, self.options)]

    @cached_property
    def _foreign(self) -> tuple[weightwatcher.Row, ...]:
        return tuple(weightwatcher.Row(x, self.options, self.format) for x in self.wholes)

    def summary(self, dialect: str = "pyspectra") -> dict[str, float]:
        """Mean of the main metrics over the layers (`wholes`: parts do not count twice).

        ``"pyspectra"`` leaves failed fits out and counts them in ``n_failed``; ``"weightwatcher"``
        averages them in as -1, as WeightWatcher does.
        """
        check_choice("Report", "dialect", dialect, DIALECTS)
        if dialect == "weightwatcher":
            return columns.summarize(weightwatcher.SUMMARY, self._foreign, self.options)
        return columns.summarize(columns.SUMMARY, self.wholes, self.options)

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
        """
        rows = self.rows(dialect)
        try:
            import pandas
        except ImportError as error:
            raise missing_dependency("pandas", "Report.to_pandas", extra="pandas") from error
        return pandas.DataFrame(rows, columns=self._names(dialect))

    def to_csv(self, path: str | PathLike[str] | None = None, dialect: str = "pyspectra") -> str:
        """Return the layers as CSV, and write them to `path` if one is given (atomically)."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self._names(dialect), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows(dialect))
        if path is not None:
            write_text(Path(path), out.getvalue())
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the eigenvalues, as plain values; NaN and infinity become None."""
        verdict = self.verdict
        plain: dict[str, Any] = _plain(
            {
                "schema": JSON_SCHEMA,
                "source": self.source,
                "format": self.format,
                "options": self.options.to_dict(),
                "verdict": vars(verdict),
                "summary": self.summary(),
                "layers": self.rows(),
                "skipped": [
                    {"name": s.name, "shape": s.shape, "reason": s.reason, "failed": s.failed}
                    for s in self.skipped
                ],
            }
        )
        return plain

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path` if one is given (atomically)."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        if path is not None:
            write_text(Path(path), text)
        return text

    def plot(
        self, kind: str = "alpha", *, layer: int | str | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw the report with matplotlib; see `pyspectra.report.plot.plot`.

        Parameters
        ----------
        kind : {"alpha", "esd", "depth"}
            Histogram of alpha; eigenvalues of one `layer` with the fitted law; alpha by layer.
        layer : int or str, optional
            Id or name, for ``"esd"``; the first layer that has a fit by default.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure by default.
        """
        from pyspectra.report.plot import plot

        return plot(self, kind, layer, ax)

    def __repr__(self) -> str:
        return (
            f"<Report of {self.source}: {len(self.layers)} layers, {len(self.skipped)} skipped, "
            f"{self.verdict.label}>"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
