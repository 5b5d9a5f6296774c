"""Scales and zero points: which entries each of them belongs to, and how they are applied."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyspectra.weights.quantised.scheme import MisfitError, Shape

__all__ = ["apply_groups", "apply_scales", "block_shape", "block_words"]

FloatArray32 = npt.NDArray[np.float32]
_USUAL_BLOCK = 128
_ROWS_AT_A_TIME = 256


def block_shape(shape: Shape, scales: Shape, told: Shape = ()) -> tuple[Shape, Shape]:
    """Tell which block of a weight each of its scales belongs to.

    Parameters
    ----------
    shape : tuple of int
        Of the weight.
    scales : tuple of int
        Of the scales: none or one for the whole, one a row (a channel, an expert), or as many axes
        as the weight has.
    told : tuple of int
        The block that the configuration tells, along the last axes.

    Returns
    -------
    aligned : tuple of int
        Shape of the scales with one axis for each of the weight.
    block : tuple of int
        Lengths of a block; the last one along an axis may be shorter.

    Raises
    ------
    MisfitError
        If they do not fit.
    """
    aligned = scales
    if int(np.prod(scales)) == 1:
        aligned = (1,) * len(shape)
    elif len(scales) == 1:
        aligned = (*scales, *(1 for _ in shape[1:]))
    if len(aligned) != len(shape):
        raise MisfitError(f"scales of shape {scales} do not fit a weight of shape {shape}")
    told = (*(1 for _ in range(len(shape) - len(told))), *told)
    block = tuple(map(_block, shape, aligned, told, (shape,) * len(shape), (scales,) * len(shape)))
    return aligned, block


def _block(length: int, count: int, told: int, shape: Shape, scales: Shape) -> int:
    """Return the length of a block along one axis."""
    if count == 1:
        return length
    if count == length:
        return 1
    for size in (told, _USUAL_BLOCK):
        if size > 1 and -(-length // size) == count:
            return size
    if count and length % count == 0:
        return length // count
    raise MisfitError(f"scales of shape {scales} do not fit a weight of shape {shape}")


def block_words(shape: Shape, block: Shape) -> str:
    """Say in words what has a scale of its own."""
    if block == shape:
        return "one scale"
    if len(shape) == 2:
        if block == (1, shape[1]):
            return "a scale a row"
        if block[0] == 1:
            return f"groups of {block[1]}"
    if block[1:] == shape[1:] and block[0] == 1:
        return "a scale for each of the first axis"
    return f"blocks of {' x '.join(map(str, block))}"


def apply_scales(values: FloatArray32, scales: FloatArray32, block: Shape) -> FloatArray32:
    """Multiply each block of a weight with its scale, in place.

    Parameters
    ----------
    values : ndarray of float32
        Contiguous.
    scales : ndarray of float32
        One axis for each of `values`.
    block : tuple of int
        As `block_shape` tells it.

    Returns
    -------
    ndarray of float32
        `values`.
    """
    for axis in range(values.ndim - 1):
        if scales.shape[axis] != 1:
            scales = np.repeat(scales, block[axis], axis)
            scales = scales[(slice(None),) * axis + (slice(values.shape[axis]),)]
    size, length = block[-1], values.shape[-1]
    whole = length // size
    # Cutting the last axis in two copies nothing.
    cut = values[..., : whole * size].reshape(*values.shape[:-1], whole, size)
    cut *= scales[..., :whole, None]
    if whole * size < length:
        values[..., whole * size :] *= scales[..., whole:]
    return values


def apply_groups(
    values: npt.NDArray[np.uint8],
    zeros: FloatArray32 | None,
    scales: FloatArray32,
    groups: npt.NDArray[np.int64],
) -> FloatArray32:
    """Return ``(values - zeros) * scales``, where columns share them in groups.

    Parameters
    ----------
    values : ndarray of uint8, shape (rows, columns)
    zeros, scales : ndarray of float32, shape (rows, number of groups)
    groups : ndarray of int64, shape (columns,)
        The group of each column.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
    """
    out = values.astype(np.float32)
    for i in range(0, len(out), _ROWS_AT_A_TIME):  # or scales and zeros would take as much again
        rows = slice(i, i + _ROWS_AT_A_TIME)
        if zeros is not None:
            out[rows] -= zeros[rows][:, groups]
        out[rows] *= scales[rows][:, groups]
    return out
