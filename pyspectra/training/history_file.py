"""The file of a history: each line is one JSON object, and lines are only ever appended.

The first line is a header; then comes one object for each call of `History.log`, and lines for
findings, spectra and resumptions. A process that is killed leaves at most one torn line, the last,
which reading passes over.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from pyspectra._support.files import write_bytes
from pyspectra.errors import FormatError

__all__ = [
    "FIELDS",
    "SCHEMA",
    "HistoryFile",
    "Lines",
    "decode_line",
    "encode_line",
    "is_record",
    "jsonable",
    "read_lines",
    "step_of",
]

SCHEMA = "pyspectra.history/1"

FIELDS = ("step", "epoch", "split", "n", "kind")
"""Fields of a record that are no metric; ``t``, seconds since the start, comes last."""

Line = dict[str, Any]


# --- one line -----------------------------------------------------------------------------------


def encode_line(line: Mapping[str, Any]) -> str:
    """Return a line as JSON: of a record, fields first, then metrics in alphabetical order.

    NaN and infinities, which JSON does not have, become null, and their names stand under
    ``"nonfinite"``.
    """
    if is_record(line):
        metrics = sorted(name for name in line if name not in FIELDS and name != "t")
        ordered = {name: line[name] for name in FIELDS if line.get(name) is not None}
        ordered |= {name: line[name] for name in metrics}
        if line.get("t") is not None:
            ordered["t"] = line["t"]
        broken = [name for name in metrics if not math.isfinite(ordered[name])]
        if broken:
            ordered |= dict.fromkeys(broken)
            ordered["nonfinite"] = broken
        line = ordered
    return json.dumps(jsonable(line), separators=(",", ":"), allow_nan=False)


def decode_line(text: str | bytes) -> Line:
    """Return the line that `encode_line` made: null under ``"nonfinite"`` is NaN again.

    Raises
    ------
    ValueError
        If it is no JSON object.
    """
    line = json.loads(text)
    if not isinstance(line, dict):
        raise ValueError("a line of a history must be a JSON object")
    if is_record(line):
        line |= dict.fromkeys(line.pop("nonfinite", ()), math.nan)
        # Other programs may write null for what is missing.
        line = {name: value for name, value in line.items() if value is not None}
    return line


def is_record(line: Mapping[str, Any]) -> bool:
    """Tell whether a line holds metrics, and not a header, a finding, spectra or a resumption."""
    return not line.keys() & {"schema", "finding", "spectra", "resumed_at"}


def step_of(line: Mapping[str, Any]) -> int | None:
    """Return the step that a line is about, if it says so."""
    for body in (line, line.get("finding"), line.get("spectra")):
        if isinstance(body, Mapping) and body.get("step") is not None:
            return int(body["step"])
    resumed = line.get("resumed_at")
    return None if resumed is None else int(resumed)


def jsonable(value: Any) -> Any:
    """Return a value as JSON can hold it: what it cannot hold becomes text, NaN becomes null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays
        return jsonable(value.tolist())
    # argparse.Namespace, SimpleNamespace: a configuration is its attributes.
    if type(value).__name__.endswith("Namespace"):
        return jsonable(vars(value))
    return str(value)


# --- a file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """What a file holds.

    Attributes
    ----------
    header : dict
        The first line.
    lines : list of dict
        The others.
    torn : bytes
        What stands after the last whole line: the work of a killed process, usually nothing.
    ended : bool
        Whether the file ends with the end of a line.
    """

    header: Line
    lines: list[Line]
    torn: bytes = b""
    ended: bool = True


def read_lines(path: Path) -> Lines:
    """Read a file; a torn last line is passed over.

    Raises
    ------
    FormatError
        If it is no history, or a line before the last is broken.
    OSError
        If it cannot be read.
    """
    data = path.read_bytes()
    whole, newline, torn = data.rpartition(b"\n")
    texts = whole.split(b"\n") if newline else []
    lines = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            lines.append(decode_line(text))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{str(path)!r}: line {number} is no JSON object.") from error
    ended = not torn
    with contextlib.suppress(ValueError, RecursionError):
        lines.append(decode_line(torn))  # only the end of the line is missing
        torn = b""
    if not lines or lines[0].get("schema") != SCHEMA:
        raise FormatError(
            f"{str(path)!r} is no history: its first line must hold the schema {SCHEMA!r}."
        )
    return Lines(lines[0], lines[1:], torn, ended)


def free_name(path: Path) -> Path:
    """Return ``path.1``, or the first of ``path.2``, ``path.3`` ... that does not exist."""
    number = 1
    while (other := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return other


class HistoryFile:
    """A file that lines are appended to. It is created by the first of them.

    Parameters
    ----------
    path : Path
        Where the file is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._pid = os.getpid()

    def begin(self, header: Line) -> None:
        """Start a new file. One that exists is another run's: it becomes ``path.1``, ``path.2``."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            os.replace(self.path, free_name(self.path))
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        self._write(encode_line(header) + "\n")

    def resume(self, step: int | None) -> Lines:
        """Keep the lines up to `step`, move later ones to ``path.1``, and go on behind them.

        Parameters
        ----------
        step : int or None
            The last step that is kept; None keeps all.

        Returns
        -------
        Lines
            What was kept.
        """
        found = read_lines(self.path)
        kept, later = cut(found.lines, step)
        if later or found.torn:
            tail = [found.header, *later]
            moved = "".join(encode_line(line) + "\n" for line in tail).encode() + found.torn
            # The tail is safe before the file loses it.
            write_bytes(free_name(self.path), moved)
        if later or not found.ended:
            text = "".join(encode_line(line) + "\n" for line in [found.header, *kept])
            write_bytes(self.path, text.encode())
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        return Lines(found.header, kept)

    @property
    def begun(self) -> bool:
        """Whether the file is open."""
        return self._file is not None

    def append(self, lines: Sequence[str]) -> None:
        """Append lines, in one system call where that is possible."""
        if lines and os.getpid() == self._pid:  # a forked worker must not write what it inherited
            self._write("\n".join(lines) + "\n")

    def _write(self, text: str) -> None:
        data = text.encode()
        end = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            # A full disk leaves no half line behind, to which the next attempt would append.
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def cut(lines: Sequence[Line], step: int | None) -> tuple[list[Line], list[Line]]:
    """Divide lines into those up to a step and those after it.

    A line without a step goes with the lines before it.
    """
    if step is None:
        return list(lines), []
    kept: list[Line] = []
    later: list[Line] = []
    for line in lines:
        own = step_of(line)
        if own is None:
            (later if later else kept).append(line)
        else:
            (kept if own <= step else later).append(line)
    return kept, later
