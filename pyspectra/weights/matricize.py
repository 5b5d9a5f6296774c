"""From a weight tensor to the matrices whose spectra are taken: by the axes of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.errors import ArgumentValueError
from pyspectra.weights import kinds
from pyspectra.weights.layer import Layer

__all__ = ["WeightMatrices", "apart", "as_matrix", "matricize", "matrix_indices", "matrix_shape"]


@dataclass(frozen=True)
class WeightMatrices:
    """The matrices of one layer.

    Attributes
    ----------
    slices : tuple of HostArray
        2-D views of the layer's memory, as stored (rows may be fewer than columns), any strides.
    N, M : int
        Larger and smaller side of every slice.
    rf : int
        Number of slices: the size of the receptive field of a convolution, the number of experts
        of a stack, otherwise 1.
    """

    slices: tuple[HostArray, ...]
    N: int
    M: int
    rf: int


def matrix_shape(layer: Layer) -> tuple[int, int, int]:
    """Sizes of the matrices of a layer, from its shape alone: nothing is loaded.

    Parameters
    ----------
    layer : Layer
        The layer.

    Returns
    -------
    N, M, rf : int
        Larger side, smaller side and number of matrices.

    Raises
    ------
    ValueError
        If the layer's kind is unknown, or its rank does not fit its kind.
    """
    return layer.matrix_sizes


def matrix_indices(layer: Layer) -> tuple[Any, ...]:
    """Basic indices that cut the tensor of a layer, in whatever library, into its matrices."""
    return kinds.matrix_indices(layer.matrix_axes("matrix_indices"), layer.shape)


def matricize(layer: Layer, array: HostArray) -> WeightMatrices:
    """Cut a weight tensor into the matrices whose spectra are taken.

    Parameters
    ----------
    layer : Layer
        Tells the kind.
    array : HostArray
        What ``layer.load()`` returned.

    Returns
    -------
    WeightMatrices
        Views of `array`; nothing is copied or scaled.

    Raises
    ------
    ValueError
        If the layer's kind is unknown, or `array` has not the layer's shape.

    Notes
    -----
    Linear, embedding, attention and recurrent weights and LoRA pairs are one matrix. A convolution
    ``(out, in, *k)`` is ``prod(k)`` slices ``W[:, :, i, j]``, i then j; an expert stack
    ``(E, a, b)`` is E slices ``W[e]``.
    """
    axes = layer.matrix_axes("matricize")
    if array.shape != layer.shape:
        raise ArgumentValueError(
            "matricize", "array", f"have the layer's shape {layer.shape}", str(array.shape)
        )
    indices = kinds.matrix_indices(axes, layer.shape)
    return WeightMatrices(tuple(map(array.view, indices)), *layer.matrix_sizes)


def apart(layer: Layer, array: HostArray) -> HostArray:
    """Lay the entries of each matrix of a layer beside each other.

    The entries of one slice of a convolution lie as far apart as the kernel has positions. Whatever
    reads slices one after the other would take all of the tensor from memory for each of them.

    Parameters
    ----------
    layer : Layer
        Tells the kind.
    array : HostArray
        What ``layer.load()`` returned.

    Returns
    -------
    HostArray
        The same entries at the same indices: a copy where slices lie interleaved, else `array`.

    Raises
    ------
    ValueError
        If the layer's kind is unknown, or its rank does not fit its kind.
    """
    axes = layer.matrix_axes("apart")
    _, M, rf = layer.matrix_sizes
    data = array.data
    # Slices of one row or column are read together anyway (`null_test.tested`).
    if rf == 1 or M == 1 or {*axes[:2]} != {kinds.OUT, kinds.IN} or not data.flags.c_contiguous:
        return array
    slices = ops.deal_out(data.reshape(-1, rf))
    whole = slices.reshape(*data.shape[2:], *data.shape[:2])
    return HostArray(np.moveaxis(whole, (-2, -1), (0, 1)), array.dtype)


def as_matrix(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Return the values of a layer of one matrix with a row for each of what comes out of it.

    Parameters
    ----------
    layer : Layer
        Tells the kind.
    values : ndarray
        Of the layer's shape.

    Returns
    -------
    ndarray, shape (out, in)
        A view.
    """
    axes = layer.matrix_axes("as_matrix")
    (index,) = kinds.matrix_indices(axes, layer.shape)
    matrix = np.asarray(values[index])
    return matrix.T if axes.index(kinds.OUT) > axes.index(kinds.IN) else matrix
