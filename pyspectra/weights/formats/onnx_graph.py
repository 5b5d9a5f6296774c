"""What an ONNX file holds: graphs of nodes, and constants, which stay in the file.

The file is a message of protocol buffers, whose definition the numbers below are taken from.

References
----------
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import Stamp, open_binary, stamp
from pyspectra.weights.formats.protobuf import BYTES, VARINT, Field, Walker, varints
from pyspectra.weights.formats.stored import StoredTensor, open_unchanged
from pyspectra.weights.skip import Skip

__all__ = ["Constant", "Function", "Graph", "Model", "Node", "read_model"]

MAX_DEPTH: Final = 16
MAX_RANK: Final = 32
MAX_PATH: Final = 1 << 12

_TYPES: Final = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8_e4m3fn",
    18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1", 24: "float8_e8m0fnu",
}  # fmt: skip
# Fields of a tensor that hold its elements in the order and width of memory, by element type.
_PACKED: Final = {4: "float32", 10: "float64"}
_AS_NUMBERS: Final = 5  # and those that hold them as numbers of any length
_EXTERNAL: Final = 1
_SCOPES: Final = "pkg.torch.onnx.name_scopes"


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


def read_model(path: Path) -> Model:
    """Read the graphs of an ONNX file; the elements of its tensors stay where they are.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    FormatError
        If it is broken, or elements lie outside of its folder.
    """
    with open_binary(path) as file:
        when = stamp(file)
        try:
            return _Reader(path, Walker(file, when[0]), when).model()
        except (ValueError, OSError) as error:
            raise FormatError(f"{path}: not a valid ONNX file: {error}.") from error


class _Reader:
    def __init__(self, path: Path, walker: Walker, when: Stamp) -> None:
        self._path, self._walker, self._stamp = path, walker, when
        self._beside: dict[str, tuple[Path, Stamp]] = {}

    def model(self) -> Model:
        graph, functions = None, []
        for f in self._walker.fields(0, self._walker.size):
            if f.number == 7 and f.wire == BYTES:
                graph = self.graph(f, 0)
            elif f.number == 25 and f.wire == BYTES:
                functions.append(self.function(f))
        if graph is None:
            raise ValueError("it has no graph")
        return Model(graph, functions, [path for path, _ in self._beside.values()])

    def inside(self, f: Field) -> Iterator[Field]:
        if f.wire != BYTES:
            raise ValueError("a message that is a number")
        return self._walker.fields(f.value, f.end)

    def graph(self, message: Field, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise ValueError("graphs in graphs, deeper than in any model")
        graph = Graph()
        for f in self.inside(message):
            if f.number == 1:
                self.node(f, graph, depth)
            elif f.number == 5:
                self.add(graph, self.tensor(f), initialiser=True)
            elif f.number == 15:
                values = next((self.tensor(g) for g in self.inside(f) if g.number == 1), None)
                if values is not None:
                    skip = Skip("sparse", {"layout": "ONNX"})
                    constant = Constant(values.name, (), values.dtype, self._path, self._stamp,
                                        problem=skip)  # fmt: skip
                    self.add(graph, constant, initialiser=True)
        return graph

    @staticmethod
    def add(graph: Graph, constant: Constant, initialiser: bool) -> None:
        if constant.name in graph.constants:
            raise ValueError(f"two tensors go by the name {constant.name!r}")
        graph.constants[constant.name] = constant
        if initialiser:
            graph.initialisers.add(constant.name)

    def function(self, message: Field) -> Function:
        found = Function()
        for f in self.inside(message):
            if f.number == 1:
                found.name = self._walker.text(f)
            elif f.number == 4:
                found.inputs.append(self._walker.text(f))
            elif f.number == 7:
                self.node(f, found.graph, 1)
            elif f.number == 10:
                found.domain = self._walker.text(f)
        return found

    def node(self, message: Field, graph: Graph, depth: int) -> None:
        node, tensors = Node(), []
        for f in self.inside(message):
            if f.number == 1:
                node.inputs.append(self._walker.text(f))
            elif f.number == 2:
                node.outputs.append(self._walker.text(f))
            elif f.number == 3:
                node.name = self._walker.text(f)
            elif f.number == 4:
                node.op = self._walker.text(f)
            elif f.number == 7:
                node.domain = self._walker.text(f)
            elif f.number == 5:
                tensors += self.attribute(f, node, graph, depth)
            elif f.number == 9:
                node.scopes = self.scopes(f) or node.scopes
        if node.op == "Constant" and len(tensors) == 1 and len(node.outputs) == 1:
            value = tensors[0]
            renamed = replace(value, name=node.outputs[0])
            self.add(graph, renamed, initialiser=False)
        graph.nodes.append(node)

    def scopes(self, message: Field) -> tuple[str, ...]:
        """Read a note on a node: ``['', 'blocks.0', 'blocks.0.query', 'linear']``."""
        parts = {f.number: f for f in self.inside(message)}
        if 1 not in parts or 2 not in parts or parts[1].end - parts[1].value != len(_SCOPES):
            return ()
        if self._walker.text(parts[1]) != _SCOPES:
            return ()
        return tuple(re.findall(r"'([^']*)'", self._walker.text(parts[2])))

    def attribute(self, message: Field, node: Node, graph: Graph, depth: int) -> list[Constant]:
        name, numbers, tensors = "", [], []
        text = None
        for f in self.inside(message):
            if f.number == 1:
                name = self._walker.text(f)
            elif f.number == 3 and f.wire == VARINT:
                numbers.append(_signed(f.value))
            elif f.number == 4 and f.end - f.value <= 1 << 12:
                text = self._walker.payload(f, 1 << 12)
            elif f.number == 5:
                tensors.append(self.tensor(f))
            elif f.number in (6, 11):
                graph.inner.append(self.graph(f, depth + 1))
            elif f.number == 8:
                numbers += self.integers(f)
        if numbers:
            node.numbers[name] = numbers
        if text is not None:
            node.texts[name] = text.decode("utf-8", "replace")
        return tensors

    def integers(self, f: Field) -> list[int]:
        if f.wire == VARINT:
            return [_signed(f.value)]
        return [int(n) for n in varints(self._walker.payload(f, 1 << 16))]

    # --- tensors ------------------------------------------------------------

    def tensor(self, message: Field) -> Constant:
        name, dims, kind, location = "", [], 0, 0
        external: dict[str, str] = {}
        data: dict[int, Field] = {}
        pieces = 0
        for f in self.inside(message):
            if f.number == 1:
                dims += self.integers(f)
            elif f.number == 2 and f.wire == VARINT:
                kind = f.value
            elif f.number == 8:
                name = self._walker.text(f)
            elif f.number == 13:
                parts = {g.number: self._walker.text(g, MAX_PATH) for g in self.inside(f)}
                external[parts.get(1, "")] = parts.get(2, "")
            elif f.number == 14 and f.wire == VARINT:
                location = f.value
            elif f.number in (4, 5, 6, 7, 9, 10, 11):
                data[f.number] = f
                pieces += 1
        if len(dims) > MAX_RANK or any(not 0 <= n < 1 << 62 for n in dims):
            raise ValueError(f"tensor {name!r} has an invalid shape")
        dtype = _TYPES.get(kind, f"type {kind}")
        plain = Constant(name, tuple(dims), dtype, self._path, self._stamp)
        if location == _EXTERNAL:
            return self.external(plain, external)
        if pieces != 1:  # none, or each element in a field of its own
            count = math.prod(dims)
            return plain if not count and not pieces else _unread(plain)
        number, found = next(iter(data.items()))
        return self.placed(plain, number, found)

    def placed(self, plain: Constant, number: int, found: Field) -> Constant:
        """Say where the elements lie that are in the file itself."""
        if found.wire != BYTES:
            return _unread(plain)
        size = found.end - found.value
        bits = BY_NAME[plain.dtype].bits if plain.dtype in BY_NAME else 0
        expected = (math.prod(plain.shape) * bits + 7) // 8
        if number == 9 or _PACKED.get(number) == plain.dtype:
            if bits and size != expected:
                raise ValueError(
                    f"tensor {plain.name!r} of type {plain.dtype} and shape {plain.shape} does not "
                    f"fit in its {size} bytes"
                )
            return replace(plain, offset=found.value, nbytes=size)
        fewest = (math.prod(plain.shape) + 1) // 2 if bits == 4 else math.prod(plain.shape)
        if number == _AS_NUMBERS and bits in (4, 8, 16, 32) and fewest <= size:
            return replace(plain, offset=found.value, nbytes=size, as_numbers=True)
        return _unread(plain)

    def external(self, plain: Constant, how: dict[str, str]) -> Constant:
        """Say where the elements lie that are in a file beside."""
        name = how.get("location", "")
        if name not in self._beside:
            self._beside[name] = self.beside(name, plain.name)
        path, when = self._beside[name]
        bits = BY_NAME[plain.dtype].bits if plain.dtype in BY_NAME else 0
        expected = (math.prod(plain.shape) * bits + 7) // 8
        offset = _count(how.get("offset", "0"))
        length = _count(how["length"]) if "length" in how else expected
        if length != expected or offset + length > when[0]:
            raise ValueError(
                f"tensor {plain.name!r} of type {plain.dtype} and shape {plain.shape} does not fit "
                f"in bytes {offset} to {offset + length} of {name!r}, which has {when[0]}"
            )
        return replace(plain, path=path, stamp=when, offset=offset, nbytes=length)

    def beside(self, name: str, tensor: str) -> tuple[Path, Stamp]:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        outside = ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name
        if not parts or outside or PureWindowsPath(name).drive or not name.isprintable():
            raise FormatError(
                f"{self._path}: refused: the elements of tensor {tensor!r} are said to lie in "
                f"{name!r}, which is not a file inside its folder."
            )
        path = self._path.parent / name
        if not path.is_file():
            raise FormatError(
                f"{self._path}: the file {name!r} beside it is missing, which holds the elements "
                f"of tensor {tensor!r}."
            )
        with open_binary(path) as file:
            return path, stamp(file)


def _unread(plain: Constant) -> Constant:
    return replace(plain, problem=Skip("unreadable"))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"a place {text!r} that is no number of bytes")
    return int(text)
