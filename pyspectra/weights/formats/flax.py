"""flax's ``.msgpack`` files: nested maps of arrays, walked without reading the arrays.

MessagePack is a byte that tells the type, and what belongs to it. flax puts an array in an
extension of type 1, which holds shape, name of the element type and bytes; one of over a gigabyte
is a map of several.

References
----------
https://github.com/msgpack/msgpack/blob/master/spec.md
https://flax.readthedocs.io/en/latest/api_reference/flax.serialization.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from pyspectra._arrays import Allocate, ArrayInfo, ArrayProblem, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents
from pyspectra.weights.formats import state_dict
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp
from pyspectra.weights.formats.pickle_values import Foreign
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.stored import StoredTensor

__all__ = ["FORMAT", "read"]

MAX_DEPTH: Final = 64
MAX_ITEMS: Final = 1 << 22
MAX_TEXT: Final = 1 << 16
MAX_RANK: Final = 32
_ARRAY: Final = 1  # flax's types of extensions; scalars and complex numbers have others
_CHUNKED: Final = "__msgpack_chunked_array__"

# First byte -> bytes of the number that it stands for, or of its length.
_NUMBERS: Final = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
                   0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}  # fmt: skip
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_LISTS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


@dataclass(frozen=True)
class _Run:
    """Bytes of the file that are not read."""

    offset: int
    size: int


@dataclass(frozen=True)
class _Chunked(StoredArray):
    """An array in several parts, one after the other."""

    shape: tuple[int, ...]
    parts: tuple[StoredTensor, ...]

    @property
    def info(self) -> ArrayInfo:
        return ArrayInfo(self.shape, self.parts[0].dtype, problem=self.parts[0].info.problem)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        dtype = self.parts[0].dtype
        array = (allocate or np.empty)(self.shape, BY_NAME[dtype].numpy)
        flat, done = array.reshape(-1), 0
        for part in self.parts:
            flat[done : done + part.shape[0]] = part.load().data
            done += part.shape[0]
        return HostArray(array, dtype)


@dataclass(frozen=True)
class _Unread(StoredArray):
    """An array of a type that nobody knows."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def info(self) -> ArrayInfo:
        problem = ArrayProblem("dtype", {"dtype": self.dtype})
        return ArrayInfo(self.shape, self.dtype, problem=problem)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        raise FormatError(f"dtype {self.dtype} cannot be read.")


