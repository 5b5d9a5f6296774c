"""Writing result files: whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyspectra._support.termination import cleaning_up


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all; see `write_bytes`.

    Half a surrogate pair, which UTF-8 does not have and names of strangers may, becomes an escape.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to; an existing file is then unchanged.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` through a temporary file beside it, so that nothing is half-written.

    A symbolic link is written through, not replaced; so is a device or a pipe (``/dev/null``).

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to; an existing file is then unchanged.
    """
    if os.fspath(path) == "." or path.is_dir():  # Path("") is "."
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if is_special(path):
        path.write_bytes(data)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:200]}.{os.urandom(8).hex()}.tmp")
    with cleaning_up():
        try:
            with NewFile(temporary) as file:
                file.write(data)
            if target.exists():
                shutil.copymode(target, temporary)  # a private file stays private
            os.replace(temporary, target)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename == str(temporary):
                error.filename = str(path)  # the name that the caller knows
            raise


class NewFile(io.FileIO):
    """A file that does not exist yet: it is written as asked, and errors have its name.

    Attributes
    ----------
    error : BaseException or None
        What went wrong in writing. Libraries make errors of their own of it.
    """

    error: BaseException | None = None

    def __init__(self, path: str | Path) -> None:
        super().__init__(os.fspath(path), "xb")  # errors have it as it is given

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = OSError(error.errno, error.strerror, os.fspath(self.name))
            raise self.error from error
        except BaseException as error:
            self.error = error
            raise
        return done


def is_special(path: str | Path) -> bool:
    """Tell whether a path is a device or a pipe: written to, never replaced."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def same_file(target: str | Path, files: Iterable[str | Path]) -> str | Path | None:
    """Return the one of `files` that `target` is, by whatever path or link; None if it is not one.

    Hard links count too: to write to one would leave the other as it was, but who asks for a
    table under the name of a model does not mean to lose that name.
    """
    try:
        given = os.stat(target)
    except (OSError, ValueError):  # there is no such file yet; a NUL in the name
        return None
    for file in files:
        try:
            found = os.stat(file)
        except (OSError, ValueError):  # gone in the meantime
            continue
        if os.path.samestat(given, found):
            return file
    return None
