"""Numbers as callers give them: Python's, numpy's, or scalars of a tensor library."""

from __future__ import annotations

import math
import operator
import re
from typing import SupportsFloat, SupportsIndex

__all__ = ["as_integer", "as_number"]


# Of numpy's and torch's element types: truth values, complex numbers, text, times, objects.
_NO_NUMBER = re.compile(r"bool|complex|time|object|[US]\d")


def _is_no_number(value: object) -> bool:
    if isinstance(value, bool | str | bytes):
        return True
    return _NO_NUMBER.search(str(getattr(value, "dtype", ""))) is not None


def as_integer(value: object) -> int | None:
    """Return `value` as an int if it is an integer of any library (no bool), else None."""
    if _is_no_number(value) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array of floats, or of several elements
        return None


def as_number(value: object) -> float | None:
    """Return `value` as a float if it is a real number (no bool, no text), else None.

    An integer beyond the range of float64 becomes infinite.
    """
    if _is_no_number(value) or not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf  # type: ignore[operator]
    except (TypeError, ValueError, RuntimeError):  # an array of several elements
        return None
