"""Folders of ``torch.distributed.checkpoint``: tensors in pieces, put together again.

``.metadata`` pickles what there is and where: for each tensor its chunks, for each chunk a file
``__0_1.distcp`` and a range of its bytes, which is what ``torch.save`` writes of that piece. None
of it is executed; classes are compared by name, and nothing else of them is used.

References
----------
https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import Allocate, ArrayInfo, ArrayProblem, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents
from pyspectra.weights.formats import state_dict
from pyspectra.weights.formats._files import Stamp, Window, check_head, open_binary, stamp
from pyspectra.weights.formats.harmless import CodeRefusedError
from pyspectra.weights.formats.pickle_budget import Budget
from pyspectra.weights.formats.pickle_values import Foreign, Global, PickleError, Record
from pyspectra.weights.formats.pickles import read_pickle
from pyspectra.weights.formats.registry import Folder
from pyspectra.weights.formats.stored import StoredTensor, open_unchanged
from pyspectra.weights.formats.torch_layouts import read_archive
from pyspectra.weights.formats.torch_objects import TorchObjects

__all__ = ["FOLDER", "read"]

METADATA: Final = ".metadata"
SUFFIX: Final = ".distcp"
# Where the Trainer of Hugging Face puts the model, beside the optimizer.
_INSIDE: Final = "pytorch_model_fsdp_0"
_PACKAGE: Final = "torch.distributed.checkpoint."
MAX_METADATA_BYTES: Final = 1 << 28
MAX_CHUNKS: Final = 4096
MAX_RANK: Final = 32


@dataclass(frozen=True)
class _Chunk:
    """A piece of a tensor: where it begins, how long it is, and which bytes of which file it is."""

    begin: tuple[int, ...]
    shape: tuple[int, ...]
    path: Path
    stamp: Stamp
    offset: int
    length: int

    def tensor(self) -> StoredTensor:
        """Find the elements in what ``torch.save`` wrote."""
        try:
            with open_unchanged(self.path, self.stamp) as file:
                window: Any = Window(file, self.offset, self.length)
                found = read_archive(self.path, window, (self.length, self.stamp[1]))
        except (PickleError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError) as error:
            raise FormatError(
                f"{self.path}: the piece at byte {self.offset} is corrupt ({error})."
            ) from error
        if not isinstance(found, StoredTensor):
            raise FormatError(f"{self.path}: the piece at byte {self.offset} is no tensor.")
        return replace(found, stamp=self.stamp, offset=self.offset + found.offset)


@dataclass(frozen=True)
class _Pieces(StoredArray):
    """A tensor in pieces; small, and can be pickled."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[_Chunk, ...]
    problem: ArrayProblem | None = None

    @property
    def info(self) -> ArrayInfo:
        problem = self.problem
        if problem is None and not (self.dtype in BY_NAME and BY_NAME[self.dtype].is_float):
            problem = ArrayProblem("dtype", {"dtype": self.dtype})
        return ArrayInfo(self.shape, self.dtype, problem=problem)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        array: npt.NDArray[Any] = (allocate or np.empty)(self.shape, BY_NAME[self.dtype].numpy)
        for chunk in self.chunks:
            piece = chunk.tensor().load()
            if piece.dtype != self.dtype or piece.shape != chunk.shape:
                raise FormatError(
                    f"{chunk.path}: a piece of tensor {self.name!r} is {piece.dtype} "
                    f"{piece.shape}, not {self.dtype} {chunk.shape}."
                )
            where = tuple(slice(b, b + n) for b, n in zip(chunk.begin, chunk.shape, strict=True))
            array[where] = piece.data
        return HostArray(array, self.dtype)


def read(folder: Path, key: str | None = None) -> Contents:
    """List the tensors of a distributed checkpoint; of its files only ``.metadata`` is read.

    Parameters
    ----------
    folder : Path
        Holds ``.metadata`` and the files of the processes.
    key : str, optional
        Which of several models in it.

    Returns
    -------
    Contents
        The tensors as if they were in one file. The state of an optimizer is listed as such.

    Raises
    ------
    FormatError
        If a file is missing or broken, or the metadata would run code.
    """
    home = _home(folder) or folder
    metadata = _metadata(home / METADATA)
    files = _Files(home)
    tensors = _tensors(home, metadata, files)
    paths = metadata.get("planner_data")
    nested = _nested(tensors, paths if isinstance(paths, dict) else {})
    contents = state_dict.read(nested, format="distributed", name=str(home), key=key)
    used = tuple(path.absolute() for path in files.opened)
    return replace(contents, files=((home / METADATA).absolute(), *used))


