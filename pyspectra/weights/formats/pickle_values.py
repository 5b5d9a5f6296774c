"""What the reader of pickles makes of names, and of objects that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pyspectra._support.cached import cached_property

__all__ = ["Foreign", "Global", "PickleError", "Record", "TruncatedError"]

MAX_NAME_LENGTH: Final = 256


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

    Raises
    ------
    PickleError
        If one of them is longer than names are.
    """

    module: str
    name: str

    def __post_init__(self) -> None:
        """Refuse a name that is long, which any number of objects would carry."""
        if max(len(self.module), len(self.name)) > MAX_NAME_LENGTH:
            raise PickleError(f"a name of more than {MAX_NAME_LENGTH} characters")

    @cached_property
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


@dataclass(frozen=True, eq=False)
class Record(Foreign):
    """An object whose class is not imported, and whose content is kept.

    Attributes
    ----------
    state : list
        What the pickle says that the object holds, as its last element.
    """

    state: list[Any] = field(default_factory=list)

    def get(self, name: str) -> Any:
        """Return an attribute, None if the object has none of this name."""
        found = self.state[-1] if self.state else None
        return found.get(name) if isinstance(found, dict) else None
