"""Reading ONNX files: messages of protocol buffers, without the elements of their tensors.

The numbers of fields and types are those of the definition of the format.

References
----------
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import Stamp, open_binary, stamp
from pyspectra.weights.formats.onnx_graph import Constant, Function, Graph, Model, Node
from pyspectra.weights.formats.protobuf import BYTES, VARINT, Field, Walker, varints
from pyspectra.weights.skip import Skip

__all__ = ["read_model"]

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
