"""Where a model is written to: a file or a new folder, which is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspectra._support.arguments import check_path
from pyspectra._support.files import same_file
from pyspectra._support.termination import cleaning_up
from pyspectra.edit.files.checkpoint import TORCH_SUFFIXES
from pyspectra.errors import ArgumentValueError

__all__ = ["Target", "check_target"]

# Not that of "llama-1.5b": such a name is for a folder.
_LIKE_A_SUFFIX = re.compile(r"\.[a-z]\w*")


@dataclass(frozen=True)
class Target:
    """What is to be written; make it with `check_target`.

    Attributes
    ----------
    function : str
        The public function whose argument ``out`` this is, for messages.
    path : Path
        The path that was given.
    kind : str
        ``"safetensors"`` or ``"torch"`` for a file, or ``"folder"``.
    overwrite : bool
        Whether it may be a file that exists.
    """

    function: str
    path: Path
    kind: str
    overwrite: bool

    def check_not_input(self, files: Sequence[Path]) -> None:
        """Raise ArgumentValueError if this is a file that is read, whatever it is called."""
        if same_file(self.path, files) is not None:
            raise _bad(self.function, self.path, "which is one of the inputs")

    @contextlib.contextmanager
    def written(self, inputs: Sequence[Path]) -> Iterator[Path]:
        """Yield another name to write to, which becomes `path` if all goes well.

        Parameters
        ----------
        inputs : sequence of Path
            Files that are read: none is replaced.

        Raises
        ------
        ArgumentValueError
            If `path` has become an input, or a file that may not be replaced, in the meantime.
        OSError
            If it cannot be written; nothing is left of it then.
        """
        real = Path(os.path.realpath(self.path))
        temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(8)}.tmp")
        with cleaning_up():
            try:
                yield temporary
                self.check_not_input(inputs)  # again: it may have become a link in the meantime
                if real.is_file():
                    if not self.overwrite:  # somebody has written it in the meantime
                        raise _exists_already(self.function, self.path)
                    shutil.copymode(real, temporary)  # a private file stays private
                os.replace(temporary, real)
            except BaseException as error:
                if temporary.is_dir():
                    shutil.rmtree(temporary, ignore_errors=True)
                else:
                    temporary.unlink(missing_ok=True)
                if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
                    # The caller knows `out`, not the name that it has while it is written.
                    name = os.fspath(self.path)
                    raise type(error)(error.errno, error.strerror, name) from error
                raise


def check_target(function: str, out: object, paths: Sequence[Path], overwrite: bool) -> Target:
    """Return where a model is to be written.

    Parameters
    ----------
    function : str
        The public function, for messages.
    out : object
        Its argument ``out``: a ``.safetensors`` or torch file, or a new or empty folder.
    paths : sequence of Path
        The inputs.
    overwrite : bool
        Whether a file that exists may be replaced.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it cannot be written to, is an input, or exists and may not be overwritten.
    """
    path = check_path(function, "out", out)
    suffix = path.suffix.lower()
    kinds = {".safetensors": "safetensors", **dict.fromkeys(TORCH_SUFFIXES, "torch")}
    target = Target(function, path, kinds.get(suffix, "folder"), overwrite)
    target.check_not_input(paths)
    if target.kind == "folder" and os.path.lexists(path):
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if not empty:
            raise _bad(function, path, "which exists")
    elif target.kind == "folder" and _LIKE_A_SUFFIX.fullmatch(suffix):
        hint = "if that is to be a folder, make it first"
        raise _bad(function, path, f"whose suffix is none of {', '.join(kinds)}", hint)
    elif path.exists() and not path.is_file():
        raise _bad(function, path, "which is not a file")
    elif path.exists() and not overwrite:
        raise _exists_already(function, path)
    parent = Path(os.path.realpath(path)).parent
    if not parent.is_dir():
        raise _bad(function, path, f"but there is no folder {str(parent)!r}")
    return target


def _exists_already(function: str, path: Path) -> ArgumentValueError:
    return _bad(function, path, "which exists", "overwrite=True (--overwrite) replaces it")


def _bad(function: str, path: Path, problem: str, hint: str | None = None) -> ArgumentValueError:
    got = f"{str(path)!r}, {problem}"
    return ArgumentValueError(function, "out", "be a file or a new folder", got, hint)
