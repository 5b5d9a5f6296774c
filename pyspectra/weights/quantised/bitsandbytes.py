"""bitsandbytes: 8-bit rows with their largest number, and 4-bit codes of a table.

References
----------
Dettmers et al., "LLM.int8()", NeurIPS 2022; Dettmers et al., "QLoRA", NeurIPS 2023.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyspectra._support.dtypes import find
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.quantised.bits import two_a_byte
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
    type_of,
)

__all__ = ["SCHEMES"]

STATE = "state"
LARGEST = "largest"
TABLE = "table"
NESTED_LARGEST = "nested largest"
NESTED_TABLE = "nested table"
LAYOUT = "layout"

_MAX_STATE_BYTES: Final = 1 << 16


def _rows_of_int8(tensors: Mapping[str, Array]) -> FloatArray32:
    values = tensors[MAIN].astype(np.float32)
    values *= (tensors[LARGEST] / np.float32(127))[:, None]
    return values


class _Int8(Scheme):
    name = "bitsandbytes int8"
    suffix = ".weight"
    needed: Mapping[str, tuple[str, ...]] = {LARGEST: (".SCB", ".weight.SCB")}
    optional: Mapping[str, tuple[str, ...]] = {LAYOUT: (".weight_format", ".weight.weight_format")}

    def recognises(self, entry: TensorEntry) -> bool:
        dtype = find(entry.dtype)
        return dtype is not None and dtype.name == "int8"

    def weight_of(self, module: Module) -> Weight:
        rows, columns = module.matrix(MAIN)
        module.demand(LARGEST, (rows,))
        module.demand_type(LARGEST, "float32", "float16", "bfloat16")
        if LAYOUT in module.tensors:
            if math.prod(module.shape(LAYOUT)) != 1:
                raise MisfitError(f"weight_format has the shape {module.shape(LAYOUT)}")
            layout = int(integers(module.tensors[LAYOUT]).reshape(-1)[0])
            if layout != 0:
                raise MisfitError(f"rows are not stored one after the other (format {layout})")
        stored = StoredAs(8, "bitsandbytes int8, a scale a row")
        return Weight((rows, columns), stored, _rows_of_int8, (MAIN, LARGEST))


@dataclass(frozen=True)
class _Codes:
    """Formula of 4-bit codes, the upper half of a byte first.

    Attributes
    ----------
    shape : tuple of int
    block, nested_block : int
        Numbers that share a scale, and scales that share one of their own; 0 if they do not.
    offset : float
        Added to scales that are codes themselves.
    """

    shape: Shape
    block: int
    nested_block: int
    offset: float

    def __call__(self, tensors: Mapping[str, Array]) -> FloatArray32:
        octets = tensors[MAIN].reshape(-1).view(np.uint8)
        scales, table = tensors[LARGEST].reshape(-1), tensors[TABLE]
        if self.nested_block:
            codes = scales
            scales = tensors[NESTED_TABLE][codes]
            of_scales = np.repeat(tensors[NESTED_LARGEST].reshape(-1), self.nested_block)
            scales *= of_scales[: len(codes)]
            scales += np.float32(self.offset)
        count = math.prod(self.shape)
        out = two_a_byte(octets, table, high_first=True)[:count]
        whole = count // self.block
        cut = out[: whole * self.block].reshape(whole, self.block)
        cut *= scales[:whole, None]
        out[whole * self.block :] *= scales[whole:]
        return out.reshape(self.shape)


class _FourBits(Scheme):
    name = "bitsandbytes 4-bit"
    suffix = ".weight"
    needed: Mapping[str, tuple[str, ...]] = {
        STATE: (
            ".weight.quant_state.bitsandbytes__nf4",
            ".weight.quant_state.bitsandbytes__fp4",
        ),
        LARGEST: (".weight.absmax",),
        TABLE: (".weight.quant_map",),
    }
    optional: Mapping[str, tuple[str, ...]] = {
        NESTED_LARGEST: (".weight.nested_absmax",),
        NESTED_TABLE: (".weight.nested_quant_map",),
    }
    packs = 2

    def recognises(self, entry: TensorEntry) -> bool:
        return True  # any type may hold the bytes (bnb_4bit_quant_storage)

    def weight_of(self, module: Module) -> Weight:
        state = self._state(module)
        listed = state.get("shape")
        if not isinstance(listed, list) or not listed:
            raise MisfitError(f"its state has the shape {str(listed)[:80]}")
        shape = tuple(_positive(n, "a length") for n in listed)
        block = _positive(state.get("blocksize"), "a block size")
        octets = math.prod(module.shape(MAIN)) * type_of(module.tensors[MAIN]).item_bytes
        count = math.prod(shape)
        if octets != (count + 1) // 2:
            raise MisfitError(f"{octets} bytes hold no {count} codes of 4 bits")
        module.demand(TABLE, (16,))
        module.demand_type(TABLE, "float32")
        blocks = -(-count // block)
        if math.prod(module.shape(LARGEST)) != blocks:
            raise MisfitError(f"absmax has the shape {module.shape(LARGEST)}, not {(blocks,)}")
        kind = module.tensors[STATE].key.rpartition("__")[2]
        stored = StoredAs(4, f"bitsandbytes {kind}, blocks of {block}")
        roles: tuple[str, ...] = (MAIN, LARGEST, TABLE)
        nested = 0
        offset = 0.0
        if type_of(module.tensors[LARGEST]).name == "uint8":
            nested, offset = self._nested(module, state, blocks)
            roles += (NESTED_LARGEST, NESTED_TABLE)
            stored = StoredAs(4, f"{stored.words}, scales in 8 bits")
        else:
            module.demand_type(LARGEST, "float32")
        return Weight(shape, stored, _Codes(shape, block, nested, offset), roles)

    def _state(self, module: Module) -> dict[str, Any]:
        """Read what describes the codes, a few hundred bytes of JSON."""
        entry = module.tensors[STATE]
        module.demand_type(STATE, "uint8")
        if math.prod(module.shape(STATE)) > _MAX_STATE_BYTES:
            raise MisfitError(f"{entry.key} has the shape {entry.shape}")
        try:
            state = json.loads(integers(entry).tobytes().decode("utf-8"))
        except (ValueError, RecursionError):
            raise MisfitError(f"{entry.key} is not JSON") from None
        if not isinstance(state, dict):
            raise MisfitError(f"{entry.key} is not a JSON object")
        return state

    def _nested(self, module: Module, state: dict[str, Any], blocks: int) -> tuple[int, float]:
        """Check the scales of the scales; return how many share one, and the offset."""
        if not {NESTED_LARGEST, NESTED_TABLE} <= set(module.tensors):
            raise MisfitError("its scales are codes, and their table or scales are missing")
        nested = _positive(state.get("nested_blocksize"), "a block size")
        offset = state.get("nested_offset")
        if not isinstance(offset, (int, float)):
            raise MisfitError("its state does not tell the offset of its scales")
        module.demand(NESTED_TABLE, (256,))
        module.demand_type(NESTED_TABLE, "float32")
        module.demand_type(NESTED_LARGEST, "float32")
        if math.prod(module.shape(NESTED_LARGEST)) != -(-blocks // nested):
            raise MisfitError(f"nested_absmax has the shape {module.shape(NESTED_LARGEST)}")
        return nested, float(offset)


def _positive(x: object, what: str) -> int:
    if isinstance(x, int) and not isinstance(x, bool) and 0 < x < 1 << 40:
        return x
    raise MisfitError(f"its state has {what} of {str(x)[:80]}")


SCHEMES = (_FourBits(), _Int8())
