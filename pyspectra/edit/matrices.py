"""Edits of matrices: which layers, and what a layer becomes once its matrices are new ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra.errors import ArgumentValueError
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, WeightSource
from pyspectra.weights.kinds import EMBEDDING, LORA
from pyspectra.weights.matricize import matricize
from pyspectra.weights.selection import Selection, chosen_layers

__all__ = [
    "EditMatrices",
    "Recompute",
    "Shapes",
    "by_matrices",
    "editable",
    "finite_values",
    "of_named",
]

V = TypeVar("V")

EditMatrices = Callable[[Layer, Sequence[FloatArray]], Sequence[FloatArray] | None]
"""Takes a layer and its matrices; returns new ones, or None for a layer that stays."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by their keys."""

Recompute = Callable[[], FloatArray | None]
"""Computes the new values of a tensor, in its shape; None for one that stays."""


def editable(
    function: str,
    source: WeightSource,
    stored: Shapes,
    layers: Selection,
    *,
    embeddings: bool = True,
) -> list[Layer]:
    """Choose the layers of an edit: whole tensors that the model holds as they are.

    Parameters
    ----------
    function : str
        The public function, for messages.
    source : WeightSource
        The model.
    stored : mapping of str to tuple of int
        Keys of the tensors that can be written, and their shapes.
    layers : int, str, sequence of them or None
        Which layers; None means all.
    embeddings : bool
        Whether embeddings are among all.

    Returns
    -------
    list of Layer
        No parts, which are edited with their whole; no LoRA pairs and no weights that are computed
        from other tensors, which are not stored.

    Raises
    ------
    ArgumentValueError
        If a layer does not exist, or cannot be written back: it is quantised, or the matrix is not
        stored as such.
    """
    found = [
        layer
        for layer in chosen_layers(source.layers, source.skipped, layers, function)
        if layer.part_of is None
        and layer.kind != LORA.name
        and (embeddings or layers is not None or layer.kind != EMBEDDING.name)
    ]
    for layer in found:
        if layer.made_of or layer.stored_as is not None:
            got = f"{layer.key!r}, which is quantised"
            hint = "edit the model that it was quantised from, or choose other layers (layers=)"
            raise ArgumentValueError(function, "model", "hold its weights as floats", got, hint)
    found = [layer for layer in found if layer.key in stored]
    for layer in found:
        if layer.shape != stored[layer.key]:  # kernels of Flax, whose axes are joined
            got = f"{layer.key!r} of shape {stored[layer.key]}, a matrix of shape {layer.shape}"
            raise ArgumentValueError(function, "model", "hold matrices as they are", got)
    return found


def of_named(
    function: str,
    argument: str,
    source: WeightSource,
    layers: Sequence[Layer],
    values: Mapping[str, V],
) -> dict[str, V]:
    """Return what is given for layers by their names, or by those of their parameters.

    Parameters
    ----------
    function, argument : str
        The public function and its argument, for messages.
    source : WeightSource
        The model.
    layers : sequence of Layer
        Those that are edited.
    values : mapping
        Name -> value.

    Returns
    -------
    dict
        Key -> value, of those of the layers that are named.

    Raises
    ------
    ArgumentValueError
        If the model has no layer of such a name.
    """
    known = {name for layer in source.layers for name in (layer.key, layer.name)}
    for name in values:
        if name not in known:
            raise ArgumentValueError(function, argument, "name layers of the model", repr(name))
    pairs = [(layer.key, name) for layer in layers for name in (layer.name, layer.key)]
    return {key: values[name] for key, name in pairs if name in values}


def by_matrices(layers: Sequence[Layer], edit: EditMatrices) -> Mapping[str, Recompute]:
    """Return how the tensors of layers change, by their keys, if their matrices do."""
    return {layer.key: functools.partial(_edited, layer, edit) for layer in layers}


def finite_values(layer: Layer) -> FloatArray | None:
    """Return the values of a layer as float64, its own copy; None if one is not finite."""
    values = layer.load().to_float64()
    return values if values.size and np.isfinite(values).all() else None


def _edited(layer: Layer, edit: EditMatrices) -> FloatArray | None:
    values = finite_values(layer)
    if values is None:
        return None
    views = [X.data for X in matricize(layer, HostArray(values, "float64")).slices]
    edited = edit(layer, views)
    if edited is None:
        return None
    for view, matrix in zip(views, edited, strict=True):
        view[...] = matrix
    return values
