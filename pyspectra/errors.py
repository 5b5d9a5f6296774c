"""The exceptions of the package.

Every one derives from :class:`PyspectraError` and from the built-in exception that a caller
would expect, so that ``except ValueError`` and ``except PyspectraError`` both work. What is wrong
with an argument is a ``ValueError``, ``TypeError`` or ``FileNotFoundError`` that carries function,
argument and requirement as fields (:class:`ArgumentError`): whoever calls on behalf of another
renames them (:func:`called_as`), and no message is ever parsed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "ConvergenceError",
    "CudaError",
    "DeviceError",
    "FormatError",
    "MissingDependencyError",
    "MissingPathError",
    "PyspectraError",
    "called_as",
    "hint_words",
    "missing_dependency",
]


class PyspectraError(Exception):
    """Base class of the exceptions that the package defines.

    Examples
    --------
    >>> import pyspectra as ps
    >>> issubclass(ps.FormatError, ps.PyspectraError), issubclass(ps.FormatError, ValueError)
    (True, True)
    """


class FormatError(PyspectraError, ValueError):
    """A weights file or container is unreadable, corrupt, unsupported or refused."""


class DeviceError(PyspectraError, RuntimeError):
    """A device is unknown, absent, or cannot run the requested kernel."""


class CudaError(PyspectraError, RuntimeError):
    """A CUDA runtime or library call failed."""


class ConvergenceError(PyspectraError, ArithmeticError):
    """An iterative method stopped before it reached its tolerance."""


def hint_words(hint: str | None) -> str:
    """Return how a hint ends a message: nothing without one."""
    if not hint:
        return ""
    return f" Hint: {hint}" if hint.endswith("?") else f" Hint: {hint}."


class RefusedTensorError(PyspectraError, ValueError):
    """The kernel of a step refuses a tensor, which it knows by its row in the table only.

    Attributes
    ----------
    row : int
        Row of the tensor in the kernel's table.
    complaint : str
        What is wrong with it.
    other : int
        Row of another tensor, which the complaint ends with, or -1.
    hint : str
        What to do about it, or nothing.
    """

    def __init__(self, message: str, row: int, complaint: str, other: int, hint: str) -> None:
        super().__init__(message)
        self.row, self.complaint, self.other, self.hint = row, complaint, other, hint

    def told(self, function: str, names: Sequence[str]) -> str:
        """Return the message of a function whose caller knows the tensors by these names."""
        text = f"{function}: {names[self.row]!r}: {self.complaint}"
        if self.other >= 0:
            text += f" of {names[self.other]!r}"
        return f"{text}.{hint_words(self.hint)}"


class MissingDependencyError(PyspectraError, ImportError):
    """An optional package is missing, or too old for what was asked."""


class ArgumentError(Exception):
    """An argument that a public function refuses, as data; the English is written in `__str__`.

    Attributes
    ----------
    function, argument : str
        The public function and its argument.
    requirement : str
        What the argument must do, after "must": ``"be a positive integer"``, ``"not be empty"``.
    got : str
        What came: usually ``repr(value)``, its shape, or the type of an object.
    hint : str or None
        What to do about it: a question, or a sentence without its final full stop.
    """

    def __init__(
        self, function: str, argument: str, requirement: str, got: str, hint: str | None = None
    ) -> None:
        super().__init__(function, argument, requirement, got, hint)
        self.function = function
        self.argument = argument
        self.requirement = requirement
        self.got = got
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # As it stands now: `called_as` may have renamed it. Workers of a pool send errors home.
        fields = (self.function, self.argument, self.requirement, self.got, self.hint)
        return type(self), fields

    def __str__(self) -> str:
        text = f"{self.function}: {self.argument!r} {self.complaint}."
        return text + hint_words(self.hint)

    @property
    def complaint(self) -> str:
        """What is wrong, without the names of function and argument, the full stop and the hint."""
        return f"must {self.requirement}, got {self.got}"


class ArgumentValueError(ArgumentError, ValueError):
    """An argument of the right kind has a value or shape that is out of range."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument is of the wrong kind or element type."""


class MissingPathError(ArgumentError, FileNotFoundError):
    """An argument names a file or folder that does not exist."""

    def __init__(
        self, function: str, argument: str, requirement: str, got: str, hint: str | None = None
    ) -> None:
        super().__init__(function, argument, requirement, got, hint)
        # OSError takes the first of its arguments for these.
        self.errno = errno.ENOENT
        self.strerror = os.strerror(errno.ENOENT)
        self.filename = None


@contextlib.contextmanager
def called_as(function: str, **arguments: str) -> Iterator[None]:
    """Let errors about arguments speak of `function`, and of its names for the arguments.

    Parameters
    ----------
    function : str
        The public function that the caller called.
    **arguments : str
        Name of an argument inside -> its name in `function`; others keep theirs.
    """
    try:
        yield
    except ArgumentError as error:
        error.function = function
        error.argument = arguments.get(error.argument, error.argument)
        raise


def missing_dependency(
    package: str, purpose: str, *, extra: str = "all", minimum: str | None = None
) -> MissingDependencyError:
    """Build the exception for an absent or outdated optional package.

    Parameters
    ----------
    package : str
        Name of the package on the index.
    purpose : str
        What needs it, as the subject of a sentence, e.g. ``"reading a torch checkpoint"``.
    extra : str
        The extra of this package's distribution that installs it.
    minimum : str, optional
        Oldest version that will do.

    Returns
    -------
    MissingDependencyError
        The exception, for the caller to raise.
    """
    wanted = package if minimum is None else f"{package} >= {minimum}"
    return MissingDependencyError(
        f'{purpose} needs {wanted}. Hint: pip install "pyspectra-nn[{extra}]", '
        f"or install {package} yourself.",
        name=package,
    )
