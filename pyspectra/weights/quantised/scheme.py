"""What the schemes of quantisation share: how one is described, found, checked and read."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import HostArray
from pyspectra._support.dtypes import DType, find
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.quantised.bits import FLOAT_TABLES

__all__ = [
    "MAIN",
    "Config",
    "Dequantised",
    "Formula",
    "MisfitError",
    "Module",
    "Scheme",
    "Weight",
    "floats",
    "integers",
    "is_readable",
    "small_floats",
    "type_of",
]

Array = npt.NDArray[Any]
FloatArray32 = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class MisfitError(Exception):
    """The tensors of a quantised weight do not fit together; the message is a clause."""


@dataclass(frozen=True)
class Config:
    """What the configuration of a model says of its quantisation; all of it may be missing.

    Attributes
    ----------
    values : Mapping
        ``quantization_config`` of ``config.json``, or ``quantize_config.json``.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Return the name of the method, in lower case; empty if it is not told."""
        return self.text("quant_method").lower()

    def text(self, name: str) -> str:
        """Return a text, or an empty one."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def count(self, name: str) -> int | None:
        """Return a positive integer, or None."""
        value = self.values.get(name)
        return value if type(value) is int and value > 0 else None

    def target_bits(self, weight: str) -> int | None:
        """Return the bits of the integers that torchao keeps in an int8 each, if it tells."""
        tensors = self.values.get("tensors")
        text = tensors.get(weight) if isinstance(tensors, Mapping) else None
        try:
            told = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            return None
        for name in ("_data", "target_dtype", "_data"):
            told = told.get(name) if isinstance(told, dict) else None
        match = re.fullmatch(r"u?int([1-8])", told) if isinstance(told, str) else None
        return None if match is None else int(match[1])

    def counts(self, name: str) -> tuple[int, ...]:
        """Return a list of positive integers, or nothing."""
        value = self.values.get(name)
        if isinstance(value, list) and all(type(n) is int and n > 0 for n in value):
            return tuple(value)
        return ()


@dataclass(frozen=True)
class Module:
    """The tensors of one weight.

    Attributes
    ----------
    name : str
        What the keys of its tensors begin with.
    tensors : Mapping
        Role -> the tensor.
    config : Config
    """

    name: str
    tensors: Mapping[str, TensorEntry]
    config: Config

    def shape(self, role: str) -> Shape:
        """Return the shape of a tensor.

        Raises
        ------
        MisfitError
            If the source does not tell.
        """
        shape = self.tensors[role].shape
        if shape is None:
            raise MisfitError(f"the shape of {self.tensors[role].key} is unknown")
        return shape

    def matrix(self, role: str) -> tuple[int, int]:
        """Return the shape of a tensor that must be a matrix, and not empty."""
        shape = self.shape(role)
        if len(shape) != 2 or not all(shape):
            raise MisfitError(f"{self.tensors[role].key} has the shape {shape}")
        return shape[0], shape[1]

    def demand(self, role: str, expected: Shape) -> None:
        """Check the shape of a tensor."""
        if self.shape(role) != expected:
            key, shape = self.tensors[role].key, self.shape(role)
            raise MisfitError(f"{key} has the shape {shape}, not {expected}")

    def demand_type(self, role: str, *names: str) -> None:
        """Check the element type of a tensor."""
        if type_of(self.tensors[role]).name not in names:
            key, dtype = self.tensors[role].key, self.tensors[role].dtype
            raise MisfitError(f"{key} is of type {dtype}, not {' or '.join(names)}")


Formula = Callable[[Mapping[str, Array]], FloatArray32]
"""Computes a weight from its tensors, each by its role: floats as float32, others as stored."""


@dataclass(frozen=True)
class Weight:
    """What a scheme makes of the tensors of a weight.

    Attributes
    ----------
    shape : tuple of int
        Of the weight.
    stored_as : StoredAs
    formula : callable
        Computes it; small, and can be pickled.
    roles : tuple of str
        The tensors that it is computed from.
    """

    shape: Shape
    stored_as: StoredAs
    formula: Formula
    roles: tuple[str, ...]


