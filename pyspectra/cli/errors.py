"""What goes wrong, in the terms of the command line: one line, and never a traceback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

__all__ = ["UsageError", "one_line"]


class UsageError(Exception):
    """Something that the person at the terminal can mend; the message is for them."""


@contextlib.contextmanager
def one_line(doing: str, names: Mapping[str, str]) -> Iterator[None]:
    """Turn whatever goes wrong into a `UsageError` with a message of one line.

    Parameters
    ----------
    doing : str
        What the command is doing, after "while".
    names : mapping of str to str
        Argument of a function -> how the command line spells it. An argument that is not among
        them is spelt as an option: ``min_evals`` becomes ``--min-evals``.
    """
    from pyspectra.errors import ArgumentError, PyspectraError

    try:
        yield
    except UsageError:
        raise
    except ArgumentError as error:
        raise UsageError(_about_argument(error, names)) from error
    except (PyspectraError, ValueError, OSError) as error:
        raise UsageError(_words(error)) from error
    except MemoryError as error:
        raise UsageError(f"out of memory while {doing}") from error
    except Exception as error:  # a fault of this package: still one line, that says where
        raise UsageError(f"internal error, please report it: {_whereabouts(error)}") from error


def _about_argument(error: Exception, names: Mapping[str, str]) -> str:
    from pyspectra.errors import ArgumentError, MissingPathError

    assert isinstance(error, ArgumentError)
    name = names.get(error.argument) or f"--{'-'.join(error.argument.split('_'))}"
    if isinstance(error, MissingPathError):
        text = f"{name}: no such file or folder: {error.got}"
    else:
        text = f"{name} {error.complaint}"
    return text if error.hint is None else f"{text}. Hint: {error.hint}"


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return str(error) or type(error).__name__


def _whereabouts(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        file = os.path.basename(trace.tb_frame.f_code.co_filename)
        place = f" at {file}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error}{place}"
