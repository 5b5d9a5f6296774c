"""Models to merge, wherever they are: tensors by name, and what was added to those of a base."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pyspectra._arrays import array_info, is_torch_module, raw_array
from pyspectra._support.dtypes import find
from pyspectra.edit.files import Checkpoint, Tensor, open_checkpoint
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.types import FloatArray
from pyspectra.weights import find_model
from pyspectra.weights.formats import state_dict
from pyspectra.weights.formats.stored import ReadRange

__all__ = [
    "Base",
    "Difference",
    "Model",
    "chunk_of",
    "difference_from",
    "listed",
    "opened",
    "tensors_of",
]


@dataclass(frozen=True)
class Model:
    """A model whose tensors are read a part at a time.

    Attributes
    ----------
    name : str
        How messages call it: its path, or what kind of object it is.
    tensors : Mapping
        Name -> tensor.
    checkpoint : Checkpoint or None
        What it is in, if that is a file or a folder.
    """

    name: str
    tensors: Mapping[str, Tensor]
    checkpoint: Checkpoint | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return self.checkpoint.files if self.checkpoint is not None else ()


def opened(function: str, argument: str, model: Any, to_be: str) -> Model:
    """List the tensors of a model, wherever it is.

    Parameters
    ----------
    function, argument : str
        The public function and its argument, for messages.
    model : nn.Module, mapping or path
        A model, a state dict, or a checkpoint as `open_checkpoint` takes it.
    to_be : str
        What is to be done to it, for messages.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MissingPathError, FormatError
        If it is none of these, does not exist, or cannot be read.
    """
    if is_torch_module(model):
        name = f"a {type(model).__name__}"
        return Model(name, tensors_of(function, argument, model.state_dict()))
    if isinstance(model, Mapping):
        return Model("a state dict", tensors_of(function, argument, model))
    if not isinstance(model, str | os.PathLike):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError(function, argument, "be a module, a state dict or a path", got)
    with called_as(function, model_or_path=argument):
        path = find_model(os.fspath(model))
    checkpoint = open_checkpoint(path, to_be)
    return Model(str(path), checkpoint.tensors, checkpoint)


def tensors_of(function: str, argument: str, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """List the tensors of a state dict that numbers can be read from, or that are integers."""
    found = {}
    for key, value in state_dict.flat(state).items():
        info = array_info(value)
        if info is None:
            continue
        dtype = find(info.dtype)
        unusable = info.problem is not None and info.problem.code != "dtype"
        if info.shape is None or dtype is None or not dtype.is_copied or unusable:
            got = f"{key!r}, which is {info.problem or info.dtype}"
            raise ArgumentTypeError(function, argument, "hold tensors that can be read", got)
        found[key] = Tensor(key, dtype, info.shape, _InMemory(value), info.identity)
    return found


@dataclass(frozen=True)
class _InMemory:
    """Opens an array as tensors of files are opened: ranges of its bytes, little-endian."""

    array: Any

    @contextlib.contextmanager
    def __call__(self) -> Iterator[ReadRange]:
        dense = np.ascontiguousarray(raw_array(self.array)).reshape(-1)
        raw = dense.astype(dense.dtype.newbyteorder("<"), copy=False).view(np.uint8)
        yield lambda begin, end: raw[begin:end]


def chunk_of(tensor: Tensor, count: int) -> int:
    """Return how many elements to read at a time: whole rows, and about `count`."""
    row = max(1, int(np.prod(tensor.shape[1:])))
    return max(1, count // row) * row


@dataclass(frozen=True)
class Base:
    """The model that others were trained from.

    Attributes
    ----------
    model : Model
    owners : Mapping
        Name of a floating-point tensor -> the first name of those that share its memory.
    names : Mapping
        Such a first name -> all of them.
    """

    model: Model
    owners: Mapping[str, str] = field(init=False)
    names: Mapping[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        owners = _owners(self.model.tensors)
        names: dict[str, tuple[str, ...]] = {}
        for key, owner in owners.items():
            names[owner] = (*names.get(owner, ()), key)
        object.__setattr__(self, "owners", owners)
        object.__setattr__(self, "names", names)

    @property
    def tensors(self) -> list[Tensor]:
        """The floating-point tensors, tied ones once."""
        return [self.model.tensors[key] for key in self.names]


def _owners(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    first: dict[Hashable, str] = {}
    return {
        key: key if tensor.identity is None else first.setdefault(tensor.identity, key)
        for key, tensor in tensors.items()
        if tensor.dtype.is_float
    }


@dataclass(frozen=True)
class Difference:
    """The task vector of a whole model: what it has, less what the base has.

    Attributes
    ----------
    model : Model
        It has the names and shapes of the base; `difference_from` checks that.
    keys : Mapping
        Name of a tensor of the base, tied ones by their first -> its name in the model.
    """

    model: Model
    keys: Mapping[str, str]

    @property
    def name(self) -> str:
        """How messages call the model."""
        return self.model.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return self.model.files

    def parts(self, key: str, count: int) -> Iterator[FloatArray] | None:
        """Read the values of a tensor of the base, so many at a time."""
        return self.model.tensors[self.keys[key]].chunks(count)

    def delta(self, part: FloatArray, base: FloatArray) -> FloatArray:
        """Return what was added: nothing where both are the same, infinities and NaN included."""
        with np.errstate(invalid="ignore", over="ignore"):
            same = (part == base) | (np.isnan(part) & np.isnan(base))
            return np.where(same, 0.0, part - base)


def difference_from(function: str, argument: str, base: Base, model: Model) -> Difference:
    """Match the tensors of a model with those of the base.

    Parameters
    ----------
    function, argument : str
        For messages.
    base : Base
    model : Model

    Raises
    ------
    ArgumentValueError
        If names or shapes differ, or weights that are tied in the base are not in the model.

    Notes
    -----
    Integers and booleans do not count. Weights that share memory count once, so that a model may
    lack a second name of a tied weight, as files of safetensors do.
    """

    def unlike(got: str, hint: str | None = None) -> ArgumentValueError:
        requirement = "have the names and shapes of the base"
        return ArgumentValueError(function, argument, requirement, f"{model.name}, {got}", hint)

    owners = _owners(model.tensors)
    keys = {}
    lacking = []
    for owner, names in base.names.items():
        found = [name for name in names if name in owners]
        if not found:
            lacking.append(owner)
            continue
        keys[owner] = found[0]
        shape, expected = model.tensors[found[0]].shape, base.model.tensors[owner].shape
        if shape != expected:
            raise unlike(f"where {found[0]!r} has shape {shape} instead of {expected}")
        for other in found[1:]:
            one, two = model.tensors[found[0]], model.tensors[other]
            if owners[found[0]] != owners[other] and not _equal(one, two):
                raise unlike(f"where {found[0]!r} and {other!r} differ, which are tied in the base")
    if lacking:
        raise unlike(f"which lacks {listed(lacking)}")
    shared = {owners[key] for key in owners if key in base.owners}
    more = [key for key, owner in owners.items() if owner not in shared]
    if more:
        raise unlike(
            f"which has {listed(more)} besides", "leave out what was added, such as a new head"
        )
    return Difference(model, keys)


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    count = chunk_of(one, 1 << 18)
    pairs = zip(one.chunks(count), other.chunks(count), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def listed(keys: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return f"{keys[0]!r}{more}"
