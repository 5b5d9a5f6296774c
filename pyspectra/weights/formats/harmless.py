"""What a pickle may name without being refused: objects, not code.

Nothing that is named here or elsewhere is ever imported or called, so that no entry of these lists
can do harm. They decide what a reader says: that a file keeps an `argparse.Namespace` beside its
tensors, or that it is no checkpoint but an attack.
"""

from __future__ import annotations

from typing import Any, Final

from pyspectra.weights.formats.pickle_values import Global, PickleError

__all__ = ["CodeRefusedError", "class_made"]


class CodeRefusedError(PickleError):
    """A pickle would run code; the message names what it would call."""


# Modules of things that act on the machine: a call of anything in one of them is code, whatever
# its name.
_ACTING: Final = frozenset((
    "_io", "_pickle", "_thread", "asyncio", "atexit", "bdb", "cPickle", "cProfile", "cloudpickle",
    "code", "codeop", "commands", "ctypes", "dill", "distutils", "fileinput", "ftplib", "http",
    "importlib", "io", "joblib", "marshal", "multiprocessing", "nt", "os", "pdb", "pickle", "pip",
    "pkgutil", "popen2", "posix", "profile", "pty", "requests", "runpy", "setuptools", "shelve",
    "shutil", "signal", "smtplib", "socket", "sqlite3", "subprocess", "sys", "tarfile", "tempfile",
    "threading", "urllib", "webbrowser", "zipfile", "zipimport",
))  # fmt: skip

# By convention a class begins with a capital. These callables do not, and merely make a value.
_MAKERS: Final = frozenset((
    "builtins.bool", "builtins.bytes", "builtins.complex", "builtins.dict", "builtins.float",
    "builtins.int", "builtins.list", "builtins.long", "builtins.object", "builtins.range",
    "builtins.slice", "builtins.str", "builtins.tuple", "builtins.unicode", "builtins.xrange",
    "collections.deque", "datetime.date", "datetime.datetime", "datetime.time",
    "datetime.timedelta", "datetime.timezone", "functools.partial", "numpy.ndarray", "re._compile",
    "torch.device",
))  # fmt: skip

# These make an object of the class that is their first argument.
_MAKERS_OF_THE_FIRST: Final = frozenset((
    "copyreg.__newobj__", "copyreg.__newobj_ex__", "copyreg._reconstructor",
    "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct",
))  # fmt: skip


def class_made(function: Global, arguments: tuple[Any, ...], is_class: bool) -> str:
    """Return the class of the object that a call in a pickle would make.

    Parameters
    ----------
    function : Global
        What is called.
    arguments : tuple
        What it is called with.
    is_class : bool
        True if the pickle says that it is a class.

    Returns
    -------
    str
        Module and name.

    Raises
    ------
    CodeRefusedError
        If it would not merely make an object.
    """
    if function.path in _MAKERS_OF_THE_FIRST:
        first = arguments[0] if arguments else None
        made, is_class = (first, True) if isinstance(first, Global) else (function, True)
    else:
        made = function
    last = made.name.rpartition(".")[2].lstrip("_")
    makes = (
        is_class
        or last[:1].isupper()
        or last.startswith("rebuild")
        or made.path in _MAKERS
        or made.module == "numpy.random._pickle"
    )
    if not makes or made.module.partition(".")[0] in _ACTING:
        raise CodeRefusedError(made.path)
    return made.path
