"""Parts of a fused weight, as layers.

A fused weight (query, key and value of an attention; the gates of a recurrent cell) is several
matrices under one name. It stays a layer, and each part becomes one more, which reads the whole
and looks at its rows or columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra._support.extents import Extent
from pyspectra.weights.kinds import (
    ATTENTION_IN_PROJ,
    CONV1D_GPT2,
    LINEAR,
    OUT,
    RNN,
    layer_name,
)
from pyspectra.weights.layer import Held, Layer

__all__ = ["GRU_GATES", "LSTM_GATES", "NO_PARTS", "part_layers"]

Shape = tuple[int, ...]
Shapes = Mapping[str, "Shape | None"]

QKV: Final = ("q", "k", "v")
# The order in which PyTorch stacks the gates along the rows, for weight_ih and weight_hh alike:
# https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html (W_ii|W_if|W_ig|W_io)
# https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html (W_ir|W_iz|W_in)
LSTM_GATES: Final = ("i", "f", "g", "o")
GRU_GATES: Final = ("r", "z", "n")
NO_PARTS: Final[tuple[str, ...]] = ()

_GATES_BY_COUNT: Final = {4: LSTM_GATES, 3: GRU_GATES}
_GATED_KEY = re.compile(r"((?:.*\.)?weight_)(?:ih|hh)((?:_l[0-9]+(?:_reverse)?)?)", re.DOTALL)
# Names under which q, k and v lie one after the other. Not `query_key_value` (BLOOM, GPT-NeoX):
# there the rows run head by head, q, k and v of the first head first, so that a third of the rows
# is a mixture of all three.
_FUSED_QKV: Final = ("c_attn", "Wqkv", "qkv")
# So they run under the name `qkv` in MaxViT (timm), and beside a table of attention biases in
# TinyViT and EfficientFormer, where three times the width may be a coincidence, too.
_HEAD_BY_HEAD: Final = re.compile(r"(?:^|\.)attn_(?:block|grid)\.attn\.qkv")
_BIASES_BESIDE: Final = "attention_biases"


def part_layers(layer: Layer, names: Sequence[str] | None, shapes: Shapes) -> tuple[Layer, ...]:
    """Cut a fused weight into its parts.

    Parameters
    ----------
    layer : Layer
        The whole.
    names : sequence of str or None
        Names of the parts where the source knows them (empty: it has none); None to go by the
        name and shape of the layer and of its neighbours.
    shapes : Mapping
        Every key of the source with its shape, None where that is unknown.

    Returns
    -------
    tuple of Layer
        One layer of kind ``"linear"`` per part, each a view of the whole; empty if there are
        none.
    """
    if len(layer.shape) != 2:
        return ()
    axis = layer.axes.index(OUT) if layer.axes else 0
    if names is None:
        if layer.kind == ATTENTION_IN_PROJ.name:
            names = QKV
        elif layer.kind == RNN.name:
            names = _gates_by_shape(layer, shapes)
        elif layer.kind in (LINEAR.name, CONV1D_GPT2.name) and _is_fused_qkv(layer, shapes):
            # A linear layer stores (3E, E), the `Conv1D` of GPT-2 the transpose.
            names = QKV
            axis = int(np.argmax(layer.shape))
    if not names or layer.shape[axis] % len(names):
        return ()
    size = layer.shape[axis] // len(names)
    shape = (size, layer.shape[1]) if axis == 0 else (layer.shape[0], size)
    before = (slice(None),) * axis
    return tuple(
        Layer(
            name=f"{layer.name}[{name}]",
            kind=LINEAR.name,
            shape=shape,
            dtype=layer.dtype,
            layer_id=layer.layer_id,
            key=layer.key,
            _loader=_Part(layer, (*before, slice(i * size, (i + 1) * size))),
            part_of=layer.name,
            axes=layer.axes,
            position=layer.position,
            stored_as=layer.stored_as,
        )
        for i, name in enumerate(names)
    )


@dataclass(frozen=True)
class _Part(Loader):
    """Loader of a part; of one in memory, it pickles with that part alone."""

    whole: Layer
    index: tuple[slice, ...]

    def load(self, allocate: Allocate | None = None) -> HostArray:
        return self.whole.load(allocate).view(self.index)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Those of the whole."""
        return self.whole.extents

    def __reduce__(self) -> tuple[object, ...]:
        if self.whole.in_memory:
            return Held(self.load).__reduce__()
        return _Part, (self.whole, self.index)


def _is_fused_qkv(layer: Layer, shapes: Shapes) -> bool:
    before, _, last = layer_name(layer.key).rpartition(".")
    if last not in _FUSED_QKV or max(layer.shape) != 3 * min(layer.shape):
        return False
    return not _HEAD_BY_HEAD.search(layer.key) and f"{before}.{_BIASES_BESIDE}" not in shapes


def _gates_by_shape(layer: Layer, shapes: Shapes) -> tuple[str, ...]:
    """Tell the cell by the shape of its ``weight_hh``: (4H, H) in an LSTM, (3H, H) in a GRU.

    ``weight_ih`` says nothing by itself, its columns being the inputs: it goes by its companion.
    """
    match = _GATED_KEY.fullmatch(layer.key)
    if match is None:
        return NO_PARTS
    start, end = match.groups()
    hidden = shapes.get(f"{start}hh{end}")
    if hidden is None or len(hidden) != 2 or hidden[0] != layer.shape[0] or hidden[1] == 0:
        return NO_PARTS
    projection = shapes.get(f"{start}hr{end}")
    if projection is not None:
        # Its columns are the hidden units, and those of weight_hh its outputs. Only an LSTM has it.
        fits = len(projection) == 2 and hidden[0] == len(LSTM_GATES) * projection[1]
        return LSTM_GATES if fits else NO_PARTS
    gates, rest = divmod(hidden[0], hidden[1])
    return NO_PARTS if rest else _GATES_BY_COUNT.get(gates, NO_PARTS)
