"""Weights in the layout of Keras and JAX, where inputs come before outputs; they are named kernels.

PyTorch's ``weight`` of a convolution is ``(out, in, height, width)``, and a ``kernel`` of Keras or
flax is ``(height, width, in, out)``. Attention keeps its heads as an axis of their own:
``(in, heads, size)`` on the way in, ``(heads, size, out)`` on the way out. Such axes are folded
into one, so that the matrix is that of a linear layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra._support.extents import Extent, extents_of
from pyspectra.weights.kinds import EMBEDDING, EXPERT_STACK, IN, LINEAR, OUT, RNN, UNKNOWN
from pyspectra.weights.kinds import kernel_parts as key_parts
from pyspectra.weights.layer import Held

__all__ = ["KernelLayout", "einsum_layout", "folded", "kernel_layout"]

Shape = tuple[int, ...]
Shapes = Mapping[str, "Shape | None"]
Groups = tuple[tuple[int, ...], ...]

_POSITIONS: Final = ("depth", "height", "width")
# The gates along the outputs of a recurrent kernel, by PyTorch's names of them:
# https://keras.io/api/layers/recurrent_layers/lstm (input, forget, cell, output) and gru (update,
# reset, new).
_GATES: Final = {4: ("i", "f", "g", "o"), 3: ("z", "r", "n")}
NO_PARTS: Final[tuple[str, ...]] = ()
_EQUATION: Final = re.compile(r"(?:\.\.\.)?([a-zA-Z]*),([a-zA-Z]+)->(?:\.\.\.)?([a-zA-Z]*)")
_CONVOLUTION: Final = re.compile("conv", re.IGNORECASE)
_TRANSPOSED: Final = re.compile("transpose", re.IGNORECASE)
_EXPERT: Final = re.compile("expert|moe", re.IGNORECASE)
# What attention calls its ways in and out, between dots.
_WAY_IN: Final = re.compile(r"(?:query|key|value|q|k|v)(?:_dense|_proj)?")
_WAYS_OUT: Final = (
    "output_dense", "attention_output", "out", "o", "output", "out_proj", "o_proj", "proj",
)  # fmt: skip


@dataclass(frozen=True)
class KernelLayout:
    """What the axes of a kernel mean.

    Attributes
    ----------
    kind : str
        Name of its kind.
    axes : tuple of str
        Meaning of each axis, after folding.
    groups : tuple of tuple of int, or None
        The stored axes that each axis is made of; None where they stay as they are.
    part_names : tuple of str or None
        As in `pyspectra.weights.catalogue.TensorEntry`.
    """

    kind: str
    axes: tuple[str, ...] = ()
    groups: Groups | None = None
    part_names: tuple[str, ...] | None = None

    def shape(self, stored: Shape) -> Shape:
        """Return the shape after folding."""
        if self.groups is None:
            return stored
        return tuple(math.prod(stored[i] for i in group) for group in self.groups)


def folded(
    load: Callable[[], HostArray] | Loader, groups: Groups
) -> Callable[[], HostArray] | Loader:
    """Return a loader that joins axes of what another one loads.

    Parameters
    ----------
    load : callable or Loader
        Reads the tensor as it is stored.
    groups : tuple of tuple of int
        The stored axes that each axis of the result is made of; an empty group is an axis of
        length one.

    Returns
    -------
    callable or Loader
        Held in memory, if `load` is.
    """
    if isinstance(load, Held):
        return Held(partial(_folded, load, groups))
    return _Folded(load, groups)


@dataclass(frozen=True)
class _Folded(Loader):
    inner: Callable[[], HostArray] | Loader
    groups: Groups

    def load(self, allocate: Allocate | None = None) -> HostArray:
        return _folded(self.inner, self.groups, allocate)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Those of what is folded."""
        return extents_of(self.inner)


def _folded(
    inner: Callable[[], HostArray] | Loader, groups: Groups, allocate: Allocate | None = None
) -> HostArray:
    array = inner.load(allocate) if isinstance(inner, Loader) else inner()
    shape = tuple(math.prod(array.shape[i] for i in group) for group in groups)
    order = [i for group in groups for i in group]
    return HostArray(array.data.transpose(order).reshape(shape), array.dtype)


def kernel_layout(key: str, shape: Shape, shapes: Shapes) -> KernelLayout | None:
    """Tell the layout of a tensor that goes by one of the names of Keras and JAX.

    Parameters
    ----------
    key : str
        Name of the tensor in its source.
    shape : tuple of int
        Its shape.
    shapes : Mapping
        Every key of the source with its shape.

    Returns
    -------
    KernelLayout or None
        None if the name is none of theirs, or the tensor has fewer than two axes.
    """
    owner, variable = key_parts(key)
    if not variable or len(shape) < 2:
        return None
    if variable.startswith("embedding"):
        return KernelLayout(EMBEDDING.name, (IN, OUT)) if len(shape) == 2 else None
    bias = shapes.get(f"{owner}bias")
    if bias is not None and 2 <= len(bias) < len(shape) and shape[-len(bias) :] == bias:
        layout = _into_heads(len(shape), len(shape) - len(bias))
        # Query, key and value one after the other are parts; head by head they are none.
        return layout if bias[0] == 3 else replace(layout, part_names=NO_PARTS)
    if len(shape) == 2:
        return _of_two_axes(owner, shape, shapes)
    if len(shape) == 3:
        found = _of_three_axes(owner, shape, bias, shapes)
        if found is not None:
            return found
    return _of_convolution(owner, variable, shape, bias)


