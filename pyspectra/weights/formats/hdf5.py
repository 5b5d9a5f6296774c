"""HDF5 files, as far as weights need them: datasets by their paths, one read at a time.

A file may claim more than it holds: a dataset of terabytes that was never written, or one whose
elements lie in other files. Links to other files are not followed, and what unpacks to more than
any weights do is listed, and not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.entries import TensorEntry
from pyspectra.weights.formats._files import Stamp, Window
from pyspectra.weights.formats.npz import MAX_RATIO, MAX_UNPACKED_BYTES
from pyspectra.weights.formats.stored import open_unchanged
from pyspectra.weights.skip import Skip

__all__ = ["Place", "Tree", "read_tree"]

MAX_MEMBERS: Final = 1 << 20
MAX_DEPTH: Final = 64
MAX_TEXT: Final = 1 << 26


@dataclass(frozen=True)
class Place:
    """Where an HDF5 file lies: a file, or a stored entry of an archive.

    Attributes
    ----------
    path : Path
        The file.
    stamp : Stamp
        What the file was like when it was opened.
    offset, size : int
        Which of its bytes they are.
    """

    path: Path
    stamp: Stamp
    offset: int
    size: int

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Open it; the file is closed at the end of the context.

        Yields
        ------
        h5py.File
        """
        import h5py

        with open_unchanged(self.path, self.stamp) as file:
            window = Window(file, self.offset, self.size)
            with h5py.File(window, "r") as opened:
                yield opened


@dataclass(frozen=True)
class _Dataset(StoredArray):
    """One dataset of a file; small, and can be pickled."""

    place: Place
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def info(self) -> ArrayInfo:
        return ArrayInfo(self.shape, self.dtype)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        array = (allocate or np.empty)(self.shape, BY_NAME[self.dtype].numpy)
        with self.place.open() as file:
            found = file[self.name]
            if found.shape != self.shape:
                raise FormatError(f"{self.place.path}: dataset {self.name!r} is not what it was.")
            # numpy has no bfloat16, whose bit patterns are in the file as two bytes each.
            target = array.view(found.dtype) if self.dtype == "bfloat16" else array
            if array.size:
                found.read_direct(target)
        return HostArray(array, self.dtype)


@dataclass
class Tree:
    """What an HDF5 file holds.

    Attributes
    ----------
    datasets : dict of str to TensorEntry
        Path in the file -> the tensor, under that path as its key.
    names : dict of str to str
        Path of a group -> its attribute ``name``.
    groups : set of str
        Paths of all groups; the root is the empty one.
    config : str
        The attribute ``model_config`` of the root, if there is one.
    """

    datasets: dict[str, TensorEntry] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    config: str = ""


def read_tree(place: Place) -> Tree:
    """List the datasets and groups of an HDF5 file; no elements are read.

    Parameters
    ----------
    place : Place
        Where it lies.

    Returns
    -------
    Tree
        In the natural order of the file. A dataset under several names has one identity.

    Raises
    ------
    FormatError
        If the file is broken.
    ModuleNotFoundError
        If h5py is not installed.
    """
    import h5py

    tree = Tree()
    try:
        with place.open() as file:
            tree.config = _text(file.attrs, "model_config")
            _walk(h5py, file, place, tree)
    except FormatError:
        raise
    except Exception as error:  # HDF5 raises many types on corrupt bytes
        raise FormatError(f"{place.path}: not a valid HDF5 file: {error}") from error
    return tree


def _walk(h5py: Any, file: Any, place: Place, tree: Tree) -> None:
    waiting = [("", file, 0)]
    seen = {_address(h5py, file)}
    count = 0
    while waiting:
        path, group, depth = waiting.pop()
        tree.groups.add(path)
        name = _text(group.attrs, "name")
        if name:
            tree.names[path] = name
        inside = []
        for short in group:
            count += 1
            if count > MAX_MEMBERS or depth == MAX_DEPTH:
                raise ValueError("it holds more groups than any model has")
            short.encode("utf-8")  # a lone surrogate could never be printed
            full = f"{path}/{short}" if path else short
            if not isinstance(group.get(short, getlink=True), h5py.HardLink):
                skip = Skip("link")
                tree.datasets[full] = TensorEntry(full, None, "none", None, problem=skip)
                continue
            item = group[short]
            if isinstance(item, h5py.Dataset):
                tree.datasets[full] = _entry(h5py, item, full, place)
            elif isinstance(item, h5py.Group):
                address = _address(h5py, item)
                if address not in seen:  # a group may well hold itself
                    seen.add(address)
                    inside.append((full, item, depth + 1))
        waiting += reversed(inside)


def _address(h5py: Any, item: Any) -> tuple[int, int]:
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _text(attributes: Any, name: str) -> str:
    if name not in attributes:
        return ""
    if attributes.get_id(name).get_storage_size() > MAX_TEXT:
        raise ValueError(f"the attribute {name!r} is larger than any model's")
    value = attributes[name]
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if isinstance(value, str):
        value.encode("utf-8")
        return value
    return ""


def _entry(h5py: Any, item: Any, path: str, place: Place) -> TensorEntry:
    try:
        spelling = item.dtype.name
    except TypeError:  # a type that numpy has no name for
        spelling = "unknown"
    if spelling.startswith("void") and item.dtype.itemsize == 2:
        spelling = _text(item.attrs, "dtype") or spelling
    shape = item.shape
    if shape is None or spelling == "object":  # an empty dataspace; texts and references
        return TensorEntry(path, None, "none", None, problem=Skip("not_an_array"))
    problem = _problem(item, shape) if spelling in BY_NAME else None
    dataset = _Dataset(place, path, shape, spelling)
    readable = problem is None and spelling in BY_NAME and BY_NAME[spelling].is_float
    identity = ("hdf5", str(place.path), *_address(h5py, item))
    return TensorEntry(
        path,
        shape,
        spelling,
        dataset if readable else None,
        identity=identity,
        problem=problem,
    )


def _problem(item: Any, shape: tuple[int, ...]) -> Skip | None:
    """Say why a dataset is not read: its elements lie elsewhere, or would take all memory."""
    if item.is_virtual or item.external:
        return Skip("elsewhere")
    chunk = math.prod(item.chunks) if item.chunks else 0
    unpacked = max(math.prod(shape), chunk) * item.dtype.itemsize
    packed = int(item.id.get_storage_size())
    if unpacked > max(MAX_UNPACKED_BYTES, MAX_RATIO * packed):
        return Skip("unpacks", {"unpacked": unpacked, "packed": packed, "limit": MAX_RATIO})
    return None
