"""What an ONNX file holds: graphs of nodes, and constants, which stay in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import Stamp
from pyspectra.weights.formats.protobuf import varints
from pyspectra.weights.formats.stored import StoredTensor, open_unchanged
from pyspectra.weights.skip import Skip

__all__ = ["Constant", "Function", "Graph", "Model", "Node"]


@dataclass(frozen=True)
class Constant:
    """A tensor of the file; small, and can be pickled.

    Attributes
    ----------
    name : str
        What nodes call it.
    shape : tuple of int
        Lengths of the axes.
    dtype : str
        Name of the element type in the table of types.
    path, stamp : Path, Stamp
        The file that its elements are in.
    offset, nbytes : int
        Where.
    as_numbers : bool
        True if they are packed as numbers of any length.
    problem : Skip or None
        Why they cannot be read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path
    stamp: Stamp
    offset: int = 0
    nbytes: int = 0
    as_numbers: bool = False
    problem: Skip | None = None

    @property
    def is_float(self) -> bool:
        """Whether its elements are floating-point numbers that can be read as they are."""
        return self.dtype in BY_NAME and BY_NAME[self.dtype].is_float

    def raw(self) -> npt.NDArray[np.uint8]:
        """Read its bytes as they are in the file."""
        with open_unchanged(self.path, self.stamp) as file:
            file.seek(self.offset)
            found = file.read(self.nbytes)
        if len(found) != self.nbytes:
            raise FormatError(f"{self.path}: the data of tensor {self.name!r} is truncated.")
        return np.frombuffer(found, np.uint8)

    def values(self) -> npt.NDArray[np.float64]:
        """Read its elements as numbers; of floats of 8 bits and fewer there are none."""
        count = math.prod(self.shape)
        if self.dtype in ("int4", "uint4"):  # two in a byte, the lower half first
            pairs = (count + 1) // 2
            codes = self._numbers(pairs).astype(np.uint8) if self.as_numbers else self.raw()
            halves = np.stack([codes & 15, codes >> 4], axis=-1).reshape(-1)[:count]
            numbers = halves.astype(np.int64)
            if self.dtype == "int4":
                numbers = (numbers ^ 8) - 8
        elif self.as_numbers:
            numbers = self._numbers(count)
        else:
            numbers = self.raw().view(BY_NAME[self.dtype].numpy.newbyteorder("<"))
        if self.is_float:
            stored = numbers.astype(BY_NAME[self.dtype].numpy)
            return HostArray(stored.reshape(self.shape), self.dtype).to_float64()
        return numbers.reshape(self.shape).astype(np.float64)

    def _numbers(self, count: int) -> npt.NDArray[np.int64]:
        try:
            numbers = varints(self.raw().tobytes())
        except ValueError as error:
            raise FormatError(f"{self.path}: tensor {self.name!r}: {error}.") from error
        if len(numbers) != count:
            raise FormatError(
                f"{self.path}: tensor {self.name!r} has {len(numbers)} numbers, not {count}."
            )
        return numbers

    def array(self, first: int = 0, count: int = 1) -> StoredArray:
        """Return its address as that of a tensor of floats.

        Parameters
        ----------
        first, count : int
            Which of so many equal parts along the first axis; a part has one axis less.
        """
        if self.as_numbers:
            return _Numbers(self, first if count > 1 else None)
        shape = self.shape[1:] if count > 1 else self.shape
        offset = self.offset + first * (self.nbytes // count)
        return StoredTensor(self.path, self.stamp, self.name, self.dtype, shape, offset)


@dataclass(frozen=True)
class _Numbers(StoredArray):
    """Elements of 16 bits that are packed as numbers of any length."""

    constant: Constant
    part: int | None

    @property
    def info(self) -> ArrayInfo:
        shape = self.constant.shape if self.part is None else self.constant.shape[1:]
        return ArrayInfo(shape, self.constant.dtype)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        bits = BY_NAME[self.constant.dtype].numpy
        numbers = self.constant._numbers(math.prod(self.constant.shape))
        whole = numbers.astype(f"u{bits.itemsize}").view(bits).reshape(self.constant.shape)
        found = whole if self.part is None else whole[self.part]
        target = (allocate or np.empty)(found.shape, bits)
        target[...] = found
        return HostArray(target, self.constant.dtype)


@dataclass
class Node:
    """A node: what it computes, of what, and how.

    Attributes
    ----------
    op : str
        Its operator.
    domain : str
        Whose operator; empty for ONNX's own.
    name : str
        Its name, which may be empty.
    inputs, outputs : list of str
        Names of tensors; empty where an operand is left out.
    numbers : dict of str to list of int
        Attributes that are integers.
    texts : dict of str to str
        Attributes that are texts.
    scopes : tuple of str
        Modules that the node is inside of, where the exporter tells (torch's does), and its own
        name in the last.
    """

    op: str = ""
    domain: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    scopes: tuple[str, ...] = ()

    def number(self, name: str, default: int) -> int:
        """Return an attribute that is one integer."""
        found = self.numbers.get(name)
        return found[0] if found else default


@dataclass
class Graph:
    """A graph, and what it is inside of.

    Attributes
    ----------
    nodes : list of Node
        In the order of the file.
    constants : dict of str to Constant
        Initialisers, and what nodes named ``Constant`` hold.
    initialisers : set of str
        Which of them are initialisers.
    inner : list of Graph
        Bodies of branches and loops.
    """

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    initialisers: set[str] = field(default_factory=set)
    inner: list[Graph] = field(default_factory=list)


@dataclass
class Function:
    """A function that nodes call by its name.

    Attributes
    ----------
    domain, name : str
        What nodes call.
    inputs : list of str
        Names of its operands inside.
    graph : Graph
        What it does.
    """

    domain: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    graph: Graph = field(default_factory=Graph)


@dataclass
class Model:
    """A file.

    Attributes
    ----------
    graph : Graph
        The model.
    functions : list of Function
        What it may call.
    files : list of Path
        Files beside it that hold elements.
    """

    graph: Graph
    functions: list[Function]
    files: list[Path]
