"""What the reader of pickles makes of names, of objects that nobody knows, and of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Foreign", "Global", "PickleError", "TruncatedError", "checked_key", "filled_dict"]

MAX_KEY_LENGTH: Final = 1 << 16
MAX_KEY_PARTS: Final = 64


class PickleError(ValueError):
    """A pickle is broken, or needs what this reader does not do."""


class TruncatedError(PickleError):
    """A pickle, or what it refers to, ends too early."""


@dataclass(frozen=True)
class Global:
    """The name of something that would be imported: a class or a function.

    Attributes
    ----------
    module, name : str
        As the file has them, those of Python 2 translated.
    """

    module: str
    name: str

    @property
    def path(self) -> str:
        """Module and name, with a dot between them."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, eq=False)
class Foreign:
    """An object whose class is not imported: all that is known of it is what it is.

    Attributes
    ----------
    name : str
        Module and name of the class.
    detail : str
        What tells it from others of its class, where that matters.
    """

    name: str
    detail: str = ""


def filled_dict(target: dict[Any, Any], items: Any) -> dict[Any, Any]:
    """Put pairs into a dictionary, plain keys alone.

    Raises
    ------
    PickleError
        If they are no pairs, or a key is not plain.
    """
    if not isinstance(items, list | tuple):
        raise PickleError("a dictionary is made of what is no list of pairs")
    for pair in items:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise PickleError("a dictionary is made of what is no list of pairs")
        target[checked_key(pair[0])] = pair[1]
    return target


def checked_key(value: Any) -> Any:
    """Return what may be a key: one that is hashed quickly, and fit to be a name.

    Raises
    ------
    PickleError
        If it is long, nested or no plain value.
    """
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > MAX_KEY_PARTS:
        raise PickleError(f"a key of {len(parts)} parts")
    for part in parts:
        if isinstance(part, str | bytes):
            if len(part) > MAX_KEY_LENGTH:
                raise PickleError(f"a key of {len(part)} characters")
        elif part is not None and not isinstance(part, int | float | Global | Foreign):
            raise PickleError(f"a key of type {type(part).__name__}")
    return value
