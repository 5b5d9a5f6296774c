"""What an analysis found, as one value: the rows, what was skipped, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspectra._support.arguments import as_integer, check_choice
from pyspectra._support.cached import cached_property
from pyspectra._support.text import counted
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report import columns, weightwatcher
from pyspectra.report.coverage import Coverage, coverage_of
from pyspectra.report.findings import Finding
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.problems import find
from pyspectra.report.verdicts import Verdict, judge, judge_change
from pyspectra.types import Status, Value
from pyspectra.weights import SkippedLayer

DIALECTS = ("pyspectra", "weightwatcher")


@dataclass(frozen=True, eq=False, repr=False)
class ReportData(Value):
    """The values of a report; the views (table, plots) are made from it.

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
        What was read, which no view may be written over. Neither saved nor compared.
    """

    layers: tuple[LayerReport, ...]
    skipped: tuple[SkippedLayer, ...]
    source: str
    format: str
    options: AnalyzeOptions
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # a report without rows is one nevertheless

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __contains__(self, layer: object) -> bool:
        """Tell whether there is a row of this name, or this row."""
        if isinstance(layer, str):
            return any(layer in (row.name, row.label, row.key) for row in self.layers)
        return layer in self.layers

    def __getitem__(self, name: str) -> LayerReport:
        """Return the row of that name; see `layer`."""
        try:
            return self.layer(name)
        except ArgumentValueError as error:
            raise KeyError(str(error)) from None

    def layer(self, which: int | str) -> LayerReport:
        """Return the row of a layer.

        Parameters
        ----------
        which : int or str
            Its id or its name; ``"conv[3]"`` is a slice of a convolution. Slices share the id and
            the name of their layer, which mean the first of them that has a fit.

        Returns
        -------
        LayerReport

        Raises
        ------
        ArgumentValueError
            If there is no such row.
        ArgumentTypeError
            If `which` is neither an id nor a name.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((30, 20))})
        >>> report.layer("fc") is report.layer(1)
        True
        """
        wanted = which if isinstance(which, str) else as_integer(which)
        if wanted is None:
            raise ArgumentTypeError("Report", "layer", "be an id or a name", repr(which))
        found = [r for r in self.layers if wanted in (r.layer_id, r.label)]
        found = found or [r for r in self.layers if wanted in (r.name, r.key)]
        if not found:
            first = self.layers[0] if self.layers else None
            hint = None if first is None else f"e.g. {first.name!r} (id {first.layer_id})"
            raise ArgumentValueError("Report", "layer", "be in the report", repr(which), hint)
        return next((row for row in found if row.status is Status.OK), found[0])

    @cached_property
    def wholes(self) -> tuple[LayerReport, ...]:
        """The layers without the parts of those that were analysed whole: nothing counts twice."""
        analysed = {layer.name for layer in self.layers}
        return tuple(layer for layer in self.layers if layer.part_of not in analysed)

    @cached_property
    def coverage(self) -> Coverage:
        """How many of the parameters in matrices were analysed, and why the others were not."""
        return coverage_of(self.wholes, self.skipped)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong: with each row, in their order, and tensors that could not be read."""
        return find(self.layers, self.skipped)

    @cached_property
    def verdict(self) -> Verdict:
        """The judgement of the whole model, in words."""
        if self.options.base_model is None:
            return judge(self.wholes, self.skipped, self.options.estimator, self.coverage)
        return judge_change(self.wholes, self.skipped, self.coverage)

    @cached_property
    def _foreign(self) -> tuple[weightwatcher.Row, ...]:
        in_order = sorted(self.wholes, key=lambda layer: layer.position)
        return tuple(weightwatcher.Row(x, self.options, self.format) for x in in_order)

    def columns(self, dialect: str = "pyspectra") -> dict[str, str]:
        """Return the columns of this report in their order, each with what it is in one sentence.

        Raises
        ------
        ArgumentValueError
            If `dialect` is unknown.
        """
        check_choice("Report", "dialect", dialect, DIALECTS)
        known: Sequence[columns.Column[Any]] = columns.COLUMNS
        if dialect == "weightwatcher":
            known = weightwatcher.COLUMNS
        return {column.name: column.help for column in columns.shown(known, self.options)}

    def rows(self, dialect: str = "pyspectra") -> list[dict[str, Any]]:
        """Return one dict for each layer; `dialect` as in `Report.to_pandas`."""
        check_choice("Report", "dialect", dialect, DIALECTS)
        if dialect == "weightwatcher":
            return columns.tabulate(weightwatcher.COLUMNS, self._foreign, self.options)
        return columns.tabulate(columns.COLUMNS, self.layers, self.options)

    def summary(self, dialect: str = "pyspectra") -> dict[str, float]:
        """Return the means of the main metrics over the layers, in which no part counts twice.

        ``"pyspectra"`` leaves failed fits out and counts them in ``n_failed``; ``"weightwatcher"``
        averages them in as -1, as WeightWatcher does.
        """
        check_choice("Report", "dialect", dialect, DIALECTS)
        if dialect == "weightwatcher":
            return columns.summarize(weightwatcher.SUMMARY, self._foreign, self.options)
        return columns.summarize(columns.SUMMARY, self.wholes, self.options)

    def __repr__(self) -> str:
        return (
            f"<Report of {self.source}: {counted(len(self.layers), 'layer')}, "
            f"{len(self.skipped)} skipped, {self.verdict.label}>"
        )
