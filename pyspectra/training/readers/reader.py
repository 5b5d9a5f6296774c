"""What a reader of runs is, and what the readers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import as_number
from pyspectra.errors import FormatError
from pyspectra.training.history_file import SCHEMA, Lines
from pyspectra.training.metric_kinds import split_and_metric

__all__ = ["Reader", "foreign", "read_json", "records_of"]


@dataclass(frozen=True)
class Reader:
    """One kind of file that a training run leaves behind.

    Attributes
    ----------
    name : str
        Whose it is.
    files : str
        What it is called, for messages: ``"trainer_state.json"``.
    find : callable
        ``find(path)`` returns the file or folder to read if this reader knows it, else None.
    read : callable
        ``read(found)``, with what `find` returned, gives header and records.
    """

    name: str
    files: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Lines]


def foreign(source: str, config: Any, records: Iterable[dict[str, Any]]) -> Lines:
    """Return the records of another program under a header that names it."""
    header = {
        "schema": SCHEMA, "run": None, "config": config, "versions": {}, "seed": None,
        "started": None, "source": source,
    }  # fmt: skip
    return Lines(header, list(records))


def records_of(
    values: Mapping[str, Any],
    *,
    step: int | None = None,
    epoch: float | None = None,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """Return one record for each split that the names of values begin with.

    Values that are no numbers are left out; ``kind`` is that of training only.
    """
    parts: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        number = as_number(value)
        if number is None:
            continue
        split, metric = split_and_metric(name)
        parts.setdefault(split or "train", {})[metric] = number
    records = []
    for split, metrics in parts.items():
        own_kind = kind if split == "train" else None
        fields: dict[str, Any] = {"step": step, "epoch": epoch, "split": split, "kind": own_kind}
        records.append({k: v for k, v in fields.items() if v is not None} | metrics)
    return records


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    FormatError
        If it is none.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{str(path)!r} is no JSON file.") from error