class _Files:
    """The files of the processes, each looked at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened: dict[Path, Stamp] = {}

    def find(self, name: Any) -> tuple[Path, Stamp]:
        inside = isinstance(name, str) and name.isprintable() and "\\" not in name
        parts = PurePosixPath(name).parts if inside else ()
        if not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise FormatError(
                f"{self._folder / METADATA}: refused: it names {_short(name)}, which is not a file "
                "inside its folder."
            )
        path = self._folder / name
        if path not in self.opened:
            if not path.is_file():
                raise FormatError(f"{self._folder}: the file {name!r} of a process is missing.")
            with open_binary(path) as file:
                self.opened[path] = stamp(file)
        return path, self.opened[path]


def _metadata(path: Path) -> Record:
    if not path.is_file():
        raise FormatError(
            f"{path.parent}: the file {METADATA} is missing, which says what the pieces are."
        )
    check_head(path, "the metadata of a distributed checkpoint")
    with open_binary(path) as file:
        when = stamp(file)
        raw = file.read(MAX_METADATA_BYTES + 1)
    objects = TorchObjects(path, when, lambda key: (0, 0))

    def call(function: Global, arguments: tuple[Any, ...], is_class: bool, budget: Budget) -> Any:
        if function.path.startswith(_PACKAGE) and function.name[:1] in _CAPITALS:
            return Record(function.path)
        return objects.call(function, arguments, is_class, budget)

    try:
        if len(raw) > MAX_METADATA_BYTES:
            raise PickleError(f"more than {MAX_METADATA_BYTES} bytes")
        found, _ = read_pickle(raw, call, objects.persistent)
    except CodeRefusedError as error:
        raise FormatError(
            f"{path}: refused: it pickles a call of {error}. Pickled code is never executed."
        ) from error
    except PickleError as error:
        raise FormatError(f"{path}: the metadata is corrupt ({error}).") from error
    if not isinstance(found, Record) or not isinstance(found.get("state_dict_metadata"), dict):
        raise FormatError(f"{path}: is not the metadata of a distributed checkpoint.")
    return found


_CAPITALS: Final = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def _tensors(folder: Path, metadata: Record, files: _Files) -> dict[str, Any]:
    places: dict[tuple[str, tuple[int, ...]], Record] = {}
    stored = metadata.get("storage_data")
    for index, info in stored.items() if isinstance(stored, dict) else ():
        if not isinstance(index, Record) or not isinstance(info, Record):
            continue
        name, offset = index.get("fqn"), index.get("offset")
        plain = (
            isinstance(offset, tuple) and len(offset) <= MAX_RANK and all(map(_is_count, offset))
        )
        if isinstance(name, str):
            places[name, offset if plain else ()] = info
    found: dict[str, Any] = {}
    for name, described in metadata.get("state_dict_metadata").items():
        if not isinstance(name, str) or not isinstance(described, Record):
            raise FormatError(f"{folder / METADATA}: the metadata is corrupt (a nameless entry).")
        if not described.name.endswith(".TensorStorageMetadata"):
            found[name] = Foreign("bytes")
            continue
        try:
            found[name] = _tensor(name, described, places, files)
        except ValueError as error:
            raise FormatError(f"{folder / METADATA}: tensor {name!r}: {error}.") from error
    return found


def _tensor(name: str, described: Record, places: Mapping[Any, Record], files: _Files) -> _Pieces:
    shape, chunks = _sizes(described.get("size")), described.get("chunks")
    properties = described.get("properties")
    held = properties.state[-1] if isinstance(properties, Record) and properties.state else None
    fields = list(held.values()) if isinstance(held, dict) else held
    fields = fields if isinstance(fields, tuple | list) else ()
    dtype = next((x.name for x in fields if isinstance(x, Global)), "")
    if not isinstance(chunks, list) or not dtype:
        raise ValueError("its description is incomplete")
    made, problem = [], None
    bits = BY_NAME[dtype].bits if dtype in BY_NAME else 0
    for chunk in chunks:
        if not isinstance(chunk, Record):
            raise ValueError("its description is incomplete")
        begin, sides = _sizes(chunk.get("offsets")), _sizes(chunk.get("sizes"))
        info = places.get((name, begin))
        if info is None:
            raise ValueError(f"nothing is stored of the piece at {begin}")
        path, when = files.find(info.get("relative_path"))
        offset, length = info.get("offset"), info.get("length")
        if not (_is_count(offset) and _is_count(length) and offset + length <= when[0]):
            raise ValueError(f"a piece lies outside of {path.name} (is it truncated?)")
        if length < math.prod(sides) * bits // 8:
            raise ValueError(f"its piece of shape {sides} does not fit in {length} bytes")
        if info.get("transform_descriptors"):
            problem = ArrayProblem("compressed")
        made.append(_Chunk(begin, sides, path, when, offset, length))
    _check_cover(shape, made)
    return _Pieces(name, shape, dtype, tuple(made), problem)


def _check_cover(shape: tuple[int, ...], chunks: list[_Chunk]) -> None:
    """Check that pieces cover a tensor, and none of them another."""
    for chunk in chunks:
        if not len(chunk.begin) == len(chunk.shape) == len(shape):
            raise ValueError(f"a piece of shape {chunk.shape} is none of {shape}")
        if any(b + n > m for b, n, m in zip(chunk.begin, chunk.shape, shape, strict=True)):
            raise ValueError(f"the piece at {chunk.begin} is outside of the shape {shape}")
    if sum(math.prod(chunk.shape) for chunk in chunks) != math.prod(shape):
        raise ValueError(f"its pieces do not make up the shape {shape}")
    full = [chunk for chunk in chunks if math.prod(chunk.shape)]
    if len(full) > MAX_CHUNKS:
        raise ValueError(f"more than {MAX_CHUNKS} pieces")
    if len(full) > 1:
        begin = np.array([chunk.begin for chunk in full])
        end = begin + np.array([chunk.shape for chunk in full])
        both = np.ones((len(full), len(full)), np.bool_)
        for axis in range(len(shape)):
            both &= begin[:, None, axis] < end[None, :, axis]
            both &= begin[None, :, axis] < end[:, None, axis]
        if np.count_nonzero(both) != len(full):
            raise ValueError("two of its pieces overlap")


def _short(name: Any) -> str:
    return repr(name[:80]) if isinstance(name, str) else f"an object of type {type(name).__name__}"


def _is_count(x: Any) -> bool:
    return type(x) is int and 0 <= x < 1 << 62


def _sizes(x: Any) -> tuple[int, ...]:
    if not isinstance(x, tuple) or len(x) > MAX_RANK or not all(map(_is_count, x)):
        raise ValueError("lengths that are no counts")
    return x


def _nested(tensors: Mapping[str, Any], paths: Mapping[Any, Any]) -> dict[Any, Any]:
    """Undo the flattening of a nested state dict: ``optimizer.state.0.exp_avg``."""
    nested: dict[Any, Any] = {}
    for name, value in tensors.items():
        path = paths.get(name)
        if (
            not isinstance(path, tuple)
            or not path
            or not all(isinstance(word, str | int) for word in path)
        ):
            first, _, rest = name.partition(".")
            path = (first, rest) if rest and first.startswith("optim") else (name,)
        inside: Any = nested
        for word in path[:-1]:
            inside = inside.setdefault(word, {})
            if not isinstance(inside, dict):
                break
        if not isinstance(inside, dict) or path[-1] in inside:
            nested[name] = value
        else:
            inside[path[-1]] = value
    for inside in (nested, *(value for value in nested.values() if isinstance(value, dict))):
        groups = inside.get("param_groups")
        if isinstance(groups, dict):  # a list was flattened by its numbers
            inside["param_groups"] = list(groups.values())
    return nested


def _home(folder: Path) -> Path | None:
    """Return the folder of the checkpoint itself; None if there is none."""
    for path in (folder, folder / _INSIDE):
        if (path / METADATA).is_file() or any(path.glob(f"*{SUFFIX}")):
            return path
    return None


def _recognises(folder: Path) -> bool:
    return _home(folder) is not None


FOLDER = Folder("distributed", _recognises, read)
