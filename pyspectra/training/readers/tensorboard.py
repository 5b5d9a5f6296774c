"""Scalars of TensorBoard's event files, read without TensorBoard.

A file is a row of records, each an ``Event`` in the wire format of protocol buffers, of which a few
fields are needed. Checksums are not checked: a record that a killed process left unfinished is the
last, and shows by its length.

References
----------
TensorFlow, ``tensorflow/core/lib/io/record_writer.h``, ``tensorflow/core/util/event.proto`` and
``tensorflow/core/framework/summary.proto``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyspectra.errors import FormatError
from pyspectra.training.history_file import Lines
from pyspectra.training.metric_kinds import split_and_metric
from pyspectra.training.readers.reader import Reader, foreign

__all__ = ["READER"]

_FILES = "events.out.tfevents*"

# Numbers of the fields that are read, in their messages.
_STEP, _SUMMARY = 2, 5  # of Event
_VALUE = 1  # of Summary
_TAG, _SIMPLE, _TENSOR = 1, 2, 8  # of Summary.Value
_TYPE, _CONTENT, _FLOATS, _DOUBLES = 1, 4, 5, 6  # of TensorProto
_FLOAT, _DOUBLE = 1, 2  # of DataType

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # of the wire format


# --- the file -----------------------------------------------------------------------------------


def _events(data: bytes) -> Iterator[bytes]:
    """Yield the records: 8 bytes of length, 4 of its checksum, the record, 4 of its checksum."""
    position = 0
    while position + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        start = position + 12
        if length > len(data) - start:
            return
        yield data[start : start + length]
        position = start + length + 4


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("an integer is longer than 64 bits")


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field; a value is an int, or bytes that are not read yet."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value: Any
            value, position = _varint(data, position)
        else:
            if wire == _BYTES:
                length, position = _varint(data, position)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                length = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise ValueError("an unknown kind of field")
            if length > len(data) - position:
                raise ValueError("a field is longer than its message")
            value, position = data[position : position + length], position + length
        yield number, value


def _message(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a message is a number")
    return value


def _scalars(event: bytes) -> Iterator[tuple[int, str, float]]:
    step = 0
    summaries = []
    for number, value in _fields(event):
        if number == _STEP:
            step = int(value)
        elif number == _SUMMARY:
            summaries.append(_message(value))
    for summary in summaries:
        for number, value in _fields(summary):
            if number == _VALUE:
                tag, scalar = _tag_and_scalar(_message(value))
                if scalar is not None:
                    yield step, tag, scalar


def _tag_and_scalar(message: bytes) -> tuple[str, float | None]:
    tag, scalar = "", None
    for number, value in _fields(message):
        if number == _TAG:
            tag = _message(value).decode("utf-8", "replace")
        elif number == _SIMPLE:
            (scalar,) = struct.unpack("<f", _message(value))
        elif number == _TENSOR:
            scalar = _of_tensor(_message(value))
    return tag, scalar


def _of_tensor(message: bytes) -> float | None:
    """Return the one number of a tensor; None if it holds something else, as text or a picture."""
    fields = dict(_fields(message))
    formats = {_FLOAT: ("<f", _FLOATS), _DOUBLE: ("<d", _DOUBLES)}
    if fields.get(_TYPE) not in formats:
        return None
    form, listed = formats[fields[_TYPE]]
    data = fields.get(_CONTENT) or fields.get(listed)
    if not isinstance(data, bytes) or len(data) != struct.calcsize(form):
        return None
    number: float = struct.unpack(form, data)[0]
    return number


# --- the run ------------------------------------------------------------------------------------


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return path if next(path.rglob(_FILES), None) else None
    return path if "tfevents" in path.name else None


def _read(path: Path) -> Lines:
    files = sorted(path.rglob(_FILES)) if path.is_dir() else [path]
    found: dict[tuple[int | None, float | None, str], dict[str, float]] = {}
    for file in files:
        try:
            for event in _events(file.read_bytes()):
                for step, tag, value in _scalars(event):
                    done, epoch, split, metric = _placed(step, tag, file)
                    found.setdefault((done, epoch, split), {})[metric] = value
        except (ValueError, IndexError, TypeError, struct.error) as error:
            raise FormatError(f"{str(file)!r} is no event file of TensorBoard.") from error
    records = []
    order = sorted(found, key=lambda key: (key[0] or 0, key[1] or 0.0))
    for key in order:
        done, epoch, split = key
        fields: dict[str, Any] = {"step": done, "epoch": epoch, "split": split}
        if epoch is not None and split == "train":
            fields["kind"] = "running"
        records.append({k: v for k, v in fields.items() if v is not None} | found[key])
    return foreign("tensorboard", None, records)


def _placed(step: int, tag: str, file: Path) -> tuple[int | None, float | None, str, str]:
    """Return step, epoch, split and metric of a tag: ``Loss/val``, ``val/loss``, ``epoch_loss``."""
    split, metric = split_and_metric(tag)
    if split is None:
        # `Loss/val` names its split last; Keras and add_scalars have a folder for each.
        ending = re.fullmatch(r"(.+)/(\w+)", tag)
        own = split_and_metric(f"{ending[2]}/x")[0] if ending else None
        if ending is not None and own is not None:
            split, metric = own, ending[1]
        else:
            split = split_and_metric(f"{file.parent.name}/x")[0] or "train"
    # Keras counts epochs, from 0, where others count steps.
    if metric.startswith("epoch_"):
        name = metric.removeprefix("epoch_")
        return None, step + 1.0, split, "lr" if name == "learning_rate" else name
    return step, None, split, metric.lower()


READER = Reader("tensorboard", _FILES, _find, _read)
