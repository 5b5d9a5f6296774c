"""safetensors files: a strict reader of the header, and of one tensor's bytes at a time.

Layout: a little-endian 64-bit header length, the header (JSON: name to dtype, shape and byte
range), the data.

References
----------
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from pyspectra._support.dtypes import BY_CODE, DType
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.stored import StoredTensor, stored_entry
from pyspectra.weights.order import natural_key

__all__ = ["FORMAT", "read", "stored"]

MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the reference implementation

_NOTE: Final = "__metadata__"


def _is_count(x: object) -> bool:
    return type(x) is int and x >= 0  # a JSON true is an int to Python


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _parse_header(raw: bytes) -> tuple[dict[str, Any], dict[str, str]]:
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
    "".join((*note, *note.values())).encode("utf-8")  # as with keys: no lone surrogates
    return header, note


def _parse_entry(key: str, entry: Any, data_bytes: int) -> tuple[DType, tuple[int, ...], int, int]:
    """Return type, shape, and where the bytes begin and end, counted from the first one."""
    key.encode("utf-8")  # a lone surrogate could never be printed
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {key!r} must have dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in BY_CODE:
        raise ValueError(f"tensor {key!r} has unknown dtype {code!r}")
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
    if (end - begin) * 8 != math.prod(shape) * BY_CODE[code].bits:
        raise ValueError(
            f"tensor {key!r} of dtype {code} and shape {tuple(shape)} does not fit in its "
            f"{end - begin} bytes"
        )
    return BY_CODE[code], tuple(shape), begin, end


def _check_cover(extents: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, key in sorted(extents):
        if begin < position:
            raise ValueError(f"tensor {key!r} overlaps another tensor")
        if begin > position:
            raise ValueError(f"{begin - position} bytes before tensor {key!r} unused")
        position = end
    if position != data_bytes:
        raise ValueError(f"{data_bytes - position} bytes follow the last tensor")


def _header_bytes(path: Path) -> tuple[bytes, Stamp]:
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
    return raw, when


def _tensors(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    raw, when = _header_bytes(path)
    start = 8 + len(raw)
    header, note = _parse_header(raw)
    tensors, extents = [], []
    for key, entry in header.items():
        dtype, shape, begin, end = _parse_entry(key, entry, when[0] - start)
        extents.append((begin, end, key))
        spelling = "" if dtype.is_float else entry["dtype"]
        tensor = StoredTensor(path, when, key, dtype.name, shape, start + begin, spelling=spelling)
        tensors.append(tensor)
    _check_cover(extents, when[0] - start)
    return tensors, note


def stored(path: Path) -> tuple[list[StoredTensor], dict[str, str]]:
    """Find the tensors of a safetensors file; only its header is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    tensors : list of StoredTensor
        The tensors, in the natural order of their names: files list them in any order, and ids have
        to agree between one file and several shards.
    note : dict of str to str
        The ``__metadata__`` of the file.

    Raises
    ------
    FormatError
        If anything about the file is not as the format demands.
    """
    check_head(path, "a safetensors file")
    try:
        tensors, note = _tensors(path)
    except FormatError:
        raise
    except (ValueError, OSError) as error:  # includes JSON and Unicode errors
        raise FormatError(f"{path}: not a valid safetensors file: {error}.") from error
    tensors.sort(key=lambda t: natural_key(t.name))
    return tensors, note


def read(path: Path) -> Contents:
    """List the tensors of a safetensors file for analysis.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        As `stored` orders them.

    Raises
    ------
    FormatError
        If anything about the file is not as the format demands.
    """
    tensors, note = stored(path)
    # torchao describes its tensors there.
    told = {"quant_method": "torchao", "tensors": note} if "tensor_names" in note else None
    entries = [stored_entry(t.name, t) for t in tensors]
    return Contents("safetensors", entries, quantisation=told)


FORMAT = Format("safetensors", (".safetensors",), read, rank=0)
