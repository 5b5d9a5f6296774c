"""Numbers as callers give them: Python's, numpy's, or scalars of a tensor library."""

from __future__ import annotations

import math
import operator
from typing import SupportsFloat, SupportsIndex

import numpy as np

__all__ = ["as_integer", "as_number"]


def as_integer(value: object) -> int | None:
    """Return `value` as an int if it is an integer of any library (no bool), else None."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array of floats, or of several elements
        return None


def as_number(value: object) -> float | None:
    """Return `value` as a float if it is a real number (no bool, no text), else None.

    An integer beyond the range of float64 becomes infinite.
    """
    if isinstance(value, bool | np.bool_ | str | bytes | np.complexfloating):
        return None
    if not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf  # type: ignore[operator]
    except (TypeError, ValueError, RuntimeError):  # an array of several elements
        return None
