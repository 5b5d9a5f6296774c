"""Elements of floating-point types as float64, and back: each is rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import HostArray
from pyspectra._support.dtypes import BY_NAME, DType
from pyspectra.types import FloatArray

__all__ = ["from_bytes", "round_to", "within_range"]


def round_to(values: FloatArray, dtype: str) -> npt.NDArray[Any]:
    """Round float64 to another type, once, to nearest even.

    Parameters
    ----------
    values : numpy.ndarray
        float64.
    dtype : str
        ``"float64"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Returns
    -------
    numpy.ndarray
        Little-endian, of that type; of ``"bfloat16"`` the bit patterns as uint16.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != "bfloat16":
            return values.astype(_little(BY_NAME[dtype]), copy=False)
        single = values.astype(np.float32)
        wide = single.astype(np.float64)
        bits = single.view(np.uint32)
        # Rounding twice errs where the first step lands on a tie of the second. So the first one
        # rounds to odd: toward zero, with the last bit set where something was cut off.
        bits -= np.abs(wide) > np.abs(values)
        bits |= (wide != values) & ~np.isnan(values)
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16
        # Adding would carry the payload of a NaN into infinity or the sign.
        quiet = (bits >> 16) | np.uint32(0x40)
        return np.where(np.isnan(values), quiet, rounded).astype("<u2")


def within_range(values: FloatArray, dtype: str) -> FloatArray:
    """Return float64 values with those beyond the range of another type at the ends of it.

    Parameters
    ----------
    values : numpy.ndarray
        float64; NaN stays.
    dtype : str
        As for `round_to`.

    Returns
    -------
    numpy.ndarray
        float64, which `round_to` makes no infinity of.
    """
    kind = BY_NAME[dtype]
    # bfloat16 has the exponents of float32.
    exponents = np.finfo(np.float32 if dtype == "bfloat16" else kind.numpy).maxexp
    largest = float(np.ldexp(2.0 - kind.spacing, exponents - 1))
    return np.clip(values, -largest, largest)


def from_bytes(raw: npt.NDArray[np.uint8], dtype: DType) -> FloatArray:
    """Return little-endian elements of a floating-point type as float64, which is exact."""
    data = raw.view(_little(dtype)).astype(dtype.numpy, copy=False)
    return HostArray(data, dtype.name).to_float64()


def _little(dtype: DType) -> np.dtype[Any]:
    return dtype.numpy.newbyteorder("<")
