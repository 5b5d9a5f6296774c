"""Models that several ranks saved in pieces: tensors put together again, one at a time.

Tensor parallelism cuts a weight along its outputs or along its inputs, and which of the two follows
from the name. Where no rule knows a name, the pieces are listed and say so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra._support.dtypes import BY_NAME, FLOAT_DTYPES
from pyspectra.errors import ArgumentValueError, FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.skip import Skip, SkippedLayer

__all__ = ["MEGATRON", "Rules", "joined"]

OUTPUTS: Final = 0
INPUTS: Final = 1


@dataclass(frozen=True)
class Rules:
    """Which weights are cut along which axis.

    Attributes
    ----------
    outputs, inputs : re.Pattern
        Found in the names of matrices that are cut along their first and their second axis.
    whole : re.Pattern
        Found in the names of matrices that every rank has whole.
    """

    outputs: re.Pattern[str]
    inputs: re.Pattern[str]
    whole: re.Pattern[str]

    def axis(self, key: str) -> int | None:
        """Return the axis along which a matrix is cut; None if no rule knows its name."""
        if self.outputs.search(key):
            return OUTPUTS
        return INPUTS if self.inputs.search(key) else None


MEGATRON: Final = Rules(
    # Of a fused gate and up each rank holds its own two halves: the rows come in another order,
    # which changes no spectrum.
    outputs=re.compile(
        r"(?:^|\.)(?:query_key_value|query|key_value|dense_h_to_4h|linear_qkv|linear_q|linear_kv"
        r"|linear_fc1|word_embeddings|output_layer|lm_head|final_linear)\.weight$"
    ),
    inputs=re.compile(
        r"(?:^|\.)(?:(?:self_|inter_)?attention\.dense|dense_4h_to_h|linear_proj|linear_fc2)\.weight$"
    ),
    whole=re.compile(r"(?:^|\.)(?:position_embeddings|router)\.weight$"),
)
"""The rules of Megatron-LM and of what DeepSpeed trains with it."""


@dataclass(frozen=True)
class _Pieces(Loader):
    """Loader of a tensor whose pieces lie side by side along an axis."""

    pieces: tuple[TensorEntry, ...]
    axis: int
    shape: tuple[int, ...]
    dtype: str

    def load(self, allocate: Allocate | None = None) -> HostArray:
        whole = (allocate or np.empty)(self.shape, BY_NAME[self.dtype].numpy)
        start = 0
        for piece in self.pieces:
            if piece.load is None:
                raise FormatError(f"{piece.key} cannot be read")
            data = (piece.load() if callable(piece.load) else piece.load.load()).data
            end = start + data.shape[self.axis]
            whole[(slice(None),) * self.axis + (slice(start, end),)] = data
            start = end
        return HostArray(whole, self.dtype)


def joined(folder: Path, ranks: Sequence[Contents], rules: Rules) -> Contents:
    """Join what the ranks of one model hold.

    Parameters
    ----------
    folder : Path
        For messages.
    ranks : sequence of Contents
        One for each rank, in their order.
    rules : Rules
        Which weights are cut, and how.

    Returns
    -------
    Contents
        The tensors of the first rank, whole. Those of one axis are left as they are there.

    Raises
    ------
    FormatError
        If the ranks hold different tensors.
    """
    tables = [{entry.key: entry for entry in contents.entries} for contents in ranks]
    first = tables[0]
    for number, table in enumerate(tables[1:], start=1):
        if table.keys() != first.keys():
            key = min(table.keys() ^ first.keys())
            raise FormatError(
                f"{folder}: the ranks are no pieces of one model: {key!r} is not in both rank 0 "
                f"and rank {number}."
            )
    entries = [_whole([table[key] for table in tables], rules) for key in first]
    beside: tuple[SkippedLayer, ...] = ranks[0].beside

    def close() -> None:
        for contents in ranks:
            contents.close()

    files = tuple(file for contents in ranks for file in contents.files)
    return Contents(ranks[0].format, entries, close, beside=beside, files=files)


def _whole(pieces: Sequence[TensorEntry], rules: Rules) -> TensorEntry:
    """Return the entry of the whole tensor."""
    first = pieces[0]
    shape = first.shape
    if shape is None or len(shape) != 2 or rules.whole.search(first.key) or len(pieces) == 1:
        return first
    axis = rules.axis(first.key)
    readable = all(piece.load is not None and piece.dtype in FLOAT_DTYPES for piece in pieces)
    if axis is None or not readable or not _fit(pieces, axis):
        problem = first.problem or Skip("rank_piece", {"count": len(pieces)})
        return replace(first, load=None, raw=None, problem=problem, per_element=len(pieces))
    total = sum(piece.shape[axis] for piece in pieces if piece.shape is not None)
    whole = (total, shape[1]) if axis == OUTPUTS else (shape[0], total)
    loader = _Pieces(tuple(pieces), axis, whole, first.dtype)
    identity = None if first.identity is None else ("joined", first.identity)
    return replace(first, shape=whole, load=loader, raw=None, identity=identity)


def _fit(pieces: Sequence[TensorEntry], axis: int) -> bool:
    """Tell whether pieces are of one type, and as long across the axis as each other."""
    shapes = [piece.shape for piece in pieces if piece.shape is not None and len(piece.shape) == 2]
    across = {shape[1 - axis] for shape in shapes}
    return len(shapes) == len(pieces) and len(across) == len({p.dtype for p in pieces}) == 1


def check_no_key(key: str | None) -> None:
    """Refuse a choice where there is none: the ranks hold one model."""
    if key is not None:
        requirement = "be None for a model in the pieces of several ranks"
        raise ArgumentValueError("open_weights", "key", requirement, repr(key))
