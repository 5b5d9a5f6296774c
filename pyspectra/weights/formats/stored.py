"""Tensors that are still in a file: their addresses, and the one way to read their bytes.

A reader of a format finds out where each tensor lies and hands out a `StoredTensor`; analysis
reads it whole, averaging some bytes at a time. Files are opened for each reading and closed again,
and bytes are read into memory instead of being mapped: nothing stays open, and a file that changes
or shrinks is an error, not a crash.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import Allocate, ArrayInfo, ArrayProblem, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME, DType
from pyspectra._support.extents import Extent
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.formats._files import Stamp, open_binary, stamp
from pyspectra.weights.skip import array_skip

__all__ = ["ReadRange", "StoredTensor", "open_unchanged", "row_major", "stored_entry"]

_CHUNK = 16 * 2**20

ReadRange = Callable[[int, int], npt.NDArray[np.uint8]]
"""Returns the bytes from the first number to the second, of a tensor's elements in their order."""


@dataclass(frozen=True)
class StoredTensor(StoredArray):
    """Where one tensor lies in a file; small, and can be pickled.

    Attributes
    ----------
    path : Path
        The file.
    stamp : Stamp
        What the file was like when it was opened.
    name : str
        The tensor's name, for messages.
    dtype : str
        Name of the element type in the table of types.
    shape : tuple of int
        Lengths of the axes.
    offset : int
        Place of the first element, in bytes from the start of the file.
    strides : tuple of int or None
        Elements from one to the next along each axis; None where they lie one after the other.
    big_endian : bool
        Byte order of the file.
    spelling : str
        What the format calls the type, if it is another name.
    identity : hashable or None
        Equal for tensors of a file that are the same view of the same bytes.
    problem : ArrayProblem or None
        Why the elements cannot be used, if it is not their type.
    """

    path: Path
    stamp: Stamp
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None
    big_endian: bool = False
    spelling: str = ""
    identity: Hashable | None = None
    problem: ArrayProblem | None = None

    @property
    def type(self) -> DType:
        """The record of the element type."""
        return BY_NAME[self.dtype]

    @property
    def info(self) -> ArrayInfo:
        """What is known without reading the elements."""
        spelling = self.spelling or self.dtype
        problem = self.problem
        if problem is None and not self.type.is_float:
            problem = ArrayProblem("dtype", {"dtype": spelling})
        return ArrayInfo(self.shape, spelling, self.identity, problem)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Where it lies."""
        if math.prod(self.shape) == 0:
            return ()
        strides = self.strides
        if strides is None:
            count = math.prod(self.shape)
        else:
            count = 1 + sum((n - 1) * s for n, s in zip(self.shape, strides, strict=True))
        return (Extent(self.path, self.offset, self.offset + count * self.type.bits // 8),)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read the whole tensor.

        Parameters
        ----------
        allocate : callable, optional
            Provides the memory of a tensor whose elements lie one after the other.

        Returns
        -------
        HostArray
            The tensor, in the byte order of this machine.

        Raises
        ------
        FormatError
            If the file cannot be read, has changed, or is too short.
        """
        return HostArray(self._read(allocate or np.empty, self.type.numpy), self.dtype)

    def raw(self) -> npt.NDArray[Any]:
        """Read the elements as they are stored: those of types that numpy has not as bit patterns.

        Returns
        -------
        ndarray

        Raises
        ------
        FormatError
            As for `load`.
        """
        return self._read(np.empty, self.type.pattern)

    def _read(self, allocate: Allocate, item: np.dtype[Any]) -> npt.NDArray[Any]:
        if self.strides is None:
            array = block = allocate(self.shape, item)
        else:
            last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
            block = np.empty(last + 1, item)
            steps = tuple(s * item.itemsize for s in self.strides)
            array = np.ndarray(self.shape, item, block, 0, steps)  # checks the bounds
        with open_unchanged(self.path, self.stamp) as file:
            file.seek(self.offset)
            # A flat buffer of bytes; an array of rank zero could not be cast to one directly.
            self._fill(file, block.reshape(-1).view(np.uint8))
        if self.big_endian != (sys.byteorder == "big"):
            block.byteswap(inplace=True)
        return array

    def _fill(self, file: BinaryIO, target: npt.NDArray[np.uint8]) -> None:
        view, done = target.data, 0
        while done < len(view):
            # Not all at once: in between, Ctrl-C is heard.
            count = file.readinto(view[done : done + _CHUNK])  # type: ignore[attr-defined]
            if not count:
                raise FormatError(f"{self.path}: the data of tensor {self.name!r} is truncated.")
            done += count

    @contextmanager
    def open(self) -> Iterator[ReadRange]:
        """Make a context in which ranges of the bytes can be read, little-endian.

        Yields
        ------
        ReadRange
            A tensor whose elements do not lie one after the other is read whole first.
        """
        if self.strides is not None:
            dense = np.ascontiguousarray(self._read(np.empty, self.type.numpy)).reshape(-1)
            little = dense.astype(dense.dtype.newbyteorder("<"), copy=False).view(np.uint8)
            yield lambda begin, end: little[begin:end]
            return
        with open_unchanged(self.path, self.stamp) as file:

            def read(begin: int, end: int) -> npt.NDArray[np.uint8]:
                buffer = np.empty(end - begin, np.uint8)
                file.seek(self.offset + begin)
                self._fill(file, buffer)
                if self.big_endian:
                    buffer.view(self.type.numpy).byteswap(inplace=True)
                return buffer

            yield read


@contextmanager
def open_unchanged(path: Path, when: Stamp) -> Iterator[BinaryIO]:
    """Open a file that must be what it was when `when` was taken, to the end of the context."""
    with open_binary(path) as file:
        _check_stamp(path, file, when)
        yield file
        _check_stamp(path, file, when)


def _check_stamp(path: Path, file: BinaryIO, when: Stamp) -> None:
    if stamp(file) != when:
        raise FormatError(f"{path}: the file changed since it was opened. Hint: open it again.")


def row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether elements lie one after the other, the last axis running fastest."""
    if math.prod(shape) == 0:
        return True
    step = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1 and stride != step:
            return False
        step *= n
    return True


def stored_entry(key: str, array: StoredArray) -> TensorEntry:
    """List a tensor of a file for the catalogue, under the name that messages use from now on."""
    if isinstance(array, StoredTensor):
        array = replace(array, name=key)
    raw = array.raw if isinstance(array, StoredTensor) and array.type.bits % 8 == 0 else None
    info = array.info
    return TensorEntry(
        key,
        info.shape,
        info.dtype,
        array if info.problem is None else None,
        identity=info.identity,
        problem=array_skip(info.problem),
        raw=raw if array_skip(info.problem) is None else None,
        stored_as=array.stored_as,
    )
