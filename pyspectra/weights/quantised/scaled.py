"""Numbers of 8 or 4 bits beside scales that multiply them: one, one a row, or one a block.

DeepSeek (``weight_scale_inv``, blocks of 128 x 128), compressed-tensors and FBGEMM
(``weight_scale``), Mistral (``qscale_weight``), ComfyUI (``scale_weight``).

References
----------
https://huggingface.co/docs/transformers/quantization/finegrained_fp8
https://github.com/vllm-project/compressed-tensors
https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pyspectra._support.dtypes import FLOAT_DTYPES, find
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.quantised.bits import E2M1, FLOAT_TABLES, two_a_byte
from pyspectra.weights.quantised.scales import apply_scales, block_shape, block_words
from pyspectra.weights.quantised.scheme import (
    MAIN,
    Array,
    FloatArray32,
    MisfitError,
    Module,
    Scheme,
    Shape,
    Weight,
    small_floats,
    type_of,
)

__all__ = ["SCHEMES"]

SCALE = "scale"
ZERO = "zero point"
GLOBAL = "global scale"

_WORDS = {
    "float8_e4m3fn": "fp8 e4m3",
    "float8_e5m2": "fp8 e5m2",
    "float8_e4m3fnuz": "fp8 e4m3fnuz",
    "float8_e5m2fnuz": "fp8 e5m2fnuz",
    "int8": "int8",
}
_E8M0 = "float8_e8m0fnu"


def _scaled(
    tensors: Mapping[str, Array], dtype: str, scale_dtype: str, aligned: Shape, block: Shape
) -> FloatArray32:
    values = small_floats(tensors[MAIN], dtype)
    if ZERO in tensors:
        zeros = tensors[ZERO].astype(np.float32).reshape(aligned)
        # Zero points reach as far as scales.
        values -= apply_scales(np.ones_like(values), zeros, block)
    scales = small_floats(tensors[SCALE], scale_dtype).reshape(aligned)
    return apply_scales(values, scales, block)


class _Scaled(Scheme):
    """8-bit floats and integers."""

    name = "fp8 or int8 with scales"

    def __init__(
        self,
        suffix: str,
        scales: tuple[str, ...],
        zeros: tuple[str, ...] = (),
        weight: str | None = None,
    ) -> None:
        self.suffix = suffix
        self.weight = suffix if weight is None else weight
        self.needed = {SCALE: scales}
        self.optional = {ZERO: zeros}

    def recognises(self, entry: TensorEntry) -> bool:
        dtype = find(entry.dtype)
        return dtype is not None and dtype.name in _WORDS

    def weight_of(self, module: Module) -> Weight:
        shape, scales = module.shape(MAIN), module.shape(SCALE)
        dtype, scale_dtype = (type_of(module.tensors[role]).name for role in (MAIN, SCALE))
        told = module.config.counts("weight_block_size")
        if scale_dtype not in (*FLOAT_DTYPES, *FLOAT_TABLES):
            raise MisfitError(f"{module.tensors[SCALE].key} is of type {scale_dtype}")
        if dtype == "int8" and scale_dtype == _E8M0:
            return _two_a_byte(module, "mxfp4", {SCALE: scale_dtype})
        aligned, block = block_shape(shape, scales, told if len(told) <= len(shape) else ())
        roles: tuple[str, ...] = (MAIN, SCALE)
        if ZERO in module.tensors:
            if module.shape(ZERO) != scales:
                raise MisfitError(f"zero points {module.shape(ZERO)} and scales {scales}")
            roles += (ZERO,)
        formula = functools.partial(
            _scaled, dtype=dtype, scale_dtype=scale_dtype, aligned=aligned, block=block
        )
        bits = module.config.target_bits(module.name + self.weight) or 8
        words = _WORDS[dtype] if bits == 8 else f"int{bits}"
        stored = StoredAs(bits, f"{words}, {block_words(shape, block)}")
        return Weight(shape, stored, formula, roles)


# --- two 4-bit floats in a byte -----------------------------------------------------------------


@dataclass(frozen=True)
class _TwoAByte:
    """Formula of 4-bit floats e2m1 in groups along the last axis."""

    aligned: Shape
    block: Shape
    scale_dtype: str
    divides: bool

    def __call__(self, tensors: Mapping[str, Array]) -> FloatArray32:
        values = two_a_byte(tensors[MAIN].view(np.uint8), E2M1)
        scales = small_floats(tensors[SCALE], self.scale_dtype).reshape(self.aligned)
        if GLOBAL in tensors:
            whole = np.float32(tensors[GLOBAL].reshape(-1)[0])
            scales = scales / whole if self.divides else scales * whole
        return apply_scales(values, scales, self.block)


def _two_a_byte(
    module: Module, words: str, dtypes: Mapping[str, str], *, divides: bool = False
) -> Weight:
    packed = module.shape(MAIN)
    if len(packed) < 2:
        raise MisfitError(f"{module.tensors[MAIN].key} has the shape {packed}")
    shape = (*packed[:-1], 2 * packed[-1])
    aligned, block = block_shape(shape, module.shape(SCALE))
    roles: tuple[str, ...] = (MAIN, SCALE)
    if GLOBAL in module.tensors:
        if int(np.prod(module.shape(GLOBAL))) != 1:
            raise MisfitError(f"a global scale of shape {module.shape(GLOBAL)}")
        roles += (GLOBAL,)
    formula = _TwoAByte(aligned, block, dtypes[SCALE], divides)
    return Weight(shape, StoredAs(4, f"{words}, {block_words(shape, block)}"), formula, roles)


class _FourBitFloats(Scheme):
    """NVFP4 and MXFP4 of compressed-tensors, and NVFP4 of TensorRT Model Optimizer."""

    name = "4-bit floats with scales"
    packs = 2

    def __init__(self, suffix: str, global_scale: str, *, divides: bool, needed: bool) -> None:
        self.suffix = suffix
        self._divides = divides
        self.needed = {SCALE: (".weight_scale",)}
        partner = {GLOBAL: (global_scale,)}
        if needed:
            self.needed = {**self.needed, **partner}
        else:
            self.optional = partner

    def recognises(self, entry: TensorEntry) -> bool:
        dtype = find(entry.dtype)
        return dtype is not None and dtype.name == "uint8"

    def weight_of(self, module: Module) -> Weight:
        dtype = type_of(module.tensors[SCALE]).name
        whole = GLOBAL in module.tensors
        if not whole and dtype == "uint8":  # the type is younger than the format
            dtype = _E8M0
        if dtype not in FLOAT_TABLES:
            raise MisfitError(f"{module.tensors[SCALE].key} is of type {dtype}")
        words = "nvfp4" if whole else "mxfp4"
        return _two_a_byte(module, words, {SCALE: dtype}, divides=self._divides)


# --- the blocks of gpt-oss ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Blocks:
    """Formula of MXFP4 blocks, one expert after the other."""

    turned: bool

    def __call__(self, tensors: Mapping[str, Array]) -> FloatArray32:
        blocks, exponents = tensors[MAIN].view(np.uint8), tensors[SCALE]
        lead = blocks.shape[:-2]
        size = 2 * blocks.shape[-1]
        out = np.empty((*lead, blocks.shape[-2] * size), np.float32)
        for index in range(len(blocks)):
            values = two_a_byte(blocks[index], E2M1)
            values *= small_floats(exponents[index], _E8M0)[..., None]
            out[index] = values.reshape(out[index].shape)
        return np.swapaxes(out, -1, -2) if self.turned else out


class _Mxfp4Blocks(Scheme):
    """Experts of gpt-oss, in whose weights inputs come before outputs once they are unpacked."""

    name = "MXFP4"
    packs = 2

    def __init__(self, suffix: str, scales: str, *, turned: bool) -> None:
        self.suffix, self.weight, self._turned = suffix, "", turned
        self.needed = {SCALE: (scales,)}

    def recognises(self, entry: TensorEntry) -> bool:
        dtype = find(entry.dtype)
        return dtype is not None and dtype.name == "uint8"

    def weight_of(self, module: Module) -> Weight:
        blocks = module.shape(MAIN)
        module.demand(SCALE, blocks[:-1])
        module.demand_type(SCALE, "uint8", _E8M0)
        if len(blocks) < 3 or not all(blocks):
            raise MisfitError(f"blocks of shape {blocks}")
        size = 2 * blocks[-1]
        shape = (*blocks[:-2], blocks[-2] * size)
        if len(shape) < 2:
            raise MisfitError(f"blocks of shape {blocks}")
        turned = self._turned and len(shape) == 3
        if turned:
            shape = (shape[0], shape[2], shape[1])
        words = StoredAs(4, f"mxfp4, groups of {size}")
        return Weight(shape, words, _Blocks(turned), (MAIN, SCALE))


_OF_WEIGHTS = (".weight_scale_inv", ".weight_scale", ".scale_weight", ".qscale_weight", ".scale")

SCHEMES = (
    _FourBitFloats(".weight_packed", ".weight_global_scale", divides=True, needed=False),
    _FourBitFloats(".weight", ".weight_scale_2", divides=False, needed=True),
    _Scaled(".weight", _OF_WEIGHTS, (".weight_zero_point",)),
    _Scaled("", ("_scale_inv", "_scale")),
    # torchao, a tensor of whose classes is flattened to those inside.
    *(
        _Scaled(f"{dot}_weight_qdata", (f"{dot}_weight_scale",), (f"{dot}_weight_zero_point",), w)
        for dot, w in ((".", ".weight"), ("", "weight"))
    ),
    _Mxfp4Blocks("_blocks", "_scales", turned=True),
    _Mxfp4Blocks(".blocks", ".scales", turned=False),
)
