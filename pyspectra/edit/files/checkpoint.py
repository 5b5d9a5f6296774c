"""Checkpoints on disk: listing their tensors, reading ranges of their bytes.

The readers of :mod:`pyspectra.weights` judge a file; this module reads what they have passed, by
the byte, because a new file needs every element type, and most of them never a whole tensor.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import ArrayProblem, StoredArray
from pyspectra._support.dtypes import DType
from pyspectra.edit.files.extras import plain_copy
from pyspectra.edit.files.rounding import from_bytes
from pyspectra.errors import FormatError
from pyspectra.types import FloatArray
from pyspectra.weights.formats import huggingface, indices, safetensors, torch_checkpoint, wrappers
from pyspectra.weights.formats.stored import ReadRange, StoredTensor

__all__ = [
    "SUFFIXES",
    "TORCH_SUFFIXES",
    "Checkpoint",
    "Tensor",
    "open_checkpoint",
]

TORCH_SUFFIXES: Final = torch_checkpoint.FORMAT.suffixes
SUFFIXES: Final = (*safetensors.FORMAT.suffixes, *TORCH_SUFFIXES)

_LIGHTNING: Final = "pytorch-lightning_version"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint.

    Attributes
    ----------
    key : str
        Its name.
    dtype : DType
        Element type, one that is copied.
    shape : tuple of int
        Lengths of the axes.
    open : callable
        Makes a context in which ranges of its bytes can be read.
    identity : hashable or None
        Equal for tensors of one checkpoint that share their memory.
    """

    key: str
    dtype: DType
    shape: tuple[int, ...]
    open: Callable[[], AbstractContextManager[ReadRange]] = field(repr=False, compare=False)
    identity: Hashable | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.item_bytes

    def raw_chunks(self, count: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the bytes of the elements in their order, of at most `count` elements at a time."""
        step = count * self.dtype.item_bytes
        with self.open() as read:
            for begin in range(0, self.nbytes, step):
                yield read(begin, min(begin + step, self.nbytes))

    def chunks(self, count: int) -> Iterator[FloatArray]:
        """Yield the elements of a floating-point tensor as float64, at most `count` at a time."""
        for raw in self.raw_chunks(count):
            yield from_bytes(raw, self.dtype)

    def read(self) -> FloatArray:
        """Return a floating-point tensor as a new float64 array."""
        with self.open() as read:
            return from_bytes(read(0, self.nbytes), self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint: its files and tensors.

    Attributes
    ----------
    path : Path
        Its path, as found or given: a file or a folder.
    files : tuple of Path
        What holds the tensors, an index of shards included; the first is the main one.
    tensors : Mapping
        Name to tensor, in the order of the file.
    metadata : Mapping
        The ``__metadata__`` of a safetensors file.
    extras : Mapping
        What a torch checkpoint's state dict holds besides tensors.
    attributes : Mapping
        Attributes of a torch checkpoint's state dict (``_metadata``: versions of the modules).
    container : Mapping
        What stands beside the state dict in a checkpoint of Lightning, as far as a module is made
        from it; empty for others.
    parts : Mapping
        Of a model in shards, name of the file (relative to its folder) -> what it holds; empty for
        one that is in a single file.
    index : Path or None
        The index of the shards.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    container: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Checkpoint] = field(default_factory=dict)
    index: Path | None = None


# --- opening ------------------------------------------------------------------------------------


def open_checkpoint(path: Path, to_be: str = "copied") -> Checkpoint:
    """List the tensors of a checkpoint.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file, an index of shards, a torch checkpoint, or a folder with either,
        or with all shards of a model and no index.
    to_be : str
        What is to be done to its tensors, for messages: ``"averaged"``.

    Returns
    -------
    Checkpoint
        Its elements are still on disk.

    Raises
    ------
    FormatError
        If there are no weights, they are broken, or an element type is not supported.
    MissingDependencyError
        If torch is needed and missing.
    """
    if path.is_dir():
        names = huggingface.weights_files(path, SUFFIXES)
        if len(names) > 1:
            return _joined(path, path, {n: open_checkpoint(path / n, to_be) for n in names})
        file = path / names[0]
    else:
        file = path
    if file.name.endswith(indices.INDEX_SUFFIX):
        return _open_index(path, file, to_be)
    suffix = file.suffix.lower()
    if suffix in safetensors.FORMAT.suffixes:
        tensors, metadata = _read_safetensors(file, to_be)
        return Checkpoint(path, (file,), tensors, metadata)
    if suffix in TORCH_SUFFIXES:
        return _read_torch(path, file, to_be)
    raise FormatError(
        f"{path}: not a checkpoint (suffix {suffix!r}). Supported are {', '.join(SUFFIXES)} "
        "and folders."
    )


def _open_index(path: Path, file: Path, to_be: str) -> Checkpoint:
    index = indices.open_index(file)
    shards = {name: open_checkpoint(file.parent / name, to_be) for name in index.shards}
    index.check({name: list(shard.tensors) for name, shard in shards.items()})
    joined = _joined(path, file, shards)
    return replace(joined, files=(file, *joined.files), index=file)


def _joined(path: Path, named: Path, shards: Mapping[str, Checkpoint]) -> Checkpoint:
    """Join what the shards of one model hold, by their names; messages begin with `named`."""
    indices.check_apart(named, {name: list(shard.tensors) for name, shard in shards.items()})
    parts = list(shards.values())
    tensors = {key: tensor for part in parts for key, tensor in part.tensors.items()}
    extras = {key: value for part in parts for key, value in part.extras.items()}
    files = tuple(part.files[0] for part in parts)
    return Checkpoint(path, files, tensors, parts[0].metadata, extras, parts=shards)


def _unsupported(file: Path, key: str, dtype: str, to_be: str) -> FormatError:
    return FormatError(
        f"{file}: tensor {key!r} has dtype {dtype}, which cannot be {to_be}. Supported are "
        "float64, float32, float16 and bfloat16; integers and booleans are copied."
    )


# --- safetensors --------------------------------------------------------------------------------


def _read_safetensors(file: Path, to_be: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    found, note = safetensors.stored(file)
    return {t.name: _stored(file, t, to_be) for t in found}, note


def _stored(file: Path, tensor: StoredTensor, to_be: str) -> Tensor:
    if not tensor.type.is_copied:
        raise _unsupported(file, tensor.name, tensor.info.dtype, to_be)
    return Tensor(tensor.name, tensor.type, tensor.shape, tensor.open, tensor.identity)


# --- torch --------------------------------------------------------------------------------------


def _read_torch(path: Path, file: Path, to_be: str) -> Checkpoint:
    whole = torch_checkpoint.stored(file)
    content = wrappers.unwrapped(whole)
    if content is None:
        raise FormatError(f"{file}: holds no state dict. Hint: save the module's state_dict().")
    tensors: dict[str, Tensor] = {}
    extras: dict[str, Any] = {}
    for name, value in content.items():
        key = str(name)
        if key in tensors or key in extras:
            raise FormatError(f"{file}: two entries go by the name {key!r}, which cannot be kept.")
        if isinstance(value, StoredTensor):
            if value.problem is not None:
                raise _unusable(file, key, value.problem, to_be)
            tensors[key] = _stored(file, replace(value, name=key), to_be)
        elif isinstance(value, StoredArray):
            raise _unusable(file, key, value.info.problem, to_be)
        elif wrappers.holds_arrays(value):
            raise FormatError(
                f"{file}: {key!r} holds tensors beside those of the state dict. Hint: save "
                "only the module's state_dict()."
            )
        else:
            extras[key] = plain_copy(file, key, value)
    attributes = {k: plain_copy(file, k, v) for k, v in getattr(content, "__dict__", {}).items()}
    beside = _beside(file, whole) if content is whole.get("state_dict") else {}
    return Checkpoint(path, (file,), tensors, {}, extras, attributes, beside)


# What a checkpoint of Lightning has for its module, and not for the training of it.
_OF_MODULE = ("epoch", "global_step", _LIGHTNING, "hparams_name", "hyper_parameters")


def _beside(file: Path, whole: Mapping[Any, Any]) -> dict[str, Any]:
    """Copy what Lightning makes a module from; arguments that are objects are left out."""
    if _LIGHTNING not in whole:
        return {}
    found: dict[str, Any] = {}
    for key in _OF_MODULE:
        with contextlib.suppress(FormatError):  # an object of a class, which is not executed
            if key in whole:
                found[key] = plain_copy(file, key, whole[key])
    return found


def _unusable(file: Path, key: str, problem: ArrayProblem | None, to_be: str) -> FormatError:
    return FormatError(f"{file}: tensor {key!r} is {problem}, which cannot be {to_be}.")
