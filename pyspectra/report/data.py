"""What an analysis found, as one value: the rows, what was skipped, and what follows from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from pyspectra._support.arguments import as_integer, check_choice, check_count
from pyspectra._support.cached import cached_property
from pyspectra._support.text import counted
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report import columns, weightwatcher
from pyspectra.report.attention import by_attention
from pyspectra.report.choice import chosen_rows
from pyspectra.report.coverage import Coverage, coverage_of
from pyspectra.report.differences import differences
from pyspectra.report.findings import Finding
from pyspectra.report.groups import GROUPINGS, Groups
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.problems import find
from pyspectra.report.verdicts import Verdict, judge, judge_change
from pyspectra.types import Status, Value
from pyspectra.weights import Skip, SkippedLayer
from pyspectra.weights.selection import Selection

if TYPE_CHECKING:
    from typing_extensions import Self

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

    # Beside an array a report is one thing, not a sequence whose entries numpy would compare.
    __array_ufunc__ = None

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # a report without rows is one nevertheless

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __reversed__(self) -> Iterator[LayerReport]:
        return reversed(self.layers)

    def __contains__(self, layer: object) -> bool:
        """Tell whether there is a row of this name, or this row."""
        if isinstance(layer, str):
            return any(layer in (row.name, row.label, row.key) for row in self.layers)
        return layer in self.layers

    @overload
    def __getitem__(self, name: int) -> LayerReport: ...

    @overload
    def __getitem__(self, name: str) -> Any: ...

    def __getitem__(self, name: int | str) -> Any:
        """Return the row of a layer, or a column: ``report["fc"]``, ``report["alpha"]``.

        A name that both a layer and a column have is refused, since what it means would depend on
        the model: `layer` and `column` tell them apart.

        Raises
        ------
        KeyError
            If there is neither, or both.
        """
        if isinstance(name, str) and name in self.columns():
            if name in self:
                raise KeyError(
                    f"{name!r} is a layer and a column: write .layer({name!r}) or .column({name!r})"
                )
            return self.column(name)
        try:
            return self.layer(name)
        except ArgumentValueError as error:
            raise KeyError(str(error)) from None

    def column(self, name: str) -> np.ndarray | list[Any]:
        """Return a column of the table, with one value for each row.

        Parameters
        ----------
        name : str
            One of `columns`.

        Returns
        -------
        ndarray or list
            An array of shape (len(report),) where all values are numbers, of float64, int64 or
            bool; else a list.

        Raises
        ------
        ArgumentValueError
            If there is no such column.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> report = ps.analyze({"fc.weight": np.random.default_rng(0).standard_normal((30, 20))})
        >>> report.column("M"), report.column("kind")
        (array([20]), ['linear'])
        """
        check_choice("Report", "column", name, tuple(self.columns()))
        shown = {column.name: column for column in columns.shown(columns.COLUMNS, self.options)}
        with np.errstate(all="ignore"):
            return columns.as_column([shown[name].value(row) for row in self.layers])

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

    def select(
        self,
        layers: Selection = None,
        *,
        regex: str | re.Pattern[str] | None = None,
        kind: str | Iterable[str] | None = None,
        role: str | Iterable[str] | None = None,
        block: int | Iterable[int] | None = None,
        keep: Callable[[LayerReport], bool] | None = None,
    ) -> Self:
        """Return the report of some of the layers: those that fulfil all conditions.

        Parameters
        ----------
        layers : int, str or sequence of them, optional
            Ids or names, as in `pyspectra.analyze`: ``*`` and ``?`` stand for any text, and a name
            stands for all that is below it. ``"conv[3]"`` is a slice of a convolution.
        regex : str or re.Pattern, optional
            An expression that is found in the name.
        kind, role : str or several, optional
            Kind of layer, and what it does; ``*`` and ``?`` stand for any text.
        block : int or several, optional
            Number of the block.
        keep : callable, optional
            Tells of a row whether it stays.

        Returns
        -------
        Report
            As if only these layers had been chosen when the model was analysed: the others are in
            `skipped`, and verdict, summary and coverage are those of the selection.

        Raises
        ------
        ArgumentValueError, ArgumentTypeError
            If no layer answers to a name, kind or role. A selection that nothing fulfils is empty.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> W = np.random.default_rng(0).standard_normal((30, 20))
        >>> report = ps.analyze({f"h.{i}.attn.{x}.weight": W for i in (0, 1) for x in "qk"})
        >>> [row.name for row in report.select("h.1", role="q")]
        ['h.1.attn.q']
        """
        return self._only(
            chosen_rows(self.layers, self.skipped, layers, regex, kind, role, block, keep)
        )

    def _only(self, rows: Iterable[LayerReport]) -> Self:
        """Return the report of these rows; the others are skipped."""
        kept = {id(row) for row in rows}
        chosen = tuple(row for row in self.layers if id(row) in kept)
        names = dict.fromkeys(row.name for row in chosen)
        others = {row.name: row for row in self.layers if row.name not in names}
        options = replace(self.options, layers=tuple(names)) if names else self.options
        left_out = tuple(row.skipped(Skip("not_selected")) for row in others.values())
        return replace(self, layers=chosen, skipped=self.skipped + left_out, options=options)

    def by(self, what: str = "role") -> Groups[Self]:
        """Return the layers in groups: a mapping from the name of each group to its report.

        Parameters
        ----------
        what : {"role", "block", "stack", "kind"}
            Layers of which the name does not tell are in the group ``"other"``.

        Returns
        -------
        Groups
            ``.rows()`` and ``.to_pandas()`` give a row of numbers for each group.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> W = np.random.default_rng(0).standard_normal((30, 20))
        >>> report = ps.analyze({f"h.{i}.attn.{x}.weight": W for i in (0, 1) for x in "qk"})
        >>> {role: len(part) for role, part in report.by("role").items()}
        {'q': 2, 'k': 2}
        """
        check_choice("Report.by", "what", what, tuple(GROUPINGS))
        found: dict[str, list[LayerReport]] = {}
        for row in self.layers:
            found.setdefault(GROUPINGS[what](row), []).append(row)
        return Groups(what, {name: self._only(rows) for name, rows in found.items()})

    def worst(self, n: int = 5) -> tuple[LayerReport, ...]:
        """Return the layers to look at first; parts of layers that have a row are left out.

        Parameters
        ----------
        n : int
            How many; all of them if there are fewer.

        Returns
        -------
        tuple of LayerReport

        Notes
        -----
        First come layers without a spectrum or a fit, then those without structure, those without a
        power law, and those whose alpha lies outside of 2 to 6, by how many standard errors it
        does; then all others (`pyspectra.report.attention`). It is an order in which to look, not
        of quality: a report does not tell which layer is undertrained (docs/reading.md).

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> W = np.random.default_rng(0).standard_normal((60, 40))
        >>> report = ps.analyze({"a.weight": W, "b.weight": W * np.nan})
        >>> [row.name for row in report.worst(1)]
        ['b']
        """
        check_count("Report.worst", "n", n, least=1)
        return tuple(by_attention(self.wholes)[:n])

    def differences(self, other: ReportData) -> tuple[str, ...]:
        """Return what is different from another report, as sentences; nothing if they are equal.

        Parameters
        ----------
        other : Report

        Raises
        ------
        ArgumentTypeError
            If `other` is no report.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> W = np.random.default_rng(0).standard_normal((60, 40))
        >>> a, b = (ps.analyze({"fc.weight": W}, seed=seed) for seed in (0, 1))
        >>> a.differences(b)[-1]
        'options.seed: 0 and 1'
        """
        if not isinstance(other, ReportData):
            got = f"an object of type {type(other).__name__}"
            raise ArgumentTypeError("Report.differences", "other", "be a report", got)
        return tuple(differences(self, other))

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
