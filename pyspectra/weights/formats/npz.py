"""numpy ``.npz`` archives: array headers first, one array at a time later, never a pickle.

Deflated bytes may be a thousand times fewer than what they unpack to, so that a file of a megabyte
could ask for all memory: what unpacks to more than any weights do is listed, and not read.
"""

from __future__ import annotations

import functools
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import FLOAT_DTYPES, HostArray, as_host
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.skip import Skip

__all__ = ["FORMAT", "read", "read_header"]

_SUFFIX: Final = ".npy"
# Deflated weights are about as many bytes as before; only zeros and the like become far fewer.
MAX_UNPACKED_BYTES: Final = 1 << 28
MAX_RATIO: Final = 100
_CHUNK_ITEMS: Final = 1 << 17
LEAST_HEADER_BYTES: Final = 30  # header of a zip entry, before its name and its bytes


def read_header(member: IO[bytes], file_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether the first axis runs fastest, its type.

    Raises
    ------
    ValueError
        If the header is broken, or does not fit in with the length of the file.
    """
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):  # 3.0 exists for field names only
        raise ValueError(f"npy format version {version} is not supported")
    first = version == (1, 0)
    parse = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    try:
        shape, by_columns, dtype = parse(member)
    except Exception as error:  # numpy parses Python: a tokenizer's errors and others come out
        raise ValueError(f"broken header ({type(error).__name__})") from error
    if any(n < 0 for n in shape):
        raise ValueError(f"invalid shape {shape}")
    # Without this check a forged shape makes numpy allocate before it notices missing bytes.
    if not dtype.hasobject and member.tell() + math.prod(shape) * dtype.itemsize != file_bytes:
        raise ValueError(f"{dtype} array of shape {shape} does not fit in its {file_bytes} bytes")
    return tuple(int(n) for n in shape), bool(by_columns), dtype


def _read_array(path: Path, name: str, when: Stamp) -> npt.NDArray[Any]:
    with open_binary(path) as file:
        if stamp(file) != when:
            raise FormatError(f"{path}: the file changed since it was opened. Hint: open it again.")
        try:
            with zipfile.ZipFile(file) as archive, archive.open(name) as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))
        except Exception as error:  # zip and zlib raise many types on corrupt bytes
            raise FormatError(f"{path}: array {name!r} is corrupt: {error}") from error


def _load(path: Path, name: str, when: Stamp) -> HostArray:
    return as_host(_read_array(path, name, when), function="Layer.load", argument=name)


def read(path: Path) -> Contents:
    """List the arrays of an ``.npz`` archive; only their headers are read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Arrays in the order of the archive. Two that are equal to the last byte are one weight
        under two names: an archive has no other way to keep a tie.

    Raises
    ------
    FormatError
        If the archive or a header is corrupt.
    """
    check_head(path, "a numpy .npz archive")
    with open_binary(path) as file:
        when = stamp(file)
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_apart(members)
                entries = [_entry(archive, info, path, when) for info in members]
                _mark_ties(archive, members, entries)
        except Exception as error:  # zip and zlib raise many types on corrupt bytes
            raise FormatError(f"{path}: not a valid .npz archive: {error}") from error
    return Contents("npz", entries)


def _check_apart(members: list[zipfile.ZipInfo]) -> None:
    """Refuse two names, or two entries, for the same bytes, which could be unpacked for ever."""
    keys = [info.filename.removesuffix(_SUFFIX) for info in members]
    if len(set(keys)) != len(keys):
        raise ValueError("duplicate array names")
    end = 0
    for info in sorted(members, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ValueError(f"{info.filename!r} overlaps another array")
        end = info.header_offset + LEAST_HEADER_BYTES + info.compress_size


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, when: Stamp) -> TensorEntry:
    key = info.filename.removesuffix(_SUFFIX)
    if not info.filename.endswith(_SUFFIX):
        return TensorEntry(key, None, "none", None, problem=Skip("not_an_array"))
    with archive.open(info) as member:
        shape, _, dtype = read_header(member, info.file_size)
    if dtype.hasobject:
        return TensorEntry(key, shape, "object", None, problem=Skip("object_array"))
    if _packs_too_much(info, when):
        sizes = {"unpacked": info.file_size, "packed": info.compress_size, "limit": MAX_RATIO}
        return TensorEntry(key, shape, dtype.name, None, problem=Skip("unpacks", sizes))
    load = functools.partial(_load, path, info.filename, when)
    return TensorEntry(
        key,
        shape,
        dtype.name,
        load if dtype.name in FLOAT_DTYPES else None,
        raw=functools.partial(_read_array, path, info.filename, when),
    )


def _packs_too_much(info: zipfile.ZipInfo, when: Stamp) -> bool:
    # The archive may say that it takes more bytes than the whole file has.
    packed = min(info.compress_size, when[0])
    return info.file_size > max(MAX_UNPACKED_BYTES, MAX_RATIO * packed)


# --- ties ---------------------------------------------------------------------------------------


def _mark_ties(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], entries: list[TensorEntry]
) -> None:
    """Give matrices that are equal to the last byte one identity.

    Vectors and constant matrices are often equal without being tied: as they were initialised.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (info, entry) in enumerate(zip(members, entries, strict=True)):
        ratio = info.file_size > MAX_RATIO * info.compress_size
        if (
            entry.load is not None
            and entry.shape is not None
            and len(entry.shape) > 1
            and not ratio
        ):
            alike.setdefault((info.CRC, info.file_size), []).append(i)
    for group in alike.values():
        first, *others = group
        equal = [i for i in others if _is_copy(archive, members[first], members[i])]
        for i in (first, *equal) if equal else ():
            identity = ("npz", members[first].filename)
            entries[i] = replace(entries[i], identity=identity, tie="equal")


def _is_copy(archive: zipfile.ZipFile, one: zipfile.ZipInfo, other: zipfile.ZipInfo) -> bool:
    """Tell whether two arrays are equal, bytes and header, and hold more than one value."""
    with archive.open(one) as a, archive.open(other) as b:
        headers = [read_header(member, one.file_size) for member in (a, b)]
        if headers[0] != headers[1]:
            return False
        size = headers[0][2].itemsize
        varied, first = False, b""
        while chunk := a.read(_CHUNK_ITEMS * size):
            if chunk != b.read(len(chunk)):  # the checksums agree, which anybody can arrange
                return False
            first = first or chunk[:size]
            varied = varied or chunk != first * (len(chunk) // size)
        return varied


FORMAT = Format("npz", (".npz",), read, rank=2)
