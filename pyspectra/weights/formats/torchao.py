"""Tensors of torchao's classes in torch checkpoints, computed from the tensors inside.

A checkpoint pickles such a tensor as its class and the plain tensors inside. No class is imported.

References
----------
https://docs.pytorch.org/ao/stable/serialization.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra.errors import FormatError
from pyspectra.weights.entries import TensorEntry
from pyspectra.weights.formats.pickle_values import Global
from pyspectra.weights.formats.stored import stored_entry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.quantised import dequantised

__all__ = ["Computed", "torchao_tensor"]

_CLASSES: Final = ("Int8Tensor", "Float8Tensor", "IntxUnpackedToInt8Tensor")
_PARTS: Final = ("qdata", "scale", "zero_point")
# A factor on what goes into the layer, which the weight was divided by.
_BEFORE: Final = "act_pre_scale"


@dataclass(frozen=True)
class Computed(StoredArray):
    """A tensor that is computed from several in a file.

    Attributes
    ----------
    entry : TensorEntry
        What computes it.
    """

    entry: TensorEntry

    @property
    def info(self) -> ArrayInfo:
        """What is known without reading the elements."""
        return ArrayInfo(self.entry.shape, self.entry.dtype, self.entry.identity)

    @property
    def stored_as(self) -> StoredAs | None:
        """How it was quantised."""
        return self.entry.stored_as

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read the tensors, and compute."""
        load = self.entry.load
        if load is None or not callable(load):
            raise FormatError("cannot be read")
        return load()


def torchao_tensor(name: str, shape: tuple[int, ...], state: Any) -> Computed | None:
    """Return the tensor that an object of torchao stands for.

    Parameters
    ----------
    name : str
        Name of its class.
    shape : tuple of int
        That it says it has.
    state : object
        Its attributes.

    Returns
    -------
    Computed or None
        None if it is of a class whose formula is not known, or its parts do not fit.
    """
    if name not in _CLASSES or not isinstance(state, Mapping) or state.get(_BEFORE) is not None:
        return None
    parts = {part: state.get(part) for part in _PARTS}
    entries = [
        stored_entry(f"_weight_{part}", value)
        for part, value in parts.items()
        if isinstance(value, StoredArray)
    ]
    target = state.get("target_dtype")
    dtype = {"_data": target.name} if isinstance(target, Global) else {}
    told = {"weight": json.dumps({"_data": {"target_dtype": dtype}})}
    made = dequantised(entries, {"tensors": told})
    whole = [entry for entry in made if entry.stored_as is not None]
    return Computed(whole[0]) if len(made) == 1 and whole and whole[0].shape == shape else None
