"""safetensors files: a strict reader of the header, and of one tensor's bytes at a time.

Layout: a little-endian 64-bit header length, the header (JSON: name to dtype, shape and byte
range), the data. The file is opened for each read and closed again, and bytes are read into
fresh memory instead of being mapped: nothing stays open and a file that shrinks under a reader
is an error, not a crash.

References
----------
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyspectra._arrays import HostArray, empty
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry, natural_key
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp

__all__ = ["read"]

MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the reference implementation

_LOADABLE: Final[dict[str, tuple[str, np.dtype[Any]]]] = {
    "F64": ("float64", np.dtype("<f8")),
    "F32": ("float32", np.dtype("<f4")),
    "F16": ("float16", np.dtype("<f2")),
    "BF16": ("bfloat16", np.dtype("<u2")),
}
_DTYPES_BY_BITS: Final = {
    64: ("F64", "I64", "U64", "C64"),
    32: ("F32", "I32", "U32"),
    16: ("F16", "BF16", "I16", "U16"),
    8: ("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    6: ("F6_E2M3", "F6_E3M2"),
    4: ("F4",),
}
_BITS: Final = {dtype: bits for bits, dtypes in _DTYPES_BY_BITS.items() for dtype in dtypes}
_NOTE: Final = "__metadata__"


@dataclass(frozen=True)
class _Extent:
    """Where the bytes of one tensor are, counted from the start of the file."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _is_count(x: object) -> bool:
    return type(x) is int and x >= 0  # a JSON true is an int to Python


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _parse_header(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise ValueError("the header is not a JSON object")
    try:
        # What starts with a brace and parses is an object.
        header: dict[str, Any] = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("the header is nested too deeply") from error
    note = header.pop(_NOTE, {})
    if not isinstance(note, dict) or not all(isinstance(v, str) for v in note.values()):
        raise ValueError(f"{_NOTE} is not a map of strings")
    return header


def _parse_extent(key: str, entry: Any, data_start: int, data_bytes: int) -> _Extent:
    key.encode("utf-8")  # a lone surrogate could never be printed
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {key!r} must have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"tensor {key!r} has unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(_is_count(n) for n in shape):
        raise ValueError(f"tensor {key!r} has an invalid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise ValueError(f"tensor {key!r} has invalid data_offsets")
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise ValueError(
            f"tensor {key!r} lies outside of the data: bytes {begin} to {end} of {data_bytes} "
            "(is the file truncated?)"
        )
    if (end - begin) * 8 != math.prod(shape) * _BITS[dtype]:
        raise ValueError(
            f"tensor {key!r} of dtype {dtype} and shape {tuple(shape)} does not fit in its "
            f"{end - begin} bytes"
        )
    return _Extent(key, dtype, tuple(shape), data_start + begin, data_start + end)


def _check_cover(extents: list[_Extent], data_start: int, file_bytes: int) -> None:
    position = data_start
    for extent in sorted(extents, key=lambda e: (e.begin, e.end)):
        if extent.begin < position:
            raise ValueError(f"tensor {extent.key!r} overlaps another tensor")
        if extent.begin > position:
            raise ValueError(f"{extent.begin - position} bytes before tensor {extent.key!r} unused")
        position = extent.end
    if position != file_bytes:
        raise ValueError(f"{file_bytes - position} bytes follow the last tensor")


def _read_extents(path: Path) -> tuple[list[_Extent], Stamp]:
    with open_binary(path) as file:
        when = stamp(file)
        size = when[0]
        if size < 8:
            raise ValueError(f"{size} bytes are too few for a safetensors file")
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if length > size - 8 or length > MAX_HEADER_BYTES:
            if prefix.isascii() and (prefix.decode("ascii") + " ").isprintable():
                raise ValueError("this is a text file, not a safetensors file")
            raise ValueError(
                f"the header length {length} exceeds the file ({size} bytes) or the limit "
                f"({MAX_HEADER_BYTES} bytes); the file is truncated or not a safetensors file"
            )
        raw = file.read(length)
    if len(raw) != length:
        raise ValueError("the header is truncated")
    start = 8 + length
    extents = [_parse_extent(k, v, start, size - start) for k, v in _parse_header(raw).items()]
    _check_cover(extents, start, size)
    return extents, when


def _load(path: Path, extent: _Extent, when: Stamp) -> HostArray:
    dtype, storage = _LOADABLE[extent.dtype]
    array = empty(extent.shape, storage)
    with open_binary(path) as file:
        if stamp(file) != when:
            raise FormatError(f"{path}: the file changed since it was opened. Hint: open it again.")
        file.seek(extent.begin)
        # A flat buffer of bytes; an array of rank zero could not be cast to one directly.
        target = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(target):
            count = file.readinto(target[done:])  # type: ignore[attr-defined]
            if not count:
                raise FormatError(f"{path}: the data of tensor {extent.key!r} is truncated.")
            done += count
    return HostArray(array.astype(storage.newbyteorder("="), copy=False), dtype)


def read(path: Path) -> Contents:
    """List the tensors of a safetensors file; only its header is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Tensors in the natural order of their names: files list them in any order, and ids have
        to agree between one file and several shards.

    Raises
    ------
    FormatError
        If anything about the file is not as the format demands.
    """
    check_head(path, "a safetensors file")
    try:
        extents, when = _read_extents(path)
    except FormatError:
        raise
    except (ValueError, OSError) as error:  # includes JSON and Unicode errors
        raise FormatError(f"{path}: not a valid safetensors file: {error}.") from error
    extents.sort(key=lambda e: natural_key(e.key))
    entries = []
    for extent in extents:
        known = _LOADABLE.get(extent.dtype)
        load = functools.partial(_load, path, extent, when) if known else None
        dtype = known[0] if known else extent.dtype
        entries.append(TensorEntry(extent.key, extent.shape, dtype, load))
    return Contents("safetensors", entries)
