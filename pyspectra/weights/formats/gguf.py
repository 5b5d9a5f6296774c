"""GGUF files (llama.cpp): a strict reader of the header, and of one tensor's blocks at a time.

Layout: ``GGUF``, the version, the numbers of tensors and of key-value pairs; the pairs; name,
lengths of the axes (the one that runs fastest first), type and place of each tensor; padding; the
data. Quantised tensors are blocks of 32 or 256 numbers with their scales; the package ``gguf`` of
llama.cpp knows what each means.

References
----------
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import functools
import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents, TensorEntry
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.stored import StoredTensor, open_unchanged, stored_entry
from pyspectra.weights.kinds import EMBEDDING
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.skip import Skip

__all__ = ["FORMAT", "read"]

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_RANK: Final = 8
MAX_TENSORS: Final = 1 << 20
MAX_VALUES: Final = 1 << 25
MAX_NAME: Final = 1 << 12
ALIGNMENT: Final = 32
# Bytes that are read and unpacked at once.
_CHUNK_BYTES: Final = 1 << 22

# Numbers of types that need no package, by what this package calls them.
_PLAIN: Final = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64",
    30: "bfloat16",
}  # fmt: skip
# Bytes of a value of the key-value pairs, by the number of its type; texts and lists apart.
_VALUE_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT: Final = 8
_LIST: Final = 9
_UNSIGNED: Final = 4

_EMBEDDING: Final = re.compile(r"(?:token_embd|position_embd|token_types)\.weight")
_BITS: Final = re.compile(r"(?:I?Q|MXFP|NVFP)(\d+)")
TERNARY_BITS: Final = math.log2(3)


class _Header:
    """What is read from the front of a file, number by number; its end is an error."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.position = file, size, 0
        self._values = 0

    def take(self, count: int) -> bytes:
        found = self._file.read(count) if self.position + count <= self._size else b""
        if len(found) != count:
            raise ValueError("the header is truncated")
        self.position += count
        return found

    def skip(self, count: int) -> None:
        if self.position + count > self._size:
            raise ValueError("the header is truncated")
        self._file.seek(count, 1)
        self.position += count

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, limit: int) -> str:
        length = self.number(8)
        if length > limit:
            raise ValueError(f"a name of {length} bytes")
        return self.take(length).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> None:
        """Pass by a value."""
        if kind in _VALUE_BYTES:
            self.skip(_VALUE_BYTES[kind])
        elif kind == _TEXT:
            self.skip(self.number(8))
        elif kind == _LIST and depth < 4:
            inner, count = self.number(4), self.number(8)
            if inner in _VALUE_BYTES:
                self.skip(_VALUE_BYTES[inner] * count)
                return
            self._values += count
            if self._values > MAX_VALUES:
                raise ValueError("lists of more values than any model has")
            for _ in range(count):
                self.value(inner, depth + 1)
        else:
            raise ValueError(f"a value of unknown type {kind}")