def _into_heads(rank: int, inputs: int) -> KernelLayout:
    groups = (tuple(range(inputs)), tuple(range(inputs, rank)))
    return KernelLayout(LINEAR.name, (IN, OUT), groups)


def _of_two_axes(owner: str, shape: Shape, shapes: Shapes) -> KernelLayout:
    hidden = shapes.get(f"{owner}recurrent_kernel")
    if hidden is None or len(hidden) != 2 or hidden[1] != shape[1] or not hidden[0]:
        return KernelLayout(LINEAR.name, (IN, OUT))
    gates, rest = divmod(hidden[1], hidden[0])
    names = NO_PARTS if rest else _GATES.get(gates, NO_PARTS)
    return KernelLayout(RNN.name, (IN, OUT), part_names=names)


def _of_three_axes(
    owner: str, shape: Shape, bias: Shape | None, shapes: Shapes
) -> KernelLayout | None:
    """Tell heads of attention and stacks of experts from a convolution, which None stands for."""
    if bias is not None and bias == (shape[0], shape[2]) and bias != shape[1:]:
        return KernelLayout(EXPERT_STACK.name, ("expert", IN, OUT))
    if _CONVOLUTION.search(owner):
        return None
    parent, last = _split(owner)
    if _WAY_IN.fullmatch(last):
        for name in _WAYS_OUT:
            out = shapes.get(f"{parent}{name}{owner[-1]}kernel")
            # As many heads of the same size on the way out: (in, heads, size) is what this is.
            if out is not None and len(out) == 3:
                if out[:2] == shape[1:]:
                    return _into_heads(3, 1)
                if out[0] == shape[0] and out[1] == shape[2]:  # heads first: (heads, in, size)
                    return KernelLayout(LINEAR.name, (IN, OUT), ((1,), (0, 2)))
        return _into_heads(3, 1) if bias == shape[1:] else KernelLayout(UNKNOWN)
    if last in _WAYS_OUT and bias in (None, shape[2:]):
        return _into_heads(3, 2)
    if _EXPERT.search(owner):
        return KernelLayout(EXPERT_STACK.name, ("expert", IN, OUT))
    return None


def _split(owner: str) -> tuple[str, str]:
    """Part ``"encoder.attention.query."`` into ``"encoder.attention."`` and ``"query"``."""
    inside = owner[:-1]
    begin = max(inside.rfind("."), inside.rfind("/")) + 1
    return inside[:begin], inside[begin:]


def _of_convolution(
    owner: str, variable: str, shape: Shape, bias: Shape | None
) -> KernelLayout | None:
    rank = len(shape)
    if rank > 5:
        return None
    positions = _POSITIONS[-(rank - 2) :]
    kind = f"conv{rank - 2}d"
    channels = (math.prod(shape[-2:]),)
    if (
        variable == "depthwise_kernel"
        or "depthwise" in owner.lower()
        or (bias == channels and shape[-1:] != bias)
    ):
        # (channels, multiplier): as many outputs, of one input each.
        spread = tuple((i,) for i in range(rank - 2))
        return KernelLayout(kind, (*positions, IN, OUT), (*spread, (), (rank - 2, rank - 1)))
    if _TRANSPOSED.search(owner):
        return KernelLayout(f"conv_transpose{rank - 2}d", (*positions, OUT, IN))
    return KernelLayout(kind, (*positions, IN, OUT))


def einsum_layout(equation: str, shape: Shape) -> KernelLayout | None:
    """Fold the axes of a kernel by what an equation does with them.

    Parameters
    ----------
    equation : str
        As `numpy.einsum` has it, with the inputs first and the kernel second: ``"abc,cde->abde"``.
    shape : tuple of int
        Shape of the kernel.

    Returns
    -------
    KernelLayout or None
        A stack of matrices, if inputs, kernel and outputs share an axis; None for an equation that
        is no product of two such tensors.
    """
    match = _EQUATION.fullmatch(equation.replace(" ", ""))
    if match is None or len(match[2]) != len(shape) or len(set(match[2])) != len(shape):
        return None
    into, kernel, out = match.groups()
    inputs = tuple(i for i, x in enumerate(kernel) if x in into and x not in out)
    outputs = tuple(i for i, x in enumerate(kernel) if x in out and x not in into)
    stacked = tuple(i for i, x in enumerate(kernel) if x in into and x in out)
    if not inputs or not outputs or len(inputs) + len(outputs) + len(stacked) != len(shape):
        return KernelLayout(UNKNOWN)
    if stacked:
        return KernelLayout(EXPERT_STACK.name, ("expert", IN, OUT), (stacked, inputs, outputs))
    return KernelLayout(LINEAR.name, (IN, OUT), (inputs, outputs), part_names=NO_PARTS)