class Scheme(ABC):
    """One way to store weights in few bits; subclasses are the records of `SCHEMES`.

    Attributes
    ----------
    name : str
        What it is called in messages.
    suffix : str
        How the key ends of the tensor that holds the numbers; its other tensors are looked for
        under what precedes it.
    needed : Mapping
        Role of each other tensor that must be there -> the names that it may have.
    optional : Mapping
        The same of those that need not be there.
    weight : str
        How the key of the weight ends that these tensors stand for.
    packs : int
        Weights in one element of the main tensor.
    """

    name: str
    suffix: str
    needed: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = {}
    weight: str = ".weight"
    packs: int = 1

    @abstractmethod
    def recognises(self, entry: TensorEntry) -> bool:
        """Tell whether a tensor whose key ends in `suffix` may be the main one."""

    @abstractmethod
    def weight_of(self, module: Module) -> Weight:
        """Describe the weight; nothing but a few bytes that describe it are read.

        Raises
        ------
        MisfitError
            If the tensors do not fit together, or hold a variant that is not read.
        """


MAIN: Final = "main"
"""The role of the tensor that holds the numbers."""


@dataclass(frozen=True)
class Dequantised:
    """Loader of a weight: reads its tensors, computes, and keeps none of them.

    Attributes
    ----------
    tensors : Mapping
        Role -> what is read.
    formula : callable
        Computes the weight.
    """

    tensors: Mapping[str, TensorEntry]
    formula: Formula

    def __call__(self) -> HostArray:
        """Read and compute now."""
        read = {role: _read(entry, role) for role, entry in self.tensors.items()}
        with np.errstate(all="ignore"):  # what is not finite is reported downstream
            return HostArray(self.formula(read), "float32")


def _read(entry: TensorEntry, role: str) -> Array:
    # Packed numbers may be declared as floats of any type.
    return floats(entry) if type_of(entry).is_float and role != MAIN else integers(entry)


def type_of(entry: TensorEntry) -> DType:
    """Return the record of a tensor's element type.

    Raises
    ------
    MisfitError
        If there is none.
    """
    dtype = find(entry.dtype)
    if dtype is None:
        raise MisfitError(f"{entry.key} is of type {entry.dtype}")
    return dtype


def floats(entry: TensorEntry) -> FloatArray32:
    """Read a tensor of floating-point numbers as float32."""
    if entry.load is None:
        raise FormatError(f"{entry.key} cannot be read")
    loaded = entry.load() if callable(entry.load) else entry.load.load()
    if loaded.dtype == "bfloat16":
        wide = loaded.data.astype(np.uint32) << np.uint32(16)
        return np.asarray(wide).view(np.float32)
    return np.asarray(loaded.data, np.float32)


def integers(entry: TensorEntry) -> Array:
    """Read a tensor as it is stored: integers, or floats that numpy has not as bit patterns."""
    if entry.raw is None:
        raise FormatError(f"{entry.key} cannot be read")
    raw = entry.raw()
    if raw.shape != entry.shape:
        raise FormatError(f"{entry.key} changed since the source was opened")
    return raw


def small_floats(patterns: Array, dtype: str) -> FloatArray32:
    """Return the values of 8-bit floats; those of integers, and of float32, are what they are."""
    table = FLOAT_TABLES.get(dtype)
    return patterns.astype(np.float32) if table is None else table[patterns.view(np.uint8)]


def is_readable(entry: TensorEntry, role: str) -> bool:
    """Tell whether elements of a tensor can be read at all."""
    dtype = find(entry.dtype)
    if dtype is None or entry.shape is None or math.prod(entry.shape) == 0:
        return False
    return (entry.load if dtype.is_float and role != MAIN else entry.raw) is not None
