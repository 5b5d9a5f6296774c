"""Integers of a few bits that share 32-bit words: GPTQ, AWQ and compressed-tensors.

References
----------
Frantar et al., "GPTQ: accurate post-training quantization", ICLR 2023.
Lin et al., "AWQ: activation-aware weight quantization", MLSys 2024.
https://github.com/vllm-project/compressed-tensors
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pyspectra._support.dtypes import find
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.quantised.bits import WORD, unpacked
from pyspectra.weights.quantised.scales import (
    apply_groups,
    apply_scales,
    block_shape,
    block_words,
)
from pyspectra.weights.quantised.scheme import (
    MAIN,
    Array,
    FloatArray32,
    MisfitError,
    Module,
    Scheme,
    Shape,
    Weight,
    integers,
)

__all__ = ["SCHEMES"]

SCALES = "scales"
ZEROS = "zeros"
GROUPS = "groups"
SHAPE = "shape"

_FLOATS: Final = ("float16", "bfloat16", "float32")
_GPTQ_BITS: Final = (2, 3, 4, 8)
# Within a word AWQ holds the columns 0, 2, 4, 6, 1, 3, 5, 7: where each of them is.
_AWQ_PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)
_AWQ_BITS: Final = 4


def _is_words(entry: TensorEntry) -> bool:
    dtype = find(entry.dtype)
    return dtype is not None and dtype.name == "int32"


def _group_size(columns: int, count: int, told: int | None) -> int:
    """Return how many columns share a scale; the last group may be smaller."""
    if told is not None and -(-columns // told) == count:
        return told
    if count < 1 or columns % count:
        raise MisfitError(f"{columns} columns make no {count} groups of one size")
    return columns // count


def _group_words(size: int, columns: int) -> str:
    return "a scale a row" if size >= columns else f"groups of {size}"


# --- GPTQ ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _GptqFormula:
    """``(q - z) * s``, transposed: words lie along the inputs, and zero points along the outputs.

    Attributes
    ----------
    bits, group_size : int
    shift : int
        What the file leaves out of zero points: 1 in the first version of the format.
    """

    bits: int
    group_size: int
    shift: int

    def __call__(self, tensors: Mapping[str, Array]) -> FloatArray32:
        scales = tensors[SCALES].T
        values = unpacked(tensors[MAIN].T, self.bits)
        zeros = unpacked(tensors[ZEROS], self.bits)
        zeros = (zeros + np.uint8(self.shift)) & np.uint8((1 << self.bits) - 1)
        columns = values.shape[1]
        groups = np.arange(columns) // self.group_size
        if GROUPS in tensors:
            groups = tensors[GROUPS].astype(np.int64)
            if groups.min() < 0 or groups.max() >= scales.shape[1]:
                raise FormatError(
                    f"g_idx names group {groups.min() if groups.min() < 0 else groups.max()} of "
                    f"{scales.shape[1]}"
                )
        return apply_groups(values, zeros.T.astype(np.float32), scales, groups)


class _Gptq(Scheme):
    name = "GPTQ"
    suffix = ".qweight"
    needed: Mapping[str, tuple[str, ...]] = {SCALES: (".scales",), ZEROS: (".qzeros",)}
    optional: Mapping[str, tuple[str, ...]] = {GROUPS: (".g_idx",)}
    packs = 8

    def recognises(self, entry: TensorEntry) -> bool:
        return _is_words(entry)

    def weight_of(self, module: Module) -> Weight:
        words, rows = module.matrix(MAIN)
        count, of_scales = module.matrix(SCALES)
        of_zeros, zero_words = module.matrix(ZEROS)
        if of_scales != rows or of_zeros != count:
            raise MisfitError(
                f"qweight {words, rows}, qzeros {of_zeros, zero_words} and scales "
                f"{count, of_scales} do not fit together"
            )
        module.demand_type(SCALES, *_FLOATS)
        module.demand_type(ZEROS, "int32")
        bits, rest = divmod(WORD * zero_words, rows)
        if rest or bits not in _GPTQ_BITS or WORD * words % bits:
            raise MisfitError(f"{zero_words} words of zero points for {rows} outputs")
        columns = WORD * words // bits
        roles: tuple[str, ...] = (MAIN, SCALES, ZEROS)
        if GROUPS in module.tensors:
            module.demand(GROUPS, (columns,))
            module.demand_type(GROUPS, "int32", "int64")
            roles += (GROUPS,)
        size = _group_size(columns, count, module.config.count("group_size"))
        order = ", act-order" if module.config.values.get("desc_act") is True else ""
        return Weight(
            (rows, columns),
            StoredAs(bits, f"GPTQ, {_group_words(size, columns)}{order}"),
            _GptqFormula(bits, size, self._shift(module)),
            roles,
        )

    def _shift(self, module: Module) -> int:
        layout = module.config.text("checkpoint_format") or module.config.text("format")
        if layout not in ("", "gptq", "gptq_v2"):
            raise MisfitError(f"the layout {layout!r} is not read")
        return 0 if layout == "gptq_v2" else 1


# --- AWQ ----------------------------------------------------------------------------------------


def _awq_columns(words: Array) -> npt.NDArray[np.uint8]:
    values = unpacked(words, _AWQ_BITS)
    cut = values.reshape(*values.shape[:-1], -1, len(_AWQ_PLACES))
    return cut[..., list(_AWQ_PLACES)].reshape(values.shape)


def _awq_weight(tensors: Mapping[str, Array], group_size: int) -> FloatArray32:
    values = _awq_columns(tensors[MAIN]).T
    zeros = _awq_columns(tensors[ZEROS]).T.astype(np.float32)
    groups = np.arange(values.shape[1]) // group_size
    return apply_groups(values, zeros, tensors[SCALES].T, groups)


class _Awq(Scheme):
    name = "AWQ"
    suffix = ".qweight"
    needed: Mapping[str, tuple[str, ...]] = {SCALES: (".scales",), ZEROS: (".qzeros",)}
    packs = 8

    def recognises(self, entry: TensorEntry) -> bool:
        return _is_words(entry)

    def weight_of(self, module: Module) -> Weight:
        columns, words = module.matrix(MAIN)
        count, rows = module.matrix(SCALES)
        if rows * _AWQ_BITS != words * WORD:
            raise MisfitError(f"qweight of {words} words a row and scales of {rows} outputs")
        module.demand(ZEROS, (count, words))
        module.demand_type(SCALES, *_FLOATS)
        module.demand_type(ZEROS, "int32")
        version = module.config.text("version").lower()
        if version not in ("", "gemm"):
            raise MisfitError(f"the layout {version!r} is not read")
        size = _group_size(columns, count, module.config.count("group_size"))
        stored = StoredAs(_AWQ_BITS, f"AWQ, {_group_words(size, columns)}")
        formula = functools.partial(_awq_weight, group_size=size)
        return Weight((rows, columns), stored, formula, (MAIN, SCALES, ZEROS))


# --- compressed-tensors -------------------------------------------------------------------------


@dataclass(frozen=True)
class _PackedFormula:
    """Integers with a sign, stored with an offset: half of their range."""

    shape: Shape
    bits: int
    aligned: Shape
    block: Shape

    def __call__(self, tensors: Mapping[str, Array]) -> FloatArray32:
        values = unpacked(tensors[MAIN], self.bits)[..., : self.shape[-1]]
        if ZEROS not in tensors and GROUPS not in tensors:
            out = values.astype(np.float32)
            out -= np.float32(1 << (self.bits - 1))
            return apply_scales(out, tensors[SCALES].reshape(self.aligned), self.block)
        zeros: FloatArray32 = np.full(self.aligned, 1 << (self.bits - 1), np.float32)
        if ZEROS in tensors:  # packed along the rows, and with the same offset
            codes = unpacked(tensors[ZEROS].T, self.bits)[:, : self.aligned[0]]
            zeros = codes.T.astype(np.float32)
        groups = np.arange(self.shape[1]) // self.block[1]
        if GROUPS in tensors:
            groups = tensors[GROUPS].astype(np.int64)
            # -1 everywhere stands for "in order".
            if (groups == -1).all():
                groups = np.arange(self.shape[1]) // self.block[1]
            elif groups.min() < 0 or groups.max() >= self.aligned[1]:
                raise FormatError(f"weight_g_idx names a group that is none of {self.aligned[1]}")
        rows = (self.shape[0], self.aligned[1])
        scales = np.broadcast_to(tensors[SCALES].reshape(self.aligned), rows)
        return apply_groups(values, np.broadcast_to(zeros, rows), scales, groups)


class _Packed(Scheme):
    name = "compressed-tensors"
    suffix = ".weight_packed"
    needed: Mapping[str, tuple[str, ...]] = {
        SCALES: (".weight_scale",),
        SHAPE: (".weight_shape",),
    }
    optional: Mapping[str, tuple[str, ...]] = {
        ZEROS: (".weight_zero_point",),
        GROUPS: (".weight_g_idx",),
    }
    packs = 8

    def recognises(self, entry: TensorEntry) -> bool:
        return _is_words(entry)

    def weight_of(self, module: Module) -> Weight:
        packed = module.shape(MAIN)
        shape = self._shape(module)
        if len(packed) < 2 or packed[:-1] != shape[:-1]:
            raise MisfitError(f"weight_packed {packed} and weight_shape {shape} do not fit")
        bits = next(
            (bits for bits in (4, 8, 2) if -(-shape[-1] * bits // WORD) == packed[-1]), None
        )
        if bits is None:  # versions of the library pack other widths in different ways
            raise MisfitError(f"{packed[-1]} words a row do not hold {shape[-1]} numbers")
        module.demand_type(SCALES, *_FLOATS)
        scales = module.shape(SCALES)
        aligned, block = block_shape(shape, scales)
        roles: tuple[str, ...] = (MAIN, SCALES)
        for role in (ZEROS, GROUPS):
            if role in module.tensors:
                roles += (role,)
        if roles[2:]:
            self._check_more(module, shape, aligned, block, bits)
        words = f"int{bits}, {block_words(shape, block)}"
        formula = _PackedFormula(shape, bits, aligned, block)
        return Weight(shape, StoredAs(bits, words), formula, roles)

    def _shape(self, module: Module) -> Shape:
        """Read the shape of the weight, a few integers."""
        length = module.shape(SHAPE)
        if len(length) != 1 or not 2 <= length[0] <= 3:
            raise MisfitError(f"weight_shape has the shape {length}")
        module.demand_type(SHAPE, "int32", "int64")
        return tuple(int(n) for n in integers(module.tensors[SHAPE]))

    def _check_more(
        self, module: Module, shape: Shape, aligned: Shape, block: Shape, bits: int
    ) -> None:
        """Check zero points and the order of groups."""
        if len(shape) != 2 or block[0] not in (1, shape[0]):
            raise MisfitError(f"zero points or g_idx of a weight of shape {shape}")
        if ZEROS in module.tensors:
            module.demand(ZEROS, (-(-aligned[0] * bits // WORD), aligned[1]))
            module.demand_type(ZEROS, "int32")
        if GROUPS in module.tensors:
            module.demand(GROUPS, (shape[1],))
            module.demand_type(GROUPS, "int32", "int64")


SCHEMES = (_Gptq(), _Awq(), _Packed())
