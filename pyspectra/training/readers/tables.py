"""Tables as CSV: Lightning's ``metrics.csv``, the CSVLogger of Keras, and others like them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyspectra.errors import FormatError
from pyspectra.training.history_file import Lines
from pyspectra.training.readers.reader import Reader, foreign, records_of

__all__ = ["READER"]

Row = dict[str, float]

# Lightning logs one metric per step and per epoch under two names.
_STEP, _EPOCH = "_step", "_epoch"


def _find(path: Path) -> Path | None:
    if not path.is_dir():
        return path if path.suffix == ".csv" else None
    for pattern in ("metrics.csv", "*/metrics.csv", "*.csv"):
        found = sorted(path.glob(pattern), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]  # version_10 is newer than version_9
    return None


def _read(path: Path) -> Lines:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [_numbers(row) for row in csv.DictReader(file, skipinitialspace=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{str(path)!r} is no CSV file: {error}.") from error
    columns = {name for row in rows for name in row}
    if not columns & {"epoch", "step"}:
        raise FormatError(
            f"{str(path)!r} is no table of a training run: it has no column 'epoch' or 'step'."
        )
    return foreign("csv", None, _records(rows, lightning={"epoch", "step"} <= columns))


def _numbers(row: dict[str | None, Any]) -> Row:
    """Return the numbers of a row; what is empty, or text, is missing."""
    numbers = {}
    for name, text in row.items():
        if name is None or not isinstance(text, str) or text.strip() in ("", "NA", "None"):
            continue
        try:
            numbers[name.strip()] = float(text)
        except ValueError:
            continue
    return numbers


def _records(rows: Sequence[Row], lightning: bool) -> Iterator[dict[str, Any]]:
    starts = [row["epoch"] for row in rows if "epoch" in row and math.isfinite(row["epoch"])]
    # Lightning and Keras count from 0; here an epoch that is done is 1.
    first = 1 if lightning or (starts and min(starts) == 0) else 0
    for row in rows:
        values = dict(row)
        epoch, step = values.pop("epoch", None), values.pop("step", None)
        epoch = epoch + first if epoch is not None and math.isfinite(epoch) else None
        done = int(step) + lightning if step is not None and math.isfinite(step) else None
        of_batch, of_epoch = _by_level(values, of_epochs=not lightning)
        yield from records_of(of_batch, step=done, epoch=epoch)
        yield from records_of(of_epoch, step=done, epoch=epoch, kind="running")


def _by_level(values: Row, of_epochs: bool) -> tuple[Row, Row]:
    of_batch: Row = {}
    of_epoch: Row = {}
    for raw, value in values.items():
        name = "lr" if raw.startswith(("lr-", "lr/")) else raw
        if name.endswith(_STEP):
            of_batch[name.removesuffix(_STEP)] = value
        elif name.endswith(_EPOCH):
            of_epoch[name.removesuffix(_EPOCH)] = value
        else:
            (of_epoch if of_epochs else of_batch)[name] = value
    return of_batch, of_epoch


READER = Reader("csv", "metrics.csv", _find, _read)
