"""Numbers that are integers times a scale: what quantisation to int8 or int4 leaves of weights.

The scale is that of the whole tensor, of each row, of each column, or of each group of a row. It is
found from the numbers alone: the distances between them are multiples of the least one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import numpy as np

from pyspectra.types import FloatArray

__all__ = ["grid_steps"]

# Integers of 8 bits have so many steps between the least and the largest.
MOST_STEPS: Final = 256
# Fewer numbers, or fewer different ones, may lie on a grid by chance.
FEW_NUMBERS: Final = 16
FEW_LEVELS: Final = 3
# How far from an integer a number may lie, in steps: scales are stored in 16 bits.
OFF: Final = 0.05
GROUPS: Final = (128, 64, 32)
_PROBED: Final = 8
_LONG: Final = 4096


def grid_steps(values: FloatArray) -> FloatArray | None:
    """Return the step of the grid that numbers lie on, in a shape that broadcasts to theirs.

    Parameters
    ----------
    values : ndarray of float64
        At least 2-D; rows are the first axis.

    Returns
    -------
    ndarray of float64 or None
        A step for each row, each column or each group of a row; None if there is no such grid.

    Notes
    -----
    A few lines are looked at first, so that numbers that are no integers cost next to nothing.
    A line of zeros has no step, and fits every grid.
    """
    rows = values.reshape(len(values), -1)
    for lines, back in _ways(rows):
        if lines.shape[1] < FEW_NUMBERS:
            continue
        long = max(1, lines.shape[1] // _LONG)
        probe = lines[:: max(1, len(lines) // _PROBED), ::long]
        if not _have_steps(probe, _line_steps(probe)):
            continue
        steps = _line_steps(lines)
        if _have_steps(lines, steps):
            shaped: FloatArray = back(steps).reshape(values.shape)
            return shaped
    return None


def _ways(rows: FloatArray) -> Iterator[tuple[FloatArray, Callable[[FloatArray], FloatArray]]]:
    """Give each way to cut a matrix in lines, and what brings the steps of lines to its shape."""
    n, m = rows.shape
    yield rows.reshape(1, -1), lambda steps: np.broadcast_to(steps, (n, m))
    yield rows, lambda steps: np.broadcast_to(steps[:, None], (n, m))
    yield rows.T, lambda steps: np.broadcast_to(steps[None, :], (n, m))
    for size in GROUPS:
        if m % size == 0 and m > size:
            yield rows.reshape(-1, size), partial(_of_groups, size=size, shape=(n, m))


def _of_groups(steps: FloatArray, size: int, shape: tuple[int, int]) -> FloatArray:
    return np.repeat(steps, size).reshape(shape)


def _line_steps(lines: FloatArray) -> FloatArray:
    """Return the least distance between different numbers of each line; 0 for one of equal numbers.

    Numbers nearer to each other than half the least step that there may be are the same.
    """
    ordered = np.sort(lines, axis=1)
    reach = ordered[:, -1] - ordered[:, 0]
    gaps = np.diff(ordered, axis=1)
    gaps[gaps < 0.5 / MOST_STEPS * reach[:, None]] = np.inf
    least = gaps.min(1)
    counts = np.where(np.isfinite(least) & (reach > 0.0), np.rint(reach / least), 1.0)
    # The reach of many steps tells one more exactly.
    steps: FloatArray = np.where(reach > 0.0, reach / counts, 0.0)
    return steps


def _have_steps(lines: FloatArray, steps: FloatArray) -> bool:
    """Tell whether all numbers of each line lie on a grid of its step."""
    busy = steps > 0.0
    if not busy.any():
        return False
    lines, steps = lines[busy], steps[busy]
    places = (lines - lines.min(1, keepdims=True)) / steps[:, None]
    whole = np.rint(places)
    counts = whole.max(1)
    if counts.max() > MOST_STEPS or np.median(counts) < FEW_LEVELS:
        return False
    return bool((np.abs(places - whole) <= OFF).all())
