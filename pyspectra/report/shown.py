"""Which rows a view shows, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_choice, check_count, check_flag
from pyspectra.report.attention import by_attention, stands_out
from pyspectra.report.columns import COLUMNS
from pyspectra.report.data import ReportData
from pyspectra.report.groups import GROUPINGS
from pyspectra.report.layer import LayerReport

__all__ = ["FEW", "MANY", "Shown", "rows_shown"]

# A model of so many rows is shown whole; of a larger one, so many rows.
MANY, FEW = 40, 12


@dataclass(frozen=True)
class Shown:
    """What of a report a view shows.

    Attributes
    ----------
    everything : bool
        All rows, in the order of the model unless `sort` is given.
    top : int or None
        This many rows: the first in the order of `sort`, or those to look at first
        (`Report.worst`).
    sort : str or None
        A column to sort by; rows without a value come last.
    reverse : bool
        The largest value first.
    by : str or None
        Groups in the place of layers: ``"role"``, ``"block"``, ``"stack"`` or ``"kind"``.
    hint : str
        How all rows are had.
    """

    everything: bool = False
    top: int | None = None
    sort: str | None = None
    reverse: bool = False
    by: str | None = None
    hint: str = "everything=True lists all"

    def check(self, function: str) -> None:
        """Refuse what makes no sense for any report.

        Raises
        ------
        ArgumentValueError, ArgumentTypeError
        """
        check_flag(function, "everything", self.everything)
        check_flag(function, "reverse", self.reverse)
        if self.top is not None:
            check_count(function, "top", self.top, least=1)
        if self.sort is not None:
            check_choice(function, "sort", self.sort, tuple(column.name for column in COLUMNS))
        if self.by is not None:
            check_choice(function, "by", self.by, tuple(GROUPINGS))


def rows_shown(report: ReportData, wanted: Shown) -> tuple[list[LayerReport], str]:
    """Return the rows that a view shows, and what they are in words; empty for all of them.

    Parameters
    ----------
    report : ReportData
    wanted : Shown

    Returns
    -------
    rows : list of LayerReport
    words : str
    """
    rows = list(report.layers)
    if wanted.sort is not None:
        rows = _sorted(rows, wanted.sort, wanted.reverse)
    elif wanted.top is not None or (len(rows) > MANY and not wanted.everything):
        rows = by_attention(report.wholes)
    count = len(rows)
    if wanted.top is not None:
        count = min(count, wanted.top)
    elif len(report.layers) > MANY and not wanted.everything:
        count = min(count, FEW)
    if count == len(report.layers):
        return rows[:count], ""
    if wanted.sort is not None:
        which = f"the first by {wanted.sort}"
    else:
        which = f"those to look at first; {sum(map(stands_out, report.wholes))} stand out"
    return rows[:count], f"{count} of {len(report.layers)} layers, {which}"


def _sorted(rows: Sequence[LayerReport], name: str, reverse: bool) -> list[LayerReport]:
    (column,) = (column for column in COLUMNS if column.name == name)
    with np.errstate(all="ignore"):  # as in `columns.tabulate`
        values = {id(row): column.value(row) for row in rows}
    known = [row for row in rows if not _is_missing(values[id(row)])]
    # Stable both ways: equal values stay in the order of the model.
    known = sorted(known, key=lambda row: values[id(row)], reverse=reverse)
    return known + [row for row in rows if _is_missing(values[id(row)])]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
