"""What can be read of a history: its two tables, curves, the best value, and other shapes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyspectra._support.arguments import check_choice, check_path
from pyspectra._support.files import write_text
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentValueError, hint_words, missing_dependency
from pyspectra.training import history_tables as tables
from pyspectra.training.frames import (
    ATTRIBUTE,
    columns_of,
    frame_of,
    header_and_others,
    lines_of_frame,
)
from pyspectra.training.history_file import Lines, encode_line, is_record
from pyspectra.training.history_store import Store
from pyspectra.training.metric_kinds import kind_of, split_and_metric
from pyspectra.training.readers import lines_of_keras, read_run

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

__all__ = ["LEVELS", "Best", "RecordedRun"]

LEVELS = ("steps", "epochs", "evaluations")
"""What a row is: a record of `log`, an epoch, or an evaluation of the validation split."""


class Best(NamedTuple):
    """The best value of a metric, and when it was reached."""

    value: float
    epoch: float | None
    step: int | None


class RecordedRun:
    """The reading half of `History`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = ""

    # --- tables ---------------------------------------------------------------------------------

    @property
    def header(self) -> dict[str, Any]:
        """The first line of the file: run, configuration, versions, seed, start."""
        return self._store.header

    @property
    def name(self) -> str:
        """Name of the file or folder that it was read from or is written to, or of the run."""
        path = getattr(self, "path", None)
        return self._name or (str(self.header.get("run", "")) if path is None else Path(path).name)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """One record for each call of `log` and split, with its ``segment``: 2 after a resumption.

        What was not logged is absent.
        """
        self._store.fetch()
        segment = 1
        records = []
        for line in self._store.lines:
            if "resumed_at" in line:
                segment += 1
            elif is_record(line):
                records.append({**line, "segment": segment})
        return records

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """One row for each epoch; see `pyspectra.training.history_tables.epoch_rows`."""
        return tables.epoch_rows(self.steps)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """One row for each evaluation of ``"val"``, with what was trained since the one before."""
        return tables.evaluation_rows(self.steps)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The findings, as mappings."""
        return [line["finding"] for line in self._store.lines if "finding" in line]

    @property
    def spectra(self) -> list[dict[str, Any]]:
        """What `log_spectra` recorded."""
        return [line["spectra"] for line in self._store.lines if "spectra" in line]

    def __len__(self) -> int:
        return sum(map(is_record, self._store.lines))

    def __bool__(self) -> bool:
        return True  # an empty history is one: `if history:` asks whether it was given

    def last(self) -> dict[str, Any]:
        """Return the last record, as trackers of experiments take it; empty if there is none."""
        records = self.steps
        return records[-1] if records else {}

    # --- loading --------------------------------------------------------------------------------

    @classmethod
    def _of(cls, lines: Lines) -> Self:
        history = cls()  # type: ignore[call-arg]  # of History: in memory
        history._store.header = lines.header
        history._store.replace(lines.lines)
        return history

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a run to look at; what is read stays as it is.

        Parameters
        ----------
        path : str or path
            What a history wrote, or another program: ``trainer_state.json`` of Hugging Face,
            ``metrics.csv`` of Lightning, a history of Keras as JSON or CSV, event files of
            TensorBoard; or a folder that holds one of these.

        Returns
        -------
        History
            A history without a file of its own: what is logged to it stays in memory.

        Raises
        ------
        FormatError
            If it is none of these, or broken.
        MissingPathError
            If there is nothing.
        """
        history = cls._of(read_run(path, function="History.load"))
        history._name = Path(path).resolve().name
        return history

    from_csv = from_tensorboard = load

    @classmethod
    def from_keras(cls, history: Any) -> Self:
        """Make a history of what ``fit`` of Keras returns, or of the dictionary in it.

        Raises
        ------
        FormatError
            If it is neither.
        """
        return cls._of(lines_of_keras(history))

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame) -> Self:
        """Make a history of the data frame that ``to_pandas("steps")`` returned.

        Parameters
        ----------
        frame : pandas.DataFrame
            Each row is a record; header, findings and spectra are in its ``attrs``.
        """
        return cls._of(lines_of_frame(frame))

    # --- curves ---------------------------------------------------------------------------------

    def curve(
        self, name: str, level: str = "epochs"
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a column against epochs or steps, without the rows that do not have it.

        Parameters
        ----------
        name : str
            A column: ``"val_loss"``, ``"lr"``; a metric without a split is that of ``"train"``.
        level : {"epochs", "evaluations", "steps"}
            What the rows are.

        Returns
        -------
        (ndarray, ndarray)
            Two arrays of float64: the epochs for ``"epochs"``, else the steps; and the values.

        Raises
        ------
        KeyError
            If there is no such column.
        """
        rows = self._rows(level)
        x = "epoch" if level == "epochs" else "step"
        if level == "steps":
            split, metric = split_and_metric(name)
            rows = [r for r in rows if r["split"] == (split or "train") and r.get("kind") is None]
            column = metric
        else:
            column = _column(name, rows)
        points = [(row[x], row[column]) for row in rows if column in row and x in row]
        if not points:
            known = sorted({key for row in rows for key in row})
            hint = did_you_mean(name, known) or f"there are {', '.join(known) or 'none'}"
            raise KeyError(f"History: there is no column {name!r} in {level!r}.{hint_words(hint)}")
        xs, ys = np.asarray(points, dtype=np.float64).T
        return xs, ys

    def __getitem__(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a column of the table of epochs against the epoch; see `curve`."""
        return self.curve(name)

    def best(self, metric: str, better: str | None = None) -> Best:
        """Return the best value of a metric over the epochs.

        Parameters
        ----------
        metric : str
            A column of `epochs`: ``"val_loss"``.
        better : {"lower", "higher"}, optional
            Which way is better, for a metric whose name does not say it.

        Returns
        -------
        Best
            Value, epoch and step; of equal values the first.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If it is not known which way is better, or no value is finite.
        """
        if better is None:
            better = kind_of(split_and_metric(metric)[1]).better
            if better is None:
                raise ArgumentValueError(
                    "History.best", "better", f"say which way {metric!r} is better", "None",
                    hint="'lower' or 'higher'",
                )  # fmt: skip
        better = check_choice("History.best", "better", better, ("lower", "higher"))
        self.curve(metric)  # a column that is missing is named there
        rows = self._rows("epochs")
        column = _column(metric, rows)
        rows = [row for row in rows if math.isfinite(row.get(column, math.nan))]
        if not rows:
            raise ArgumentValueError("History.best", "metric", "have a finite value", repr(metric))
        choose = min if better == "lower" else max
        row = choose(rows, key=lambda row: row[column])
        return Best(row[column], row["epoch"], row.get("step"))

    @property
    def history(self) -> dict[str, list[float]]:
        """What Keras calls history: lists over epochs; ``loss`` of training, ``val_loss``."""
        columns = self.to_numpy("epochs")
        plain = ("epoch", "step", "train_kind", "segment")
        return {
            name.removeprefix("train_"): values.tolist()
            for name, values in columns.items()
            if name not in plain and not name.startswith("n_")
        }

    # --- other shapes ---------------------------------------------------------------------------

    def _rows(self, level: str) -> list[dict[str, Any]]:
        level = check_choice("History", "level", level, LEVELS)
        rows: list[dict[str, Any]] = getattr(self, level)
        return rows

    def to_records(self, level: str = "epochs") -> list[dict[str, Any]]:
        """Return the rows of a table as dictionaries; what was not logged is absent."""
        return self._rows(level)

    def to_numpy(self, level: str = "epochs") -> dict[str, NDArray[Any]]:
        """Return the columns of a table as arrays: NaN for missing numbers, None for text."""
        rows = self._rows(level)
        return {name: _as_array([row.get(name) for row in rows]) for name in columns_of(rows)}

    def to_pandas(self, level: str = "epochs") -> pd.DataFrame:
        """Return a table as a data frame: missing values are NaN, in columns of integers NA.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise missing_dependency("pandas", "History.to_pandas", extra="pandas") from error
        frame = frame_of(self._rows(level), pd)
        if level == "steps":
            frame.attrs[ATTRIBUTE] = header_and_others(self.header, self._store.lines)
        return frame

    def to_jsonl(self) -> str:
        """Return the text of the file."""
        self._store.fetch()
        lines = [self.header, *self._store.lines]
        return "".join(encode_line(line) + "\n" for line in lines)

    def to_csv(self, path: str | Path, level: str = "epochs") -> None:
        """Write a table as CSV with all columns; what is missing is an empty field.

        Raises
        ------
        OSError
            If the file cannot be written to.
        """
        import csv
        import io

        file = check_path("History.to_csv", "path", path)
        rows = self._rows(level)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(file, text.getvalue())

    def to_tensorboard(self, writer: Any) -> None:
        """Add every value to a ``SummaryWriter`` of TensorBoard, as ``<split>/<metric>``."""
        for record in self.steps:
            for name in tables.metric_names([record]):
                writer.add_scalar(f"{record['split']}/{name}", record[name], record.get("step"))
        writer.add_text("config", json.dumps(self.header.get("config")))
        writer.flush()


# --- helpers ------------------------------------------------------------------------------------


def _column(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return the column that a name means: ``eval_loss`` is ``val_loss``, ``loss`` of training."""
    if any(name in row for row in rows):
        return name
    split, metric = split_and_metric(name)
    return f"{split or 'train'}_{metric}"


def _as_array(values: list[Any]) -> NDArray[Any]:
    if any(isinstance(value, str) for value in values):
        return np.asarray(values, dtype=object)
    if all(isinstance(value, int) for value in values):
        return np.asarray(values, dtype=np.int64)
    return np.asarray([math.nan if v is None else v for v in values], dtype=np.float64)
