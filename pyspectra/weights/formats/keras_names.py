"""How the variables of Keras are called: by the layer, and by what they are in it.

Keras 3 saves the tree of objects: ``layers/dense_1/vars/0`` is the first variable of the second
dense layer of the model, whose own name is an attribute of ``vars``. Older files name each variable
and repeat the layer: ``dense_1/dense_1/kernel:0``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pyspectra.weights.entries import TensorEntry
from pyspectra.weights.formats.hdf5 import Tree
from pyspectra.weights.kernels import KernelLayout, einsum_layout
from pyspectra.weights.kinds import IN, LINEAR, OUT, UNKNOWN
from pyspectra.weights.skip import Skip

__all__ = ["Variable", "equations", "variables"]

Shape = tuple[int, ...]

_CONTAINERS: Final = ("layers", "_layer_checkpoint_dependencies")
_VARIABLE: Final = re.compile(r"(?:(?P<owner>.*)/)?vars/(?P<number>\d+)", re.DOTALL)
_NUMBER: Final = re.compile(r"_\d+\Z")
# Class of a layer, in the spelling of paths -> its variables in their order.
_CLASSES: Final = (
    (re.compile(r"depthwise_conv[12]d"), ("depthwise_kernel", "bias")),
    (re.compile(r"separable_conv[12]d"), ("depthwise_kernel", "pointwise_kernel", "bias")),
    (re.compile(r"(?:einsum_)?dense|conv[123]d(?:_transpose)?|\w+_dense"), ("kernel", "bias")),
    (re.compile(r"embedding"), ("embeddings",)),
    (re.compile(r"cell|\w+_cell"), ("kernel", "recurrent_kernel", "bias")),
    (re.compile(r"p_re_lu|prelu"), ("alpha",)),
    (re.compile(r"spectral_normalization"), ("vector_u", "previous")),
    (re.compile(r"(?:batch|layer|group|rms|unit|instance)_normalization"),
     ("gamma", "beta", "moving_mean", "moving_variance")),
)  # fmt: skip
_KERNELS: Final = re.compile(r"(?:\w+_)?kernel|embeddings")
# What is no weight matrix in the files that name each variable, whatever its shape.
_NO_WEIGHT: Final = re.compile(r"gamma|beta|alpha|moving_\w+|vector_u|.*bias|b")
_OLD_NAMES: Final = ((re.compile(r"(?:.+_)?W(?:_\d+)?"), "kernel"),
                     (re.compile(r"(?:.+_)?b(?:_\d+)?"), "bias"))  # fmt: skip


@dataclass(frozen=True)
class Variable:
    """One variable of a file.

    Attributes
    ----------
    key : str
        Its name: those of the layers around it, and its own.
    entry : TensorEntry
        What the file holds.
    is_weight : bool or None
        As in `TensorEntry`.
    kind : str or None
        As in `TensorEntry`.
    layout : KernelLayout or None
        What its axes mean, where a configuration tells.
    of_optimizer : bool
        True for the state of an optimizer.
    problem : Skip or None
        Why it is no weight, if it is none.
    """

    key: str
    entry: TensorEntry
    is_weight: bool | None = None
    kind: str | None = None
    layout: KernelLayout | None = None
    of_optimizer: bool = False
    problem: Skip | None = None


def variables(tree: Tree, found: Mapping[str, str]) -> list[Variable]:
    """Name the variables of a file.

    Parameters
    ----------
    tree : Tree
        The file.
    found : Mapping
        As `equations` returns it.

    Returns
    -------
    list of Variable
        In the order of the file; no two have the same key.
    """
    if any(_VARIABLE.fullmatch(path) for path in tree.datasets):
        made = list(_by_object(tree, found))
    else:
        made = [_by_name(path, entry, found) for path, entry in tree.datasets.items()]
    counts = Counter(v.key for v in made)
    return [replace(v, key=v.entry.key.replace("/", ".")) if counts[v.key] > 1 else v for v in made]


def equations(config: Any) -> dict[str, str]:
    """Find the equations of the layers ``EinsumDense`` in the configuration of a model.

    Parameters
    ----------
    config : object
        What JSON holds.

    Returns
    -------
    dict of str to str
        Name of a layer -> its equation; without those whose name two layers share.
    """
    found: dict[str, set[str]] = {}
    waiting = [config]
    for value in waiting:  # which grows
        if isinstance(value, dict):
            waiting += value.values()
            name, equation = value.get("name"), value.get("equation")
            if isinstance(name, str) and isinstance(equation, str):
                found.setdefault(name, set()).add(equation)
        elif isinstance(value, list):
            waiting += value
    return {name: min(several) for name, several in found.items() if len(several) == 1}


def _guessed_layout(of_class: str, shapes: Mapping[int, Shape]) -> KernelLayout | None:
    """Fold the axes of an ``EinsumDense`` without its equation by the shape of its bias."""
    kernel, bias = shapes[0], shapes.get(1)
    if bias is None:  # the layers of an attention say more
        return KernelLayout(UNKNOWN) if of_class == "einsum_dense" else None
    inputs = len(kernel) - len(bias)
    if inputs < 1 or kernel[inputs:] != bias:
        return KernelLayout(UNKNOWN)
    groups = (tuple(range(inputs)), tuple(range(inputs, len(kernel))))
    return KernelLayout(LINEAR.name, (IN, OUT), groups, part_names=())


# --- Keras 3: the tree of objects ---------------------------------------------------------------


def _by_object(tree: Tree, found: Mapping[str, str]) -> Iterator[Variable]:
    owners: dict[str, dict[int, TensorEntry]] = {}
    for path, entry in tree.datasets.items():
        match = _VARIABLE.fullmatch(path)
        if match is None or len(match["number"]) > 9:
            yield _by_name(path, entry, found)
        else:
            owners.setdefault(match["owner"] or "", {})[int(match["number"])] = entry
    having = {path.rpartition("/")[0] for path in tree.groups if f"/{path}".endswith("/vars")}
    own = {
        path.rpartition("/")[0]: name
        for path, name in tree.names.items()
        if f"/{path}".endswith("/vars")
    }
    for owner, numbered in owners.items():
        names, of_class = _layer(owner, own, having)
        prefix = "".join(f"{name}." for name in names)
        equation = found.get(own.get(owner, ""))
        shapes = {i: entry.shape or () for i, entry in sorted(numbered.items())}
        for i, (name, is_weight, kind) in _in_layer(of_class, shapes).items():
            entry = numbered[i]
            layout = None
            if name == "kernel" and equation is not None and entry.shape is not None:
                layout = einsum_layout(equation, entry.shape)
            elif name == "kernel" and of_class.endswith("_dense") and len(shapes[i]) > 2:
                layout = _guessed_layout(of_class, shapes)
            yield Variable(
                f"{prefix}{name}",
                entry,
                is_weight,
                kind,
                layout,
                owner.partition("/")[0] == "optimizer",
                _no_weight(entry),
            )


def _no_weight(entry: TensorEntry) -> Skip:
    shape = entry.shape or ()
    if entry.load is None:
        return Skip("buffer")
    return Skip("name") if len(shape) > 1 else Skip("vector" if shape else "scalar")


def _layer(owner: str, own: Mapping[str, str], having: set[str]) -> tuple[list[str], str]:
    """Return the names of the objects that a path leads through, and the class of the last.

    A layer in a list goes by its class, ``dense_1``, unless it has a name of its own; a layer that
    is an attribute of another goes by the attribute.
    """
    words = owner.split("/") if owner else []
    names, of_class = [], ""
    for i, word in enumerate(words):
        path, parent = "/".join(words[: i + 1]), "/".join(words[:i])
        if word in _CONTAINERS and path not in having:
            continue
        name = own.get(path, "")
        base, base_of_name = _NUMBER.sub("", word), _NUMBER.sub("", name)
        listed = bool(parent) and parent not in having
        names.append(name if listed and name and base_of_name != base else word)
        of_class = base
        if not listed and any(pattern.fullmatch(base_of_name) for pattern, _ in _CLASSES):
            of_class = base_of_name
    return names, of_class


def _in_layer(
    of_class: str, shapes: Mapping[int, Shape]
) -> dict[int, tuple[str, bool | None, str | None]]:
    """Name the variables of a layer; tell whether each is a weight, and its kind if it is known."""
    for pattern, names in _CLASSES:
        if pattern.fullmatch(of_class):
            return {
                i: (name, len(shape) > 1 if _KERNELS.fullmatch(name) else False, None)
                for (i, shape) in shapes.items()
                for name in [names[i] if i < len(names) else str(i)]
            }
    first = shapes.get(0, ())
    bias = {
        i for i, s in shapes.items() if i and 1 <= len(s) < len(first) and first[-len(s) :] == s
    }
    matrices = [i for i, shape in shapes.items() if len(shape) > 1 and i not in bias]
    found: dict[int, tuple[str, bool | None, str | None]] = {}
    for i, shape in shapes.items():
        if i in bias:
            found[i] = ("bias" if len(bias) == 1 else f"{i}", False, None)
        elif matrices == [0] and i == 0 and (len(shape) != 3 or bias):
            found[i] = ("kernel", True, None)
        elif i in matrices:
            found[i] = (str(i), True, LINEAR.name if len(shape) == 2 else UNKNOWN)
        else:
            found[i] = (str(i), False, None)
    return found


# --- before Keras 3: a name for each variable ---------------------------------------------------


def _by_name(path: str, entry: TensorEntry, found: Mapping[str, str]) -> Variable:
    words = path.split("/")
    of_optimizer = words[0] in ("optimizer", "optimizer_weights")
    if words[0] in ("model_weights", "top_level_model_weights") and len(words) > 1:
        words = words[1:]
    if words[0] == "top_level_model_weights" and len(words) > 1:
        words = words[1:]
    if len(words) > 1 and words[0] in words[1:]:  # the group of a layer, and its name again
        words = words[1:]
    last = words[-1].partition(":")[0]
    for pattern, name in _OLD_NAMES:
        if pattern.fullmatch(last):
            last = name
    words[-1] = last
    shape = entry.shape or ()
    is_weight, layout = None, None
    if _NO_WEIGHT.fullmatch(last):
        is_weight = False
    elif len(shape) > 1 and not _KERNELS.fullmatch(last) and last != "weight":
        is_weight = True
    if last == "kernel" and len(words) > 1 and words[-2] in found and len(shape) > 1:
        layout = einsum_layout(found[words[-2]], shape)
    kind = None
    if is_weight:
        kind = LINEAR.name if len(shape) == 2 else UNKNOWN
    return Variable(
        ".".join(words), entry, is_weight, kind, layout, of_optimizer, _no_weight(entry)
    )
