"""What the formats that are zip archives share: where the bytes of an entry lie in the file."""

from __future__ import annotations

import zipfile
from typing import BinaryIO, Final

__all__ = ["small_entry", "stored_extent"]

# Nobody deflates what is small. Whoever does must not make all memory of a few bytes.
MAX_UNPACKED_BYTES: Final = 1 << 20
MAX_RATIO: Final = 32


def stored_extent(
    archive: zipfile.ZipFile, file: BinaryIO, name: str, size: int, what: str, writer: str
) -> tuple[int, int]:
    """Return where the bytes of an entry begin in the file, and how many there are.

    Parameters
    ----------
    archive : ZipFile
        The archive.
    file : file
        The same, open.
    name : str
        The entry.
    size : int
        Bytes of the whole file.
    what : str
        What the entry is, for messages.
    writer : str
        What writes such archives, and deflates nothing.

    Raises
    ------
    ValueError
        If there is no such entry, or its bytes are not stored as they are.
    """
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise ValueError(f"{what} {name} is missing") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{what} {name} is compressed, which {writer} never does")
    # The entry has a header of its own, whose last part may be longer than the directory's copy.
    file.seek(entry.header_offset)
    head = file.read(30)
    if len(head) != 30 or head[:4] != b"PK\x03\x04":
        raise ValueError(f"{what} {name} has no header")
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    begin = entry.header_offset + 30 + lengths
    if entry.file_size != entry.compress_size or begin + entry.file_size > size:
        raise ValueError(f"{what} {name} is truncated")
    return begin, entry.file_size


def small_entry(archive: zipfile.ZipFile, name: str, limit: int, size: int, writer: str) -> bytes:
    """Read an entry whole, if it is not larger than it may be.

    Parameters
    ----------
    archive : ZipFile
        The archive.
    name : str
        The entry.
    limit : int
        The most bytes that it may have.
    size : int
        Bytes of the whole file.
    writer : str
        What writes such archives, and deflates nothing.

    Raises
    ------
    KeyError
        If there is no such entry.
    ValueError
        If it is larger, or unpacks to far more bytes than it takes.
    """
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        limit = min(limit, max(MAX_UNPACKED_BYTES, MAX_RATIO * min(info.compress_size, size)))
    with archive.open(name) as entry:
        raw = entry.read(limit + 1)
    if len(raw) > limit:
        raise ValueError(
            f"{name} has more than {limit} bytes when it is unpacked; {writer} stores it as it is"
        )
    return raw
