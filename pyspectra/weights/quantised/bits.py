"""Small numbers as they are stored: tables of their values, and integers that share words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["E2M1", "FLOAT_TABLES", "WORD", "two_a_byte", "unpacked"]

WORD: Final = 32
"""Bits of the integers that packed numbers share."""

_AT_A_TIME: Final = 1 << 20

Array = npt.NDArray[Any]
Table = npt.NDArray[np.float32]


def _floats(exponent_bits: int, bias: int, *, signed_zero: bool = True, special: int = 1) -> Table:
    """Return the value of each bit pattern of an 8-bit float.

    `special` is the number of patterns at the end of each sign that are no number. Without a
    signed zero, the pattern of -0 is NaN.
    """
    fraction_bits = 7 - exponent_bits
    patterns = np.arange(256)
    exponent = (patterns >> fraction_bits) & ((1 << exponent_bits) - 1)
    fraction = (patterns & ((1 << fraction_bits) - 1)) / (1 << fraction_bits)
    size = np.where(
        exponent > 0,
        np.ldexp(1.0 + fraction, exponent - bias),
        np.ldexp(fraction, 1 - bias),
    )
    size[np.arange(256) % 128 >= 128 - special] = np.nan
    values = np.where(patterns >= 128, -size, size)
    if not signed_zero:
        values[128] = np.nan
    return values.astype(np.float32)


def _e5m2() -> Table:
    # The upper byte of a float16, infinities and all.
    patterns = np.arange(256, dtype=np.uint16) << np.uint16(8)
    return np.asarray(patterns).view(np.float16).astype(np.float32)


def _e8m0() -> Table:
    with np.errstate(over="ignore"):
        values = np.ldexp(1.0, np.arange(256) - 127)
    values[255] = np.nan
    return values.astype(np.float32)


FLOAT_TABLES: Final[Mapping[str, Table]] = {
    "float8_e4m3fn": _floats(4, 7),
    "float8_e5m2": _e5m2(),
    "float8_e4m3fnuz": _floats(4, 8, signed_zero=False, special=0),
    "float8_e5m2fnuz": _floats(5, 16, signed_zero=False, special=0),
    "float8_e8m0fnu": _e8m0(),
}
"""Name of an element type -> the value of each of its 256 bit patterns."""

_E2M1_SIZES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1: Final = np.array([*_E2M1_SIZES, *(-x for x in _E2M1_SIZES)], np.float32)
"""The value of each bit pattern of a 4-bit float."""


def unpacked(words: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Return the unsigned integers that 32-bit words hold, the lowest bits first.

    Parameters
    ----------
    words : ndarray of int32 or uint32, shape (..., n)
        Integers follow one another without a gap, over the ends of words too.
    bits : int
        Bits of an integer, at most 8.

    Returns
    -------
    ndarray of uint8, shape (..., 32 * n // bits)
    """
    little = np.ascontiguousarray(words).astype("<u4", copy=False)
    octets = little.view(np.uint8).reshape(*words.shape[:-1], -1)
    if bits == 8:
        return octets
    if 8 % bits == 0:
        parts = np.empty((*octets.shape, 8 // bits), np.uint8)
        for i in range(8 // bits):
            np.right_shift(octets, np.uint8(i * bits), out=parts[..., i])
        parts &= np.uint8((1 << bits) - 1)
        return parts.reshape(*octets.shape[:-1], -1)
    ones = np.unpackbits(octets, axis=-1, bitorder="little")
    count = ones.shape[-1] // bits
    grouped = ones[..., : count * bits].reshape(*ones.shape[:-1], count, bits)
    return np.packbits(grouped, axis=-1, bitorder="little")[..., 0]


def two_a_byte(octets: npt.NDArray[np.uint8], table: Table, *, high_first: bool = False) -> Table:
    """Return the values of the two 4-bit numbers of each byte.

    Parameters
    ----------
    octets : ndarray of uint8, shape (..., n)
    table : ndarray of float32, shape (16,)
    high_first : bool
        Whether the upper bits come first.

    Returns
    -------
    ndarray of float32, shape (..., 2 * n)
    """
    patterns = np.arange(256)
    low, high = table[patterns & 15], table[patterns >> 4]
    pairs = np.stack([high, low] if high_first else [low, high], axis=1)
    flat = octets.reshape(-1)
    values = np.empty((len(flat), 2), np.float32)
    for start in range(0, len(flat), _AT_A_TIME):  # indices take eight times as much as bytes
        part = slice(start, start + _AT_A_TIME)
        values[part] = pairs[flat[part]]
    return values.reshape(*octets.shape[:-1], -1)
