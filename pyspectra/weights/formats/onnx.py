"""ONNX files: the constants that nodes multiply with, under names that tell layers apart.

The file is read here, without the package ``onnx``: its graphs are walked, and weights stay where
they are until one is loaded, in the file or in one beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import Allocate, ArrayInfo, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents, TensorEntry
from pyspectra.weights.formats._files import check_head
from pyspectra.weights.formats.onnx_file import read_model
from pyspectra.weights.formats.onnx_graph import Constant, Graph, Node
from pyspectra.weights.formats.onnx_uses import Quantised, Use, uses
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.skip import Skip

__all__ = ["FORMAT", "read"]

# Names that exporters give to what has none: constants that they folded, and numbers.
_ANONYMOUS: Final = re.compile(
    r"onnx::\w+|_?val_\d+|_?v_\d+|\d+|\w*[Cc]onstant\w*|_inlfunc\w*|\w+_\d{3,}|const_\w+"
)
_QUANTISED: Final = re.compile(r"_(?:quantized|q|DequantizeLinear\w*)$")
# Places of the weights of recurrent nodes -> PyTorch's names of them.
_RECURRENT: Final = {1: "weight_ih", 2: "weight_hh"}
_DIRECTIONS: Final = ("", "_reverse")
_INTEGERS: Final = ("int8", "uint8", "int4", "uint4", "int16", "uint16", "int32")


def read(path: Path) -> Contents:
    """List the constants of an ONNX file; no elements are read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Initialisers, and the matrices among other constants. What nodes multiply with is a weight;
        a name that the exporter made up gives way to that of the node, as in PyTorch:
        ``"encoder.layer.0.query.weight"``.

    Raises
    ------
    FormatError
        If the file is broken, or elements lie outside of its folder.
    """
    check_head(path, "an ONNX file")
    model = read_model(path)
    try:
        found = uses(model)
    except ValueError as error:
        raise FormatError(f"{path}: not a valid ONNX file: {error}.") from error
    named: list[_Named] = []
    graphs = [model.graph]
    for graph in graphs:  # which grows
        graphs += graph.inner
        for constant in graph.constants.values():
            if not _is_setting(graph, constant):
                named.append(_Named(constant, found.get((id(graph), constant.name))))
    return Contents("onnx", list(_entries(named)), files=tuple(p.absolute() for p in model.files))


def _is_setting(graph: Graph, constant: Constant) -> bool:
    """Tell whether a constant is a shape, an axis or a factor of the computation, and no weight."""
    if constant.name in graph.initialisers:
        return len(constant.shape) < 2 and constant.dtype in ("int64", "int32", "bool")
    return len(constant.shape) < 2 or not constant.is_float


@dataclass(frozen=True)
class _Named:
    """A constant and its use, with the names that it may go by."""

    constant: Constant
    use: Use | None

    @property
    def anonymous(self) -> bool:
        return _ANONYMOUS.fullmatch(self.constant.name) is not None

    def short(self) -> str:
        """The name of the tensor, or of the scope of its node."""
        if not self.anonymous or self.use is None or self.use.layout is None:
            return _QUANTISED.sub("", self.constant.name)
        scope, last = _scope(self.use.node)
        if self.use.place in _RECURRENT and self.use.node.op in ("LSTM", "GRU", "RNN"):
            number = last.rpartition("_")[2]
            layer = number if number.isdigit() else "0"
            owner = f"{scope}." if scope else ""
            return f"{owner}{_RECURRENT[self.use.place]}_l{layer}"
        return f"{scope or last}.weight"

    def long(self) -> str:
        """The same with the name of the node, where two nodes share a scope."""
        if not self.anonymous or self.use is None or self.use.layout is None:
            return self.constant.name
        scope, last = _scope(self.use.node)
        return f"{scope}.{last}.weight" if scope else f"{last}.weight"


def _scope(node: Node) -> tuple[str, str]:
    """Part ``"/encoder/layer.0/query/MatMul"`` into ``"encoder.layer.0.query"`` and the rest."""
    if len(node.scopes) > 1:
        return node.scopes[-2], node.scopes[-1]
    words = [word for word in node.name.replace("::", "/").split("/") if word]
    if not words:
        return "", next((out for out in node.outputs if out), node.op)
    *scopes, last = words
    # torch calls the container of "layer.0" first, and then its member by the whole name.
    inside = [
        word
        for i, word in enumerate(scopes)
        if i + 1 == len(scopes) or not scopes[i + 1].startswith(f"{word}.")
    ]
    return ".".join(inside), last


def _entries(named: list[_Named]) -> Iterator[TensorEntry]:
    counts = Counter(one.short() for one in named)
    taken: set[str] = set()
    for one in named:
        key = one.short() if counts[one.short()] == 1 else one.long()
        if key in taken:
            key = one.constant.name
        number = 2
        while key in taken:
            key = f"{one.constant.name} {number}"
            number += 1
        taken.add(key)
        use = one.use
        if use is None or use.layout is None:
            yield _no_weight(key, one.constant, use)
        elif use.parts == 1:
            yield _weight(key, one.constant, use)
        else:
            for i in range(use.parts):
                direction = _DIRECTIONS[i] if use.parts == 2 else f"[{i}]"
                taken.add(f"{key}{direction}")
                yield _weight(f"{key}{direction}", one.constant, use, i)


def _no_weight(key: str, constant: Constant, use: Use | None) -> TensorEntry:
    rank = len(constant.shape)
    if use is not None and use.is_bias:
        problem = Skip("bias")
    elif rank < 2:
        problem = Skip("vector" if rank else "scalar")
    elif use is None:
        problem = Skip("unused")
    else:
        known = use.node.domain in ("", "ai.onnx")
        problem = Skip("operand" if known else "foreign_operand", {"op": use.node.op})
    problem = constant.problem or problem
    return TensorEntry(key, constant.shape, constant.dtype, None, problem=problem, is_weight=False)


def _weight(key: str, constant: Constant, use: Use, part: int = 0) -> TensorEntry:
    assert use.layout is not None
    layout, shape = use.layout, constant.shape
    if use.parts > 1:
        shape, layout = shape[1:], replace(layout, groups=None)
    plain = TensorEntry(key, shape, constant.dtype, None, is_weight=True, problem=constant.problem)
    array: StoredArray
    if constant.problem is not None:
        return replace(plain, kind=layout.kind, axes=layout.axes)
    if constant.is_float:
        array = constant.array(part, use.parts)
    elif use.quantised is not None and use.parts == 1 and constant.dtype in _INTEGERS:
        if not _fits(constant, use.quantised):
            return replace(plain, kind=layout.kind, axes=layout.axes)
        array = _Dequantised(constant, use.quantised)
        plain = replace(plain, dtype="float32", stored_as=_stored_as(constant, use.quantised))
    else:
        return replace(plain, kind=layout.kind, axes=layout.axes)
    return replace(plain, load=array).laid_out(layout)


# --- integers and their scales ------------------------------------------------------------------


def _fits(constant: Constant, quantised: Quantised) -> bool:
    """Tell whether there is one scale, one a position of an axis, or one a block of it."""
    scale, axis = quantised.scale, quantised.axis
    readable = scale.is_float and scale.problem is None
    zero = quantised.zero_point
    if zero is not None and (zero.problem is not None or zero.dtype not in _INTEGERS):
        return False
    if not readable or any(z.shape != scale.shape for z in [zero] if z is not None):
        return False
    if scale.shape in ((), (1,)):
        return True
    n = constant.shape[axis]
    if scale.shape == (n,):
        return True
    others = (*scale.shape[:axis], n, *scale.shape[axis + 1 :])
    blocks = scale.shape[axis] if len(scale.shape) == len(constant.shape) else 0
    return others == constant.shape and blocks > 0 and n % blocks == 0


def _stored_as(constant: Constant, quantised: Quantised) -> StoredAs:
    scale, axis = quantised.scale.shape, quantised.axis
    if scale in ((), (1,)):
        how = "one scale"
    elif scale == (constant.shape[axis],):
        how = "a scale a channel"
    else:
        how = f"blocks of {constant.shape[axis] // scale[axis]}"
    return StoredAs(BY_NAME[constant.dtype].bits, f"ONNX {constant.dtype}, {how}")


@dataclass(frozen=True)
class _Dequantised(StoredArray):
    """Integers of a file, times their scale; small, and can be pickled."""

    constant: Constant
    quantised: Quantised

    @property
    def info(self) -> ArrayInfo:
        return ArrayInfo(self.constant.shape, "float32")

    def load(self, allocate: Allocate | None = None) -> HostArray:
        target = (allocate or np.empty)(self.constant.shape, np.dtype(np.float32))
        numbers = self.constant.values()
        if self.quantised.zero_point is not None:
            numbers -= self._along(self.quantised.zero_point.values())
        with np.errstate(all="ignore"):
            target[...] = numbers * self._along(self.quantised.scale.values())
        return HostArray(target, "float32")

    def _along(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring scales to a shape that broadcasts to that of the integers."""
        shape, axis = self.constant.shape, self.quantised.axis
        if values.size == 1:
            return values.reshape(())
        if values.ndim == 1:
            return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return np.repeat(values, shape[axis] // values.shape[axis], axis=axis)


FORMAT = Format("onnx", (".onnx",), read, rank=4)
