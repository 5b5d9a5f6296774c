"""What the constants of an ONNX graph are, by the nodes that use them.

An ONNX file has no layers: a weight is a constant, and only the node that multiplies with it tells
which axis holds the inputs. On the way there it may be transposed, cast or dequantised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pyspectra.weights.formats.onnx_graph import Constant, Function, Graph, Model, Node
from pyspectra.weights.kernels import KernelLayout, einsum_layout
from pyspectra.weights.kinds import EMBEDDING, EXPERT_STACK, IN, LINEAR, OUT, RNN

__all__ = ["Quantised", "Use", "uses"]

MAX_STEPS: Final = 16
MAX_NODES: Final = 1 << 20
MAX_CALLS: Final = 1 << 14
_POSITIONS: Final = ("depth", "height", "width")
_PASSED: Final = ("Identity", "Cast", "Dropout", "QuantizeLinear")
# The gates that recurrent weights stack, by PyTorch's names, in ONNX's order.
_GATES: Final = {"LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n"), "RNN": ()}
QKV: Final = ("q", "k", "v")
# Operators -> the places of their weights.
_WEIGHTS: Final[Mapping[str, tuple[int, ...]]] = {
    "MatMul": (1, 0), "Gemm": (1, 0), "Conv": (1,), "ConvTranspose": (1,), "Gather": (0,),
    "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "Einsum": (1, 0), "DeformConv": (1,),
    "MatMulInteger": (1, 0), "ConvInteger": (1,), "QLinearConv": (3,), "QLinearMatMul": (3,),
    # What ONNX Runtime makes of them.
    "FusedMatMul": (1, 0), "TransposeMatMul": (1, 0), "FusedConv": (1,), "FusedGemm": (1, 0),
    "Attention": (1,), "QAttention": (1,), "QGemm": (3,), "DynamicQuantizeMatMul": (1,),
    "MatMulIntegerToFloat": (1,), "EmbedLayerNormalization": (2, 3, 4), "NhwcConv": (1,),
}  # fmt: skip
# Operators -> the place of their bias.
_BIASES: Final[Mapping[str, int]] = {
    "Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3, "QLinearConv": 8,
    "FusedConv": 2, "FusedGemm": 2, "Attention": 2, "QAttention": 2, "QGemm": 6,
}  # fmt: skip
# Operators whose integer weights have their scale and zero point in places of their own.
_SCALES: Final[Mapping[str, tuple[int, int]]] = {
    "QLinearConv": (4, 5), "QLinearMatMul": (4, 5), "QGemm": (4, 5), "QAttention": (4, 7),
    "DynamicQuantizeMatMul": (2, 3), "MatMulIntegerToFloat": (3, 5),
}  # fmt: skip
_ZERO_POINTS: Final = {"MatMulInteger": 3, "ConvInteger": 3}


@dataclass(frozen=True)
class Quantised:
    """What integers are to be multiplied with.

    Attributes
    ----------
    scale : Constant
        Steps of the grid: one, or one for each position along an axis, or for each block of it.
    zero_point : Constant or None
        The integers that stand for zero.
    axis : int
        The axis, in the order of the file.
    """

    scale: Constant
    zero_point: Constant | None
    axis: int


@dataclass(frozen=True)
class Use:
    """What a node does with a constant.

    Attributes
    ----------
    node : Node
        The node.
    place : int
        Which of its operands it is.
    is_bias : bool
        True for a bias.
    layout : KernelLayout or None
        What its axes mean; None if it is no weight.
    quantised : Quantised or None
        What makes floats of it.
    parts : int
        Weights that it stacks along its first axis: the directions of a recurrent layer.
    """

    node: Node
    place: int
    is_bias: bool = False
    layout: KernelLayout | None = None
    quantised: Quantised | None = None
    parts: int = 1


@dataclass
class _Scope:
    """A graph, with what its names mean outside of it."""

    graph: Graph
    parent: _Scope | None = None
    operands: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.makers = {out: node for node in self.graph.nodes for out in node.outputs if out}

    def home(self, name: str) -> tuple[_Scope, str] | None:
        """Find the graph in which a name is made, and what it is called there."""
        scope: _Scope | None = self
        for _ in range(1 << 10):
            if scope is None or name in scope.graph.constants or name in scope.makers:
                break
            name, scope = scope.operands.get(name, name), scope.parent
        return None if scope is None else (scope, name)


@dataclass(frozen=True)
class _Traced:
    """A constant, as a node sees it: the axis j of what it sees is the stored axis order[j]."""

    graph: Graph
    constant: Constant
    order: tuple[int, ...]
    quantised: Quantised | None = None


def uses(model: Model) -> dict[tuple[int, str], Use]:
    """Tell what each constant is used for.

    Parameters
    ----------
    model : Model
        The graphs.

    Returns
    -------
    dict
        Identity of a graph and name of a constant in it -> the first use as a weight; or else as
        a bias; or else any.
    """
    found: dict[tuple[int, str], Use] = {}
    functions = {(f.domain, f.name): f for f in model.functions}
    for scope, node in _everywhere(model.graph, functions):
        weights = _WEIGHTS.get(node.op, ())
        for place in (*weights, *(i for i in range(len(node.inputs)) if i not in weights)):
            name = node.inputs[place] if place < len(node.inputs) else ""
            traced = _trace(scope, name) if name else None
            if traced is None:
                continue
            use = Use(node, place, is_bias=_BIASES.get(node.op) == place)
            if place in weights:
                use = _as_weight(scope, use, traced)
            key = (id(traced.graph), traced.constant.name)
            if key not in found or _rank(use) > _rank(found[key]):
                found[key] = use
    return found


def _rank(use: Use) -> int:
    return 2 if use.layout is not None else int(use.is_bias)


def _everywhere(
    graph: Graph, functions: Mapping[tuple[str, str], Function]
) -> Iterator[tuple[_Scope, Node]]:
    """Walk all nodes: those of branches and loops, and of functions for each call."""
    waiting = [(_Scope(graph), 0)]
    count = len(graph.nodes)
    for scope, depth in waiting:  # which grows
        bodies: list[tuple[Graph, Mapping[str, str]]] = [(g, {}) for g in scope.graph.inner]
        for node in scope.graph.nodes:
            called = functions.get((node.domain, node.op))
            if called is None:
                yield scope, node
            elif depth < MAX_STEPS:
                given = dict(zip(called.inputs, node.inputs, strict=False))
                bodies.append((called.graph, given))
        for body, operands in bodies:
            count += len(body.nodes)
            if count > MAX_NODES or len(waiting) > MAX_CALLS:
                raise ValueError("more calls of functions than any model has")
            waiting.append((_Scope(body, scope, operands), depth + 1))


def _trace(scope: _Scope, name: str, steps: int = 0) -> _Traced | None:
    """Follow a name back to a constant, through what only turns, casts or dequantises it."""
    home = scope.home(name)
    if home is None or steps == MAX_STEPS:
        return None
    scope, name = home
    constant = scope.graph.constants.get(name)
    if constant is not None:
        return _Traced(scope.graph, constant, tuple(range(len(constant.shape))))
    node = scope.makers[name]
    if not node.inputs or node.outputs[0] != name:
        return None
    if node.op in _PASSED:
        return _trace(scope, node.inputs[0], steps + 1)
    if node.op not in ("Transpose", "DequantizeLinear"):
        return None
    found = _trace(scope, node.inputs[0], steps + 1)
    if found is None:
        return None
    rank = len(found.order)
    if node.op == "Transpose":
        turned = node.numbers.get("perm", list(range(rank))[::-1])
        if sorted(turned) != list(range(rank)):
            return None
        return replace(found, order=tuple(found.order[i] for i in turned))
    if found.constant.is_float:  # it was quantised in the graph, to be rounded
        return found
    scale, zero = (_operand(scope, node, i, steps) for i in (1, 2))
    axis = node.number("axis", 1)
    axis += rank if axis < 0 else 0
    if scale is None or (scale.shape and not 0 <= axis < rank):
        return None
    stored = found.order[axis] if scale.shape else 0
    return replace(found, quantised=Quantised(scale, zero, stored))


def _operand(scope: _Scope, node: Node, place: int, steps: int = 0) -> Constant | None:
    name = node.inputs[place] if place < len(node.inputs) else ""
    found = _trace(scope, name, steps + 1) if name else None
    return None if found is None else found.constant


# --- what the axes of a weight mean -------------------------------------------------------------


def _as_weight(scope: _Scope, use: Use, traced: _Traced) -> Use:
    shape = traced.constant.shape
    seen = tuple(shape[i] for i in traced.order)
    parts = 1
    if use.node.op in _GATES:
        if len(shape) != 3 or traced.order != (0, 1, 2):
            return use
        gates = _GATES[use.node.op]
        fits = gates and shape[1] % len(gates) == 0
        layout: KernelLayout | None = KernelLayout(
            RNN.name, (OUT, IN), ((0, 1), (2,)), part_names=gates if fits else ()
        )
        parts = shape[0]
    else:
        layout = _layout(use.node, use.place, seen)
    if layout is None or len(shape) < 2:
        return use
    quantised = traced.quantised
    if quantised is None and not traced.constant.is_float:
        quantised = _scale_beside(scope, use.node, traced)
    return replace(
        use, layout=_as_stored(layout, traced.order), quantised=quantised, parts=max(1, parts)
    )


def _as_stored(layout: KernelLayout, order: tuple[int, ...]) -> KernelLayout:
    """Say of the axes in the order of the file what is known in that of the node."""
    if layout.groups is not None:
        groups = tuple(tuple(order[j] for j in group) for group in layout.groups)
        return replace(layout, groups=groups)
    axes = [""] * len(order)
    for j, axis in enumerate(layout.axes):
        axes[order[j]] = axis
    return replace(layout, axes=tuple(axes))


def _layout(node: Node, place: int, shape: tuple[int, ...]) -> KernelLayout | None:
    op, rank = node.op, len(shape)
    if op == "Gather":
        fits = rank == 2 and node.number("axis", 0) in (0, -2)
        return KernelLayout(EMBEDDING.name, (IN, OUT)) if fits else None
    if op == "EmbedLayerNormalization":
        return KernelLayout(EMBEDDING.name, (IN, OUT)) if rank == 2 else None
    if op == "Einsum":
        return _of_equation(node.texts.get("equation", ""), place, shape)
    if "Conv" in op:
        return _of_convolution(node, shape)
    if op in ("Attention", "QAttention"):
        ours = node.domain != "" and rank == 2  # ONNX's own operator has no weights
        return KernelLayout(LINEAR.name, (IN, OUT), part_names=QKV) if ours else None
    turned = node.number("transB" if place else "transA", 0) != 0
    axes = (IN, OUT) if (place != 0) != turned else (OUT, IN)
    if rank == 2:
        return KernelLayout(LINEAR.name, axes)
    if rank < 2 or "Gemm" in op:
        return None
    sides = ((rank - 2,), (rank - 1,))
    if all(n == 1 for n in shape[:-2]):
        return KernelLayout(LINEAR.name, axes, (tuple(range(rank - 1)), sides[1]))
    return KernelLayout(EXPERT_STACK.name, ("expert", *axes), (tuple(range(rank - 2)), *sides))


def _of_equation(equation: str, place: int, shape: tuple[int, ...]) -> KernelLayout | None:
    operands, arrow, out = equation.partition("->")
    both = operands.split(",")
    if not arrow or len(both) != 2:
        return None
    first, second = both if place == 1 else both[::-1]
    return einsum_layout(f"{first},{second}->{out}", shape)


def _of_convolution(node: Node, shape: tuple[int, ...]) -> KernelLayout | None:
    n = len(shape) - 2
    if not 1 <= n <= 3:
        return None
    turned = "Transpose" in node.op
    group = node.number("group", 1)
    inputs = shape[0] if turned else shape[1] * group
    suffix = "_grouped" if 1 < group < inputs else ""
    kind = f"conv_transpose{n}d{suffix}" if turned else f"conv{n}d{suffix}"
    positions = _POSITIONS[-n:]
    if node.op == "NhwcConv":
        return KernelLayout(kind, (OUT, *positions, IN))
    return KernelLayout(kind, (IN, OUT, *positions) if turned else (OUT, IN, *positions))


def _scale_beside(scope: _Scope, node: Node, traced: _Traced) -> Quantised | None:
    """Find the scale of integers that the node itself, or a later one, multiplies with."""
    axis = 0 if "Conv" in node.op else traced.order[-1]
    if node.op in _SCALES:
        scale, zero = (_operand(scope, node, i) for i in _SCALES[node.op])
        return None if scale is None else Quantised(scale, zero, axis)
    if node.op not in _ZERO_POINTS:
        return None
    # ONNX Runtime multiplies later, and names the scale after the weight.
    name = traced.constant.name.removesuffix("_quantized")
    later = traced.graph.constants.get(f"{name}_scale")
    zero = _operand(scope, node, _ZERO_POINTS[node.op])
    return None if later is None else Quantised(later, zero, axis)
