"""What the file formats share: opening, and telling what a broken file really is."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from pyspectra.errors import FormatError

__all__ = ["Stamp", "Window", "check_head", "open_binary", "read_json", "stamp"]

_MAX_JSON_BYTES: Final = 100_000_000

Stamp = tuple[int, int]
"""Size and modification time: what tells a file from its successor under the same name."""


@contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Open for reading; whatever the system objects to becomes a `FormatError`."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def stamp(file: BinaryIO) -> Stamp:
    """Size and modification time of an open file."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def check_head(path: Path, expected: str) -> None:
    """Refuse what often stands where a weights file should.

    Parameters
    ----------
    path : Path
        The file.
    expected : str
        What it should be, e.g. ``"a safetensors file"``.

    Raises
    ------
    FormatError
        If the file is empty, a Git LFS pointer or a web page.
    """
    with open_binary(path) as file:
        head = file.read(512)
    if not head:
        raise FormatError(f"{path}: the file is empty (0 bytes), not {expected}.")
    if head.startswith(b"version https://git-lfs"):
        raise FormatError(
            f"{path}: looks like a Git LFS pointer, not {expected}. Hint: run `git lfs pull`, or "
            "download the file itself."
        )
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise FormatError(
            f"{path}: looks like a web page (HTML), not {expected}. Hint: download the raw file."
        )


class Window(io.RawIOBase):
    """A part of a file that looks like a file.

    Parameters
    ----------
    file : file
        The whole, open; whoever uses several parts of it at once does so in one thread.
    offset, size : int
        Which of its bytes.
    """

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._size - self._position)]
        self._file.seek(self._offset + self._position)
        count: int = self._file.readinto(view)  # type: ignore[attr-defined]
        self._position += count
        return count


def read_json(path: Path, expected: str) -> Any:
    """Read a small file of JSON; whatever is wrong with it becomes a `FormatError`.

    Parameters
    ----------
    path : Path
        The file.
    expected : str
        What it should be, e.g. ``"a valid index of shards"``.
    """
    check_head(path, expected)
    with open_binary(path) as file:
        raw = file.read(_MAX_JSON_BYTES + 1)
    if len(raw) > _MAX_JSON_BYTES:
        raise FormatError(f"{path}: not {expected}: over {_MAX_JSON_BYTES} bytes.")
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not {expected}: {error}") from error
