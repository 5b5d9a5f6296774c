"""The wire format of protocol buffers, as far as a file has to be walked without reading its data.

A message is a list of fields: a number and a type, then a value, or a length and as many bytes.
Fields of bytes are handed out as ranges of the file, so that gigabytes of weights stay there.

References
----------
https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Field", "Walker", "varints"]

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

MAX_FIELDS: Final = 1 << 22
_BLOCK: Final = 1 << 16


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes
    ----------
    number : int
        Its number in the message's definition.
    wire : int
        Its type on the wire.
    value : int
        The number, or where the bytes begin in the file.
    end : int
        Where the bytes end; of a number, where the next field begins.
    """

    number: int
    wire: int
    value: int
    end: int


class Walker:
    """Reads the fields of messages in a file.

    Parameters
    ----------
    file : file
        The file, open.
    size : int
        Its length in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._block, self._begin = b"", 0
        self._fields = 0

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """Yield the fields of the message that lies in a range of the file.

        Raises
        ------
        ValueError
            If the range holds no message, or the file more fields than any model has.
        """
        position = begin
        while position < end:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise ValueError("more fields than any model has")
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, position = self._varint(position, end)
            elif wire == BYTES:
                length, value = self._varint(position, end)
                position = value + length
            elif wire in (FIXED32, FIXED64):
                value, position = position, position + (4 if wire == FIXED32 else 8)
            else:
                raise ValueError(f"a field of type {wire} at byte {position}")
            if position > end or not number:
                raise ValueError("a field that lies outside of its message (is it truncated?)")
            yield Field(number, wire, value, position)

    def payload(self, field: Field, limit: int) -> bytes:
        """Read the bytes of a field.

        Raises
        ------
        ValueError
            If they are none, or more than `limit`.
        """
        if field.wire != BYTES or field.end - field.value > limit:
            raise ValueError("a field that should hold a short text")
        return self._take(field.value, field.end - field.value)

    def text(self, field: Field, limit: int = 1 << 14) -> str:
        """Read a text; as for `payload`."""
        return self.payload(field, limit).decode("utf-8")

    def _take(self, begin: int, count: int) -> bytes:
        if not self._begin <= begin <= begin + count <= self._begin + len(self._block):
            self._file.seek(begin)
            self._block, self._begin = self._file.read(max(count, _BLOCK)), begin
        found = self._block[begin - self._begin : begin - self._begin + count]
        if len(found) != count:
            raise ValueError("it is truncated")
        return found

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end:
            byte = self._take(position, 1)[0]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & ((1 << 64) - 1), position
            shift += 7
            if shift >= 70:
                break
        raise ValueError("a number that does not end")


def varints(raw: bytes) -> npt.NDArray[np.int64]:
    """Unpack numbers that follow one another.

    Parameters
    ----------
    raw : bytes
        The value of a packed field.

    Returns
    -------
    ndarray of int64

    Raises
    ------
    ValueError
        If one of them does not end, or is longer than ten bytes.
    """
    codes = np.frombuffer(raw, np.uint8)
    last = codes < 0x80
    if len(codes) == 0:
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(codes)]]))
    if not last[-1] or lengths.max() > 10:
        raise ValueError("a number that does not end")
    shifts = 7 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    parts = (codes & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    found: npt.NDArray[np.int64] = np.add.reduceat(parts, starts).view(np.int64)
    return found