class _Walker:
    def __init__(self, path: Path, file: BinaryIO, when: Stamp) -> None:
        self._path, self._file, self._stamp = path, file, when
        self._size = when[0]
        self._position = self._items = 0

    def whole(self) -> Any:
        found = self.value(0)
        if self._position != self._size:
            raise ValueError(f"{self._size - self._position} bytes follow the last value")
        return found

    def take(self, count: int) -> bytes:
        found = self._file.read(count) if self._position + count <= self._size else b""
        if len(found) != count:
            raise ValueError("it is truncated")
        self._position += count
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def run(self, size: int) -> _Run:
        if self._position + size > self._size:
            raise ValueError("it is truncated")
        found = _Run(self._position, size)
        self._position += size
        self._file.seek(self._position)
        return found

    def text(self, size: int) -> str:
        if size > MAX_TEXT:
            self.run(size)
            return ""
        return self.take(size).decode("utf-8")

    def value(self, depth: int) -> Any:
        """Return the next value; what is no map, text, count or array becomes `Foreign`."""
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            raise ValueError("more values, or deeper ones, than any model has")
        code = self.number(1)
        if code < 0x80:
            return code
        if code < 0x90 or code in _MAPS:
            return self.map(code & 15 if code < 0x90 else self.number(_MAPS[code]), depth)
        if code < 0xA0 or code in _LISTS:
            count = code & 15 if code < 0xA0 else self.number(_LISTS[code])
            if count > self._size:
                raise ValueError("it is truncated")
            return [self.value(depth + 1) for _ in range(count)]
        if code < 0xC0 or code in _TEXTS:
            return self.text(code & 31 if code < 0xC0 else self.number(_TEXTS[code]))
        if code in _BYTES:
            return self.run(self.number(_BYTES[code]))
        if code in _EXTENSIONS or code in _FIXED_EXTENSIONS:
            fixed = _FIXED_EXTENSIONS.get(code)
            size = fixed if fixed is not None else self.number(_EXTENSIONS[code])
            return self.extension(size, depth)
        if code in _NUMBERS:
            raw = self.take(_NUMBERS[code])
            if 0xCC <= code <= 0xD3:
                return int.from_bytes(raw, "big", signed=code >= 0xD0)
            return Foreign("number")
        if code >= 0xE0:
            return code - 256
        raise ValueError(f"a value of unknown type {code:#04x}")

    def map(self, count: int, depth: int) -> Any:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str | int):
                raise ValueError("a name that is no text")
            if str(key) in found:
                raise ValueError(f"two values go by the name {str(key)[:80]!r}")
            found[str(key)] = self.value(depth + 1)
        return self.chunked(found) if _CHUNKED in found else found

    def extension(self, size: int, depth: int) -> Any:
        kind, begin = self.number(1), self._position
        if kind != _ARRAY:
            self.run(size)
            return Foreign("scalar")
        found = self.value(depth + 1)
        if self._position - begin != size:
            raise ValueError("an array whose length is wrong")
        if not isinstance(found, list) or len(found) != 3:
            raise ValueError("an array without shape, type and bytes")
        shape, dtype, run = found
        if not isinstance(dtype, str) or not isinstance(run, _Run) or not _is_shape(shape):
            raise ValueError("an array without shape, type and bytes")
        if dtype not in BY_NAME:
            return _Unread(tuple(shape), dtype[:80])
        if math.prod(shape) * BY_NAME[dtype].bits != run.size * 8:
            raise ValueError(
                f"an array of type {dtype} and shape {tuple(shape)} does not fit in its "
                f"{run.size} bytes"
            )
        return StoredTensor(self._path, self._stamp, "array", dtype, tuple(shape), run.offset)

    def chunked(self, found: dict[str, Any]) -> StoredArray:
        shape, parts = found.get("shape"), found.get("chunks")
        lengths: Any = list(shape.values()) if isinstance(shape, dict) else shape
        arrays = list(parts.values()) if isinstance(parts, dict) else parts
        if not _is_shape(lengths) or not isinstance(arrays, list) or not arrays:
            raise ValueError("an array in parts, of which some are missing")
        if not all(isinstance(a, StoredTensor) and len(a.shape) == 1 for a in arrays):
            raise ValueError("an array whose parts are none")
        same = len({a.dtype for a in arrays}) == 1
        if not same or sum(a.shape[0] for a in arrays) != math.prod(lengths):
            raise ValueError(f"an array whose parts do not make up the shape {tuple(lengths)}")
        return _Chunked(tuple(lengths), tuple(arrays))


def _is_shape(x: Any) -> bool:
    return (
        isinstance(x, list)
        and len(x) <= MAX_RANK
        and all(type(n) is int and 0 <= n < 1 << 62 for n in x)
    )


def read(path: Path, *, key: str | None = None) -> Contents:
    """List the arrays of a ``.msgpack`` file of flax; no elements are read.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        Which of several models in it.

    Returns
    -------
    Contents
        The arrays under their nested names, joined with dots.

    Raises
    ------
    FormatError
        If the file is corrupt, or holds no map of arrays.
    """
    check_head(path, "a flax .msgpack file")
    with open_binary(path) as file:
        when = stamp(file)
        try:
            found = _Walker(path, file, when).whole()
        except (ValueError, OSError) as error:
            raise FormatError(f"{path}: not a valid flax .msgpack file: {error}.") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: not a valid flax .msgpack file: it holds no names.")
    contents = state_dict.read(found, format="flax", name=str(path), key=key)
    return replace(contents, files=(path.absolute(),))


FORMAT = Format("flax", (".msgpack",), read, keyed=True, rank=6)