@dataclass(frozen=True)
class _Record:
    """One tensor as the header has it."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class _Blocks(StoredArray):
    """Where the blocks of a quantised tensor lie; small, and can be pickled."""

    path: Path
    stamp: Stamp
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    row_bytes: int

    @property
    def info(self) -> ArrayInfo:
        return ArrayInfo(self.shape, "float32")

    def load(self, allocate: Allocate | None = None) -> HostArray:
        quants = _quants()
        array = (allocate or np.empty)(self.shape, np.dtype(np.float32))
        rows = array.reshape(-1, self.shape[-1])
        step = max(1, _CHUNK_BYTES // self.row_bytes)
        with open_unchanged(self.path, self.stamp) as file:
            file.seek(self.offset)
            for begin in range(0, len(rows), step):
                count = min(step, len(rows) - begin)
                raw = file.read(count * self.row_bytes)
                if len(raw) != count * self.row_bytes:
                    raise FormatError(
                        f"{self.path}: the data of tensor {self.name!r} is truncated."
                    )
                blocks = np.frombuffer(raw, np.uint8).reshape(count, self.row_bytes)
                with np.errstate(all="ignore"):  # scales may be anything, infinity included
                    rows[begin : begin + count] = quants.dequantize(blocks, self.type)
        return HostArray(array, "float32")


def _quants() -> Any:
    import gguf.quants

    return gguf.quants


@functools.cache
def _block_type(number: int) -> tuple[str, int, int, bool]:
    """Return name, elements and bytes of the blocks of a type, and whether it can be unpacked."""
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(number)
    except ValueError as error:
        raise ValueError(f"a tensor of type {number}, which gguf does not know") from error
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        with np.errstate(all="ignore"):
            _quants().dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return kind.name, elements, size, False
    return kind.name, elements, size, True


def _stored_as(name: str, elements: int) -> StoredAs:
    match = _BITS.match(name)
    bits = float(match[1]) if match else TERNARY_BITS
    return StoredAs(round(bits, 2), f"GGUF {name}, blocks of {elements}")


def read(path: Path) -> Contents:
    """List the tensors of a GGUF file; only its header is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        The tensors, their axes in the order of PyTorch.

    Raises
    ------
    FormatError
        If anything about the file is not as the format demands.
    ModuleNotFoundError
        If a tensor is quantised, and the package gguf is not installed.
    """
    check_head(path, "a GGUF file")
    with open_binary(path) as file:
        when = stamp(file)
        try:
            records, start = _records(_Header(file, when[0]))
            return Contents("gguf", _entries(path, when, records, start))
        except (ValueError, OSError, struct.error) as error:
            raise FormatError(f"{path}: not a valid GGUF file: {error}.") from error


def _records(header: _Header) -> tuple[list[_Record], int]:
    """Return the tensors, and where the data begins."""
    if header.take(4) != MAGIC:
        raise ValueError("it does not begin with 'GGUF'")
    version = header.number(4)
    if version not in VERSIONS:
        if version in (v << 24 for v in VERSIONS):
            raise ValueError("its byte order is that of big-endian machines, which is not read")
        raise ValueError(f"version {version} is not supported, only 2 and 3")
    count, pairs = header.number(8), header.number(8)
    if count > MAX_TENSORS or pairs > MAX_TENSORS:
        raise ValueError(f"{count} tensors and {pairs} values are more than any model has")
    alignment = ALIGNMENT
    for _ in range(pairs):
        key, kind = header.text(1 << 16), header.number(4)
        if key == "general.alignment" and kind == _UNSIGNED:
            alignment = header.number(4)
        else:
            header.value(kind)
    if not alignment or alignment % 8 or alignment > 1 << 20:
        raise ValueError(f"an alignment of {alignment} bytes")
    records = []
    for _ in range(count):
        name, rank = header.text(MAX_NAME), header.number(4)
        if rank > MAX_RANK:
            raise ValueError(f"tensor {name!r} has {rank} axes")
        lengths = [header.number(8) for _ in range(rank)]
        records.append(_Record(name, tuple(lengths[::-1]), header.number(4), header.number(8)))
    return records, -(-header.position // alignment) * alignment


def _entries(path: Path, when: Stamp, records: list[_Record], start: int) -> list[TensorEntry]:
    entries, extents = [], []
    names: set[str] = set()
    for record in records:
        if record.name in names:
            raise ValueError(f"two tensors go by the name {record.name!r}")
        names.add(record.name)
        entry, size = _entry(path, when, record, start)
        begin = start + record.offset
        if begin + size > when[0]:
            raise ValueError(
                f"tensor {record.name!r} lies outside of the data: bytes {begin} to {begin + size} "
                f"of {when[0]} (is the file truncated?)"
            )
        extents.append((begin, begin + size, record.name))
        entries.append(entry)
    end = 0
    for begin, stop, name in sorted(extents):
        if begin < end:
            raise ValueError(f"tensor {name!r} overlaps another tensor")
        end = stop
    return entries


def _entry(path: Path, when: Stamp, record: _Record, start: int) -> tuple[TensorEntry, int]:
    """Return the entry of a tensor, and its size in bytes."""
    key, shape, offset = record.name, record.shape, start + record.offset
    count = math.prod(shape)
    kind = EMBEDDING.name if _EMBEDDING.fullmatch(key) else None
    plain = _PLAIN.get(record.type)
    if plain is not None:
        tensor = StoredTensor(path, when, key, plain, shape, offset)
        return replace(stored_entry(key, tensor), kind=kind), count * tensor.type.item_bytes
    name, elements, size, known = _block_type(record.type)
    if not shape or shape[-1] % elements:
        raise ValueError(f"tensor {key!r} of shape {shape} has no whole blocks of {elements}")
    row_bytes = shape[-1] // elements * size
    total = count // elements * size
    if not known:
        skip = Skip("dtype", {"dtype": name})
        return TensorEntry(key, shape, name, None, kind, problem=skip), total
    blocks = _Blocks(path, when, key, shape, record.type, offset, row_bytes)
    entry = TensorEntry(key, shape, "float32", blocks, kind, stored_as=_stored_as(name, elements))
    return entry, total


FORMAT = Format("gguf", (".gguf",), read, extra="gguf", rank=5)
