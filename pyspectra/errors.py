"""The exceptions of the package.

Every one derives from :class:`PyspectraError` and from the built-in exception that a caller
would expect, so that ``except ValueError`` and ``except PyspectraError`` both work.
"""

from __future__ import annotations

__all__ = [
    "ConvergenceError",
    "CudaError",
    "DeviceError",
    "FormatError",
    "MissingDependencyError",
    "PyspectraError",
    "missing_dependency",
]


class PyspectraError(Exception):
    """Base class of the exceptions that the package defines."""


class FormatError(PyspectraError, ValueError):
    """A weights file or container is unreadable, corrupt, unsupported or refused."""


class DeviceError(PyspectraError, RuntimeError):
    """A device is unknown, absent, or cannot run the requested kernel."""


class CudaError(PyspectraError, RuntimeError):
    """A CUDA runtime or library call failed."""


class ConvergenceError(PyspectraError, ArithmeticError):
    """An iterative method stopped before it reached its tolerance."""


class MissingDependencyError(PyspectraError, ImportError):
    """An optional package is missing, or too old for what was asked."""


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
        To be raised by the caller.
    """
    wanted = package if minimum is None else f"{package} >= {minimum}"
    return MissingDependencyError(
        f'{purpose} needs {wanted}. Hint: pip install "pyspectra-nn[{extra}]", '
        f"or install {package} yourself.",
        name=package,
    )
