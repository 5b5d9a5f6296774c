"""Rounding of weights to the numbers that integers times a scale make: what quantisation does.

`pyspectra.weights.grid` finds the scale of numbers that were rounded; this module rounds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyspectra._support.arguments import check_choice, check_count, check_flag
from pyspectra.errors import ArgumentValueError
from pyspectra.types import FloatArray
from pyspectra.weights.kinds import EMBEDDING, EXPERT_STACK, IN, KINDS, OUT
from pyspectra.weights.layer import Layer

__all__ = ["GRANULARITIES", "IntegerGrid", "check_bits", "checked_grid"]

GRANULARITIES: Final = ("tensor", "channel", "block")
LEAST_BITS: Final = 2
MOST_BITS: Final = 8
BLOCK: Final = 128


@dataclass(frozen=True)
class IntegerGrid:
    """Which weights share a scale, and whether the integers lie around zero.

    Attributes
    ----------
    granularity : {"tensor", "channel", "block"}
        One scale for the whole tensor; for each output channel; for each run of `block` weights of
        an output channel. An expert has channels of its own, and each row of an embedding, which
        belongs to a token, counts as a channel.
    block : int
        Weights that share a scale with ``"block"``: neighbours along the inputs, those of a
        convolution by input channel, then position. What is left at the end of a channel is a
        shorter block.
    symmetric : bool
        The integers reach as far below zero as above it; or from the least weight to the largest.
    """

    granularity: str = "channel"
    block: int = BLOCK
    symmetric: bool = True

    def __str__(self) -> str:
        words = f"blocks of {self.block}" if self.granularity == "block" else self.granularity
        return f"{words}, {'symmetric' if self.symmetric else 'asymmetric'}"

    def rounded(self, layer: Layer, matrices: Sequence[FloatArray], bits: int) -> list[FloatArray]:
        """Return the matrices of a layer with each weight at the nearest point of its grid.

        Parameters
        ----------
        layer : Layer
            Tells which axis of a matrix is the output.
        matrices : sequence of ndarray of float64
            All matrices of the layer, as `pyspectra.weights.matricize.matricize` cuts them; finite.
        bits : int
            Bits of an integer, from 2 to 8.
        """
        stack = np.stack(matrices)  # position, then the two sides as they are stored
        axes = layer.axes or KINDS[layer.kind].axes
        sides = [axis for axis in axes if axis in (OUT, IN)]
        channel = IN if layer.kind == EMBEDDING.name else OUT
        swapped = sides.index(channel) == 1
        if swapped:
            stack = stack.transpose(0, 2, 1)
        joined = layer.kind != EXPERT_STACK.name
        if joined:  # a channel goes through all positions of a kernel
            stack = stack.transpose(1, 2, 0)
        lines = stack.reshape(-1, stack.shape[2] if not joined else stack[0].size)
        found = self._of_lines(lines, bits).reshape(stack.shape)
        if joined:
            found = found.transpose(2, 0, 1)
        return list(found.transpose(0, 2, 1) if swapped else found)

    def _of_lines(self, lines: FloatArray, bits: int) -> FloatArray:
        """Round a matrix whose rows are the channels."""
        if self.granularity == "tensor":
            return self._nearest(lines.reshape(1, -1), bits).reshape(lines.shape)
        if self.granularity == "channel":
            return self._nearest(lines, bits)
        n, m = lines.shape
        block = min(self.block, max(m, 1))
        whole = m - m % block
        out = np.empty((n, m))
        full = np.ascontiguousarray(lines[:, :whole]).reshape(-1, block)
        out[:, :whole] = self._nearest(full, bits).reshape(n, whole)
        out[:, whole:] = self._nearest(lines[:, whole:], bits)
        return out

    def _nearest(self, lines: FloatArray, bits: int) -> FloatArray:
        """Round each row to a grid of its own."""
        if lines.size == 0:
            return lines
        largest = np.abs(lines).max(axis=1, keepdims=True)
        unit = lines / np.where(largest > 0.0, largest, 1.0)  # no square or sum overflows
        if self.symmetric:
            most = 2 ** (bits - 1) - 1
            return np.asarray(np.rint(unit * most) / most * largest)
        steps = 2**bits - 1
        low = np.minimum(unit.min(axis=1, keepdims=True), 0.0)
        high = np.maximum(unit.max(axis=1, keepdims=True), 0.0)
        scale = np.where(high > low, (high - low) / steps, 1.0)
        zero = np.rint(-low / scale)  # the integer that stands for zero
        places = np.clip(np.rint(unit / scale) + zero, 0.0, steps)
        return np.asarray((places - zero) * scale * largest)


def check_bits(function: str, argument: str, value: Any) -> int:
    """Return `value` as a number of bits that there are grids for.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no integer from 2 to 8.
    """
    return check_count(function, argument, value, least=LEAST_BITS, most=MOST_BITS)


def checked_grid(
    function: str, granularity: object, block: object, symmetric: object
) -> IntegerGrid:
    """Return the grid that the arguments of a public function ask for.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If one is of the wrong kind or range, or `block` is given where no blocks are asked for.
    """
    chosen = check_choice(function, "granularity", granularity, GRANULARITIES)
    size = BLOCK
    if block is not None:
        size = check_count(function, "block", block)
        if chosen != "block":
            requirement = "be None unless granularity='block'"
            raise ArgumentValueError(function, "block", requirement, repr(block))
    return IntegerGrid(chosen, size, check_flag(function, "symmetric", symmetric))
