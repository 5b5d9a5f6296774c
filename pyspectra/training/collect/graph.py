"""What the graph of a loss says: which loss it is, what came before it, what was broadcast."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyspectra.training.rules.facts import LossGraph

# Names of torch's graph nodes, without "Backward0".
_LOSSES = {
    "NllLoss": "nll", "NllLoss2D": "nll", "NllLossNd": "nll", "MseLoss": "mse", "L1Loss": "l1",
    "SmoothL1Loss": "smooth_l1", "HuberLoss": "huber", "BinaryCrossEntropy": "bce",
    "BinaryCrossEntropyWithLogits": "bce_logits",
}  # fmt: skip
# What is done to a difference in losses written by hand.
_BY_HAND = {"Pow": "mse", "Abs": "l1"}
_OPERATIONS = {"LogSoftmax": "log_softmax", "Softmax": "softmax", "Sigmoid": "sigmoid",
               "Tanh": "tanh", "Relu": "relu"}  # fmt: skip
# Nodes that pass values on as they are, or scale them: looked through.
_THROUGH = {
    "View", "Reshape", "ReshapeAlias", "UnsafeView", "Transpose", "T", "Permute", "Squeeze",
    "Unsqueeze", "Alias", "Clone", "ToCopy", "Slice", "Select", "Expand", "Mean", "Sum", "Div",
    "Mul", "Add", "Contiguous", "Identity",
}  # fmt: skip
_BEFORE_LOSS = {"Mean", "Sum", "Div", "Mul", "Add", "ToCopy", "Squeeze", "View", "Clone", "Alias"}
# Nodes that keep all values; the first keep their shape too, or broadcast, which shows by itself.
_SAME = {"ToCopy", "Alias", "Clone", "Contiguous", "Expand"}
_RESHAPED = {"View", "Reshape", "ReshapeAlias", "UnsafeView", "Transpose", "T", "Permute",
             "Squeeze", "Unsqueeze"}  # fmt: skip
DEEPEST = 12


def loss_graph(
    loss: Any, step: int, output: Any = None, optimizers: Sequence[Any] = ()
) -> LossGraph:
    """Read the graph of a loss: names and shapes of its operations, no values.

    Parameters
    ----------
    loss : Tensor
        The loss, before or after its backward pass: saved values are gone then, names are not.
    step : int
    output : graph node, optional
        Where the output of the model stands in the graph.
    optimizers : sequence of torch.optim.Optimizer
        A single one may maximise; of several nobody knows which minimises what.

    Returns
    -------
    LossGraph
        What was read; its kind is None where the loss is not one of those that are known.
    """
    read = _read(loss, step, output if len(optimizers) == 1 else None)
    climbs = len(optimizers) == 1 and bool(optimizers[0].param_groups[0].get("maximize"))
    return dataclasses.replace(read, maximized=climbs)


def _read(loss: Any, step: int, output: Any) -> LossGraph:
    node = getattr(loss, "grad_fn", None) if isinstance(loss, Tensor) else None
    if node is not None and _name(node) == "Neg":
        found = _loss_node(_next(node), DEEPEST)
        negated = found is not None and _is_made_of(found[0], output)
        return LossGraph(step, None, negated=found[1] if found and negated else None)
    found = _loss_node(node, DEEPEST)
    if found is None:
        return LossGraph(step, None)
    node, kind = found
    below = _next(node)
    if kind == "nll":
        operation, under = _operation(below)
        if operation == "log_softmax":
            # torch's cross_entropy is log_softmax and nll: what came before is what counts.
            before, _ = _operation(_next(under))
            classes = _classes(under)
            over_batch = getattr(under, "_saved_dim", None) == 0 and len(_shape(under) or ()) == 2
            before_it = (before,) if before else ()
            return LossGraph(step, "cross_entropy", before_it, None, classes, over_batch)
        return LossGraph(step, "nll", (operation,) if operation else ())
    operation, _ = _operation(below)
    expanded = _all_pairs(node, below) if _name(node) == "Sub" else _expanded(below)
    return LossGraph(step, kind, (operation,) if operation else (), expanded)


def _name(node: Any) -> str:
    return str(type(node).__name__).rstrip("0123456789").removesuffix("Backward")


def _next(node: Any) -> Any:
    below = [f for f, _ in getattr(node, "next_functions", ()) if f is not None]
    return below[0] if below else None


def _loss_node(node: Any, depth: int) -> tuple[Any, str] | None:
    if node is None or depth == 0:
        return None
    name = _name(node)
    if name in _LOSSES:
        return node, _LOSSES[name]
    if name in _BY_HAND and _next(node) is not None and _name(_next(node)) == "Sub":
        return _next(node), _BY_HAND[name]
    if name not in _BEFORE_LOSS:
        return None
    # A sum of several losses counts as the first of them that is known.
    for below, _ in node.next_functions:
        found = _loss_node(below, depth - 1)
        if found is not None:
            return found
    return None


def entrance(loss: Any, outputs: Tensor) -> str | None:
    """Tell how outputs entered a loss of one of the kinds that are known.

    Parameters
    ----------
    loss, outputs : Tensor
        Both with their graphs.

    Returns
    -------
    {"same", "reshaped"} or None
        None where they were not what the loss was taken of: a part of it, or made of it.
    """
    found = _loss_node(getattr(loss, "grad_fn", None), DEEPEST)
    if found is None or outputs.grad_fn is None:
        return None
    node, kind = found
    below = _next(node)
    if kind == "nll":
        operation, under = _operation(below)
        below = _next(under) if operation == "log_softmax" else below
    shape_kept = True
    for _ in range(DEEPEST):
        if below is None or below is outputs.grad_fn:
            break
        if _name(below) not in _SAME | _RESHAPED:
            return None
        shape_kept = shape_kept and _name(below) in _SAME
        below = _next(below)
    if below is not outputs.grad_fn:
        return None
    return "same" if shape_kept else "reshaped"


def _is_made_of(node: Any, output: Any) -> bool:
    """Tell whether the input of a loss is the output of the model itself."""
    node = _next(node)
    for _ in range(DEEPEST):
        if node is None or output is None:
            return False
        if node is output:
            return True
        name = _name(node)
        if name not in _OPERATIONS and name not in _THROUGH:
            return False
        node = _next(node)
    return False


def _operation(node: Any) -> tuple[str | None, Any]:
    """Return the first operation that is not looked through, if it is one that matters."""
    for _ in range(DEEPEST):
        if node is None:
            return None, None
        name = _name(node)
        if name in _OPERATIONS:
            return _OPERATIONS[name], node
        if name not in _THROUGH - {"Mul", "Add", "Sum", "Mean", "Div"}:
            return None, None
        node = _next(node)
    return None, None


def _shape(node: Any) -> tuple[int, ...] | None:
    metadata = getattr(node, "_input_metadata", None)
    return tuple(metadata[0].shape) if metadata else None


def _classes(node: Any) -> int | None:
    shape = _shape(node)
    return shape[1] if shape and len(shape) > 1 else None


def _all_pairs(difference: Any, below: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the shapes of N predictions whose difference to the targets is (N, N)."""
    before, after = _shape(below), _shape(difference)
    if before and after and len(after) == 2 and after[0] == after[1] > 1:
        return (before, after) if before in ((after[0],), (after[0], 1)) else None
    return None


def _expanded(node: Any) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    if node is None or _name(node) != "Expand":
        return None
    before = getattr(node, "_saved_self_sym_sizes", None)
    after = _shape(node)
    if before is None or after is None or tuple(before) == after or not before:
        return None
    return tuple(int(n) for n in before), after
