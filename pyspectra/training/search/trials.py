"""The trials of a search and their results: in memory, and in a file that is appended to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import as_number, check_choice, check_path, shown
from pyspectra._support.text import printable
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.training.history_file import jsonable
from pyspectra.training.search.space import label_of

__all__ = ["Trial", "Trials"]

SCHEMA = "pyspectra.trials/1"


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes
    ----------
    values : mapping
        What was tried.
    result : float
        What came of it; not finite if it failed.
    notes : mapping
        What else is to be remembered: findings, seconds, a path.

    Examples
    --------
    >>> from pyspectra.training import search
    >>> search.Trial({"lr": 100.0}, float("nan")).failed
    True
    """

    values: Mapping[str, Any]
    result: float
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the result is not finite."""
        return not math.isfinite(self.result)


class Trials:
    """The trials of a search, of which a stopped one knows what is done.

    Parameters
    ----------
    path : str or path, optional
        A file of JSON lines, which every trial is appended to at once. One that exists is gone on
        with. One process writes a file. In memory if None.
    better : {"lower", "higher"}
        Which results are better.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind, or `better` is not that of the file.
    FormatError
        If the file holds no trials. A torn last line, which a killed process leaves, is passed
        over.

    Examples
    --------
    >>> from pyspectra.training import search
    >>> trials = search.Trials(better="higher")
    >>> for values in trials.missing(search.grid({"batch": search.Choice([32, 64])})):
    ...     trials.add(values, 0.9 - values["batch"] / 1000, seconds=1.5)
    >>> print(trials)
    result  batch  seconds
     0.868     32      1.5
     0.836     64      1.5
    """

    def __init__(self, path: str | Path | None = None, *, better: str = "lower") -> None:
        self.path = None if path is None else check_path("Trials", "path", path)
        self.better = check_choice("Trials", "better", better, ("lower", "higher"))
        self._found: dict[str, Trial] = {}
        self._whole: int | None = None  # bytes of whole lines, if a torn one follows
        self._begun = False
        if self.path is not None and self.path.exists() and self.path.stat().st_size:
            self._read(self.path)

    def add(self, values: Mapping[str, Any], result: Any, **notes: Any) -> None:
        """Keep the result of a trial; it takes the place of an earlier one of the same values.

        Parameters
        ----------
        values : mapping
            What was tried.
        result : float or None
            What is to be as low, or as high, as can be. None, NaN and infinities say that the trial
            failed.
        **notes
            What else is to be remembered.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If the result is no number, or JSON does not have one of the values.
        OSError
            If the file cannot be written to; it is then as it was.
        """
        number = math.nan if result is None else as_number(result)
        if number is None:
            raise ArgumentTypeError("Trials.add", "result", "be a number or None", shown(result))
        key = label_of("Trials.add", "values", values)
        trial = Trial(dict(values), number, jsonable(notes))
        if self.path is not None:
            self._append(self.path, {"values": trial.values, "result": jsonable(number),
                                     **({"notes": trial.notes} if notes else {})})  # fmt: skip
        self._found[key] = trial

    def get(self, values: Mapping[str, Any]) -> Trial | None:
        """Return the trial of these values, or None."""
        return self._found.get(label_of("Trials.get", "values", values))

    def missing(self, trials: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the values that have no result yet: those of `grid` or `random`, say."""
        return (dict(values) for values in trials if self.get(values) is None)

    @property
    def best(self) -> Trial:
        """The best trial; of equal ones the first.

        Raises
        ------
        ArgumentValueError
            If there is none that did not fail.
        """
        ranked = self._ranked()
        if not ranked or ranked[0].failed:
            got = f"{len(self)} that failed" if self._found else "none"
            raise ArgumentValueError("Trials.best", "trials", "hold one that did not fail", got)
        return ranked[0]

    def to_records(self) -> list[dict[str, Any]]:
        """Return trials as flat dicts, the best first: for a table of pandas."""
        return [{"result": t.result, **t.values, **t.notes} for t in self._ranked()]

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def __bool__(self) -> bool:
        return True  # trials that are still to come are trials, too

    def __str__(self) -> str:
        records = self.to_records()
        if not records:
            return "No trials."
        names = list(dict.fromkeys(name for record in records for name in record))
        rows = [names, *([_shown(r.get(name)) for name in names] for r in records[:MOST_SHOWN])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        hidden = len(records) - MOST_SHOWN
        return "\n".join([*lines, *([f"({hidden} more)"] if hidden > 0 else [])])

    def _ranked(self) -> list[Trial]:
        sign = 1.0 if self.better == "lower" else -1.0
        return sorted(self, key=lambda t: (t.failed, 0.0 if t.failed else sign * t.result))

    # --- the file -------------------------------------------------------------------------------

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole, _, torn = data.rpartition(b"\n")
        try:
            header, *lines = [json.loads(line) for line in whole.split(b"\n")]
            schema = header["schema"]
            for line in lines:
                result = math.nan if line["result"] is None else float(line["result"])
                trial = Trial(dict(line["values"]), result, line.get("notes", {}))
                self._found[label_of("Trials", "path", trial.values)] = trial
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(f"{str(path)!r} holds no trials, or broken ones.") from error
        if schema != SCHEMA:
            raise FormatError(f"{str(path)!r}: its schema is {schema!r}, not {SCHEMA!r}.")
        check_choice("Trials", "better", self.better, (header.get("better", self.better),))
        self._begun, self._whole = True, len(data) - len(torn) if torn else None

    def _append(self, path: Path, line: Mapping[str, Any]) -> None:
        lines = [] if self._begun else [{"schema": SCHEMA, "better": self.better}]
        text = "".join(json.dumps(one) + "\n" for one in (*lines, line))
        data = memoryview(text.encode())
        with open(path, "ab", buffering=0) as file:
            if self._whole is not None:
                file.truncate(self._whole)
            end = os.fstat(file.fileno()).st_size
            try:
                while data:
                    data = data[file.write(data) :]
            except BaseException:
                file.truncate(end)  # a full disk leaves no half line
                raise
        self._begun, self._whole = True, None


MOST_SHOWN, WIDEST = 20, 24


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else printable(str(value))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
