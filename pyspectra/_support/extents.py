"""Where in files the elements of an array lie: so that they can be read before they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["Extent", "extents_of"]


class Extent(NamedTuple):
    """Bytes of a file, from one place to another."""

    path: Path
    begin: int
    end: int


def extents_of(loader: object) -> tuple[Extent, ...]:
    """Return the parts of files that a loader reads: none if it does not know."""
    found: tuple[Extent, ...] = getattr(loader, "extents", ())
    return found
