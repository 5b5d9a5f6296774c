"""A history as a data frame of pandas, and back, without a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.history_file import FIELDS, SCHEMA, Lines, is_record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ATTRIBUTE", "columns_of", "frame_of", "header_and_others", "lines_of_frame"]

ATTRIBUTE = "pyspectra.history"
"""Name in ``DataFrame.attrs`` of what a table has no room for."""

INTEGERS = ("step", "n", "segment", "n_train", "n_val", "n_test")
TEXTS = ("split", "kind", "train_kind")

# Metrics of a record that are NaN, and not missing: a data frame shows both alike.
BROKEN = "nonfinite"


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names in rows, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def frame_of(rows: Sequence[Mapping[str, Any]], pandas: Any) -> pd.DataFrame:
    """Return rows as a data frame; integers that may be missing are ``Int64``.

    Where a value was NaN, and not missing, a column ``nonfinite`` names it.
    """
    columns = columns_of(rows)
    data: dict[str, Any] = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        dtype = "Int64" if name in INTEGERS else "object" if name in TEXTS else "float64"
        data[name] = pandas.Series(values, dtype=dtype)
    broken = [
        " ".join(name for name, value in row.items() if value != value)  # noqa: PLR0124
        for row in rows
    ]
    if any(broken):
        data[BROKEN] = pandas.Series(broken, dtype="object")
    frame: pd.DataFrame = pandas.DataFrame(data, columns=list(data))
    return frame


def header_and_others(
    header: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a table of records has no room for: header, findings, spectra, resumptions."""
    others = [[i, dict(line)] for i, line in enumerate(lines) if not is_record(line)]
    return {"header": dict(header), "others": others}


def lines_of_frame(frame: pd.DataFrame) -> Lines:
    """Return the lines that a data frame was made of.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no data frame of records.
    """
    function = "History.from_pandas"
    if not hasattr(frame, "to_dict") or not hasattr(frame, "columns"):
        got = f"an object of type {type(frame).__name__}"
        raise ArgumentTypeError(function, "frame", "be a data frame", got)
    if "split" not in frame.columns:
        raise ArgumentValueError(
            function, "frame", "have a column 'split'", f"columns {list(frame.columns)}",
            hint="to_pandas('steps') makes such a one",
        )  # fmt: skip
    extra = frame.attrs.get(ATTRIBUTE, {"header": {"schema": SCHEMA}, "others": []})
    lines = [_record(row) for row in frame.to_dict("records")]
    for position, line in extra["others"]:
        lines.insert(position, dict(line))
    return Lines(dict(extra["header"]), lines)


def _record(row: Mapping[Any, Any]) -> dict[str, Any]:
    broken = row.get(BROKEN)
    names = set(broken.split(" ")) if isinstance(broken, str) else set()
    record: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("segment", BROKEN) or value is None or type(value).__name__ == "NAType":
            continue
        if value != value and name not in names:  # noqa: PLR0124
            continue
        if name in INTEGERS:
            record[name] = int(value)
        elif name in FIELDS and name != "epoch":
            record[name] = str(value)
        else:
            record[str(name)] = float(value)
    return record
