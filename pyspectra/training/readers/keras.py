"""What Keras calls a history: lists with one number for each epoch, saved as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyspectra.errors import FormatError
from pyspectra.training.history_file import Lines
from pyspectra.training.readers.reader import Reader, foreign, read_json, records_of

__all__ = ["READER", "lines_of_keras"]


def lines_of_keras(history: Any) -> Lines:
    """Return the records of a history of Keras: the object that ``fit`` returns, or its dictionary.

    Raises
    ------
    FormatError
        If it is neither.
    """
    values = getattr(history, "history", history)
    if not _is_history(values):
        raise FormatError(
            "a history of Keras must be a dictionary of lists of numbers, one for each epoch."
        )
    epochs = getattr(history, "epoch", None)
    length = max((len(column) for column in values.values()), default=0)
    if not epochs or len(epochs) != length:
        epochs = range(length)
    return foreign("keras", getattr(history, "params", None), _records(values, list(epochs)))


def _is_history(values: Any) -> bool:
    if not isinstance(values, Mapping) or not values:
        return False
    return all(
        isinstance(column, Sequence) and not isinstance(column, str) for column in values.values()
    )


def _records(
    values: Mapping[str, Sequence[Any]], epochs: Sequence[int]
) -> Iterator[dict[str, Any]]:
    for i, epoch in enumerate(epochs):
        row = {name: column[i] for name, column in values.items() if i < len(column)}
        if "learning_rate" in row:
            row["lr"] = row.pop("learning_rate")
        yield from records_of(row, epoch=epoch + 1, kind="running")


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return next((file for file in sorted(path.glob("*history*.json")) if _find(file)), None)
    if path.suffix != ".json":
        return None
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return path if _is_history(values) else None


def _read(path: Path) -> Lines:
    return lines_of_keras(read_json(path))


READER = Reader("keras", "history.json", _find, _read)
