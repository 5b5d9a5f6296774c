"""From a weight tensor to the matrices whose spectra are taken: one rule per kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyspectra._arrays import HostArray
from pyspectra.weights import layer as kinds
from pyspectra.weights.layer import Layer

__all__ = ["WeightMatrices", "matricize", "matrix_shape"]


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


@dataclass(frozen=True)
class _Plan:
    rows: int
    cols: int
    indices: tuple[Any, ...]


_Rule = Callable[[tuple[int, ...]], _Plan]
_RULES: dict[str, tuple[int, _Rule]] = {}


def _rule(rank: int, *names: str) -> Callable[[_Rule], _Rule]:
    def register(function: _Rule) -> _Rule:
        for name in names:
            _RULES[name] = (rank, function)
        return function

    return register


@_rule(
    2,
    kinds.LINEAR,
    kinds.EMBEDDING,
    kinds.CONV1D_GPT2,
    kinds.ATTENTION_IN_PROJ,
    kinds.RNN,
    kinds.LORA,
)
def _whole(shape: tuple[int, ...]) -> _Plan:
    return _Plan(shape[0], shape[1], (...,))


def _kernel_positions(shape: tuple[int, ...]) -> _Plan:
    """One out x in matrix per position of the kernel, in row-major order.

    Transposed convolutions store in x out, which has the same singular values. The groups of a
    grouped convolution stay stacked along the first axis, as stored.
    """
    positions = itertools.product(*(range(n) for n in shape[2:]))
    whole = slice(None)
    return _Plan(shape[0], shape[1], tuple((whole, whole, *p) for p in positions))


for _rank, _base in (
    (3, kinds.CONV1D),
    (3, kinds.CONV_TRANSPOSE1D),
    (4, kinds.CONV2D),
    (4, kinds.CONV_TRANSPOSE2D),
    (5, kinds.CONV3D),
    (5, kinds.CONV_TRANSPOSE3D),
):
    _rule(_rank, _base, _base + kinds.GROUPED)(_kernel_positions)


@_rule(3, kinds.EXPERT_STACK)
def _experts(shape: tuple[int, ...]) -> _Plan:
    return _Plan(shape[1], shape[2], tuple(range(shape[0])))


def _plan(function: str, layer: Layer) -> _Plan:
    entry = _RULES.get(layer.kind)
    if entry is None:
        raise ValueError(
            f"{function}: 'layer' must be of a kind with a rule, got kind {layer.kind!r} "
            f"(layer {layer.name!r}). Hint: kinds with a rule are {', '.join(sorted(_RULES))}."
        )
    rank, rule = entry
    if len(layer.shape) != rank:
        raise ValueError(
            f"{function}: 'layer' of kind {layer.kind!r} must be {rank}-D, got shape "
            f"{layer.shape} (layer {layer.name!r})."
        )
    return rule(layer.shape)


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
        If there is no rule for the layer's kind, or its rank does not fit its kind.
    """
    plan = _plan("matrix_shape", layer)
    return max(plan.rows, plan.cols), min(plan.rows, plan.cols), len(plan.indices)


def matrix_indices(layer: Layer) -> tuple[Any, ...]:
    """Basic indices that cut the tensor of a layer, in whatever library, into its matrices."""
    return _plan("matrix_indices", layer).indices


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
        If there is no rule for the layer's kind, or `array` has not the layer's shape.

    Notes
    -----
    Linear, embedding, attention and recurrent weights and LoRA pairs are one matrix. A convolution
    ``(out, in, *k)`` is ``prod(k)`` slices ``W[:, :, i, j]``, i then j; an expert stack
    ``(E, a, b)`` is E slices ``W[e]``.
    """
    plan = _plan("matricize", layer)
    if array.shape != layer.shape:
        raise ValueError(
            f"matricize: 'array' must have the layer's shape {layer.shape}, got {array.shape}."
        )
    slices = tuple(array.view(index) for index in plan.indices)
    return WeightMatrices(slices, max(plan.rows, plan.cols), min(plan.rows, plan.cols), len(slices))
