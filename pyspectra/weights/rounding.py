"""What rounding explains of the difference of two tensors, entry by entry.

A number that was rounded to a type of p significant bits lies within half a spacing of what it
was, and that spacing follows its own size: ``ulp(w) = 2^(exponent of w + 1 - p)``. A file may hold
numbers in a wider type than they once had (a bfloat16 model that was saved as float32), so that the
type that counts is the narrowest one that holds them all. Integers times a scale (int8, int4) lie
on an even grid instead (`pyspectra.weights.grid`), whose spacing is the same for each entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyspectra._support.dtypes import BY_NAME
from pyspectra.types import ESD, FloatArray, Value
from pyspectra.weights.grid import grid_steps

__all__ = ["Change", "change_of", "low_rank", "narrowest_type"]

# Types that weights are rounded to, from the coarsest.
_NARROW: Final = ("bfloat16", "float16", "float32")
# Smallest distance of two numbers of a type: that of its subnormal numbers.
_LEAST: Final = {
    "bfloat16": 2.0**-133, "float16": 2.0**-24, "float32": 2.0**-149, "float64": 2.0**-1074,
}  # fmt: skip
# A difference of at most so many spacings is rounding: half of one where one of both was rounded
# to nearest, one where both were, or one was cut off.
SPACINGS: Final = 1.0
# Rounding to nearest on a grid, whose steps are known to a few parts in a thousand.
HALF_STEP: Final = 0.505
_PROBED: Final = 4096
# A difference is of low rank where what is left without its largest directions is at most so many
# times what rounding makes, and they are at most this share of all.
LEFT: Final = 4.0
LOW: Final = 0.5
# The least of the largest directions is so many times the next one (of eigenvalues): the directions
# of LoRA end at once, those of a full change that is rounded sink below the rounding one by one.
GAP: Final = 2.0


@dataclass(frozen=True, eq=False)
class Change(Value):
    """How far two tensors are apart, and what of it rounding explains.

    Attributes
    ----------
    relative : float
        ``|W - W_base| / |W_base|``, of Frobenius norms; infinite for a base of zeros.
    rounding : float
        What rounding alone makes of it: every entry is off by a third root of its spacing,
        ``sqrt(sum(ulp^2) / 12) / |W_base|``.
    floor : float
        About the largest eigenvalue that a matrix of such errors has.
    only_rounding : bool
        Whether no entry differs by more than one spacing, or half a step of a grid of integers.
    """

    relative: float
    rounding: float
    floor: float
    only_rounding: bool


def narrowest_type(values: FloatArray, dtype: str) -> str:
    """Return the coarsest type that holds all of the values exactly; `dtype` if none does."""
    for name in _NARROW[: _NARROW.index(dtype) if dtype in _NARROW else None]:
        probe = values.ravel()[:: max(1, values.size // _PROBED)]
        if _holds(probe, name) and _holds(values, name):
            return name
    return dtype


def _holds(values: FloatArray, name: str) -> bool:
    with np.errstate(all="ignore"):
        if name == "bfloat16":
            single = values.astype(np.float32)
            low = np.ascontiguousarray(single).view(np.uint32) & np.uint32(0xFFFF)
            return bool((single == values).all() and not low.any())
        return bool((values.astype(name) == values).all())


def change_of(
    after: FloatArray, before: FloatArray, types: tuple[str, str], sides: tuple[int, int]
) -> Change:
    """Measure the difference of two tensors.

    Parameters
    ----------
    after, before : ndarray of float64
        The tensors, of one shape.
    types : (str, str)
        How they are stored.
    sides : (int, int)
        N and M of their matrices.

    Notes
    -----
    The floor is the Marchenko-Pastur edge ``s^2 (sqrt(N) + sqrt(M))^2`` of a matrix of rounding
    errors with the variance ``s^2 = mean(ulp^2) / 12``. Where rows or columns are of different
    scales, it is that of the largest: ``(sqrt(max row sum) + sqrt(max column sum))^2``.
    """
    if not (np.isfinite(after).all() and np.isfinite(before).all()):
        nan = math.nan
        return Change(nan, nan, nan, only_rounding=False)
    names = {*types, narrowest_type(after, types[0]), narrowest_type(before, types[1])}
    spacing = _spacings(np.maximum(np.abs(after), np.abs(before)), names)
    difference = after - before
    far = np.abs(difference) - SPACINGS * spacing
    square = float(np.vdot(before, before))
    variance = np.square(spacing, out=spacing)
    only = not (far > 0.0).any()
    for values in () if only else (after, before):
        steps = grid_steps(values)
        if steps is not None:
            far -= HALF_STEP * steps
            variance += np.square(steps)
    only = only or not (far > 0.0).any()
    variance /= 12.0
    total = float(variance.sum())
    norm = float(np.linalg.norm(difference))
    return Change(
        relative=norm / math.sqrt(square) if square > 0.0 else math.inf,
        rounding=math.sqrt(total / square) if square > 0.0 else math.nan,
        floor=_floor(variance, sides),
        only_rounding=only,
    )


def _spacings(size: FloatArray, names: set[str]) -> FloatArray:
    """Distance of each number from the next one of the types, the largest of them."""
    coarse = max(BY_NAME[name].spacing for name in names)
    found: FloatArray = np.ldexp(coarse, np.frexp(size)[1] - 1)
    # Among the subnormal numbers of float16 the next one is farther than that of bfloat16.
    found = np.maximum(found, max(_LEAST[name] for name in names), out=found)
    found[size == 0.0] = 0.0
    return found


def _floor(variance: FloatArray, sides: tuple[int, int]) -> float:
    N, M = sides
    even = float(variance.mean()) * (math.sqrt(N) + math.sqrt(M)) ** 2
    if variance.ndim != 2:
        return even
    rows, cols = float(variance.sum(1).max()), float(variance.sum(0).max())
    return max(even, (math.sqrt(rows) + math.sqrt(cols)) ** 2)


def low_rank(esd: ESD, change: Change) -> int:
    """Return the rank of a difference if it is low, and 0 if it is not.

    Parameters
    ----------
    esd : ESD
        Spectrum of the difference.
    change : Change
        What of it rounding explains.

    Returns
    -------
    int
        The most directions of any of its matrices that stand above the rounding, where rounding
        explains all the rest and a gap divides the two.
    """
    total = float(esd.evals.sum())
    if not total > 0.0 or not math.isfinite(change.rounding) or not change.relative > 0.0:
        return 0
    # Eigenvalues of float64 have an error of their own.
    floor = max(change.floor, esd.N * np.finfo(np.float64).eps * float(esd.evals[-1]))
    parts = esd.matrix_evals or (esd.evals,)
    counts = [int(np.count_nonzero(evals > floor)) for evals in parts]
    rounding = total * (change.rounding / change.relative) ** 2
    rest = sum(float(e[: len(e) - k].sum()) for e, k in zip(parts, counts, strict=True))
    most = max(counts)
    explained = rest <= LEFT * rounding + len(esd.evals) * floor
    apart = all(_has_gap(e, k) for e, k in zip(parts, counts, strict=True))
    return most if explained and apart and 0 < most <= LOW * esd.M else 0


def _has_gap(evals: FloatArray, count: int) -> bool:
    """Tell whether the largest eigenvalues, so many of them, are well above the next one."""
    if not 0 < count < len(evals):
        return True
    return bool(evals[-count] >= GAP * evals[-count - 1])
