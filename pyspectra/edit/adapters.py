"""Task vectors of adapters: the products of their LoRA pairs, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyspectra.edit.task_vectors import Base, Model, listed
from pyspectra.errors import ArgumentValueError
from pyspectra.types import FloatArray
from pyspectra.weights import WeightSource
from pyspectra.weights.adapted import Adapted, adapted_layers
from pyspectra.weights.kinds import IN, KINDS, OUT
from pyspectra.weights.lora import lora_product

__all__ = ["Adapter", "adapter_of", "is_adapter"]


@dataclass(frozen=True)
class Adapter:
    """The task vector of an adapter.

    Attributes
    ----------
    name : str
        How messages call it.
    files : tuple of Path
        The files that it is read from.
    updates : Mapping
        Name of a tensor of the base, tied ones by their first -> its pair.
    """

    name: str
    files: tuple[Path, ...]
    updates: Mapping[str, Adapted]

    def parts(self, key: str, count: int) -> Iterator[FloatArray] | None:
        """Compute what is added to a tensor of the base, so many elements at a time."""
        return _rows(self.updates[key], count) if key in self.updates else None

    def delta(self, part: FloatArray, base: FloatArray) -> FloatArray:
        """Return what was added, which is what `parts` yields."""
        return part


def _rows(update: Adapted, count: int) -> Iterator[FloatArray]:
    left = update.scale * update.product.b.load().to_float64()
    right = update.product.a.load().to_float64()
    if _inputs_first(update):
        left, right = right.T, left.T
    step = max(1, count // right.shape[1])
    with np.errstate(all="ignore"):  # what is not finite is reported by name
        for begin in range(0, len(left), step):
            yield (left[begin : begin + step] @ right).reshape(-1)


def _inputs_first(update: Adapted) -> bool:
    axes = update.layer.axes or KINDS[update.layer.kind].axes
    return axes.index(OUT) > axes.index(IN)


def is_adapter(model: Model) -> bool:
    """Tell whether a model looks like the LoRA pairs of an adapter, and not like a whole model."""
    return any("lora" in key for key in model.tensors)


def adapter_of(
    function: str,
    argument: str,
    base: Base,
    source: WeightSource,
    adapter: WeightSource,
    given: Any,
    model: Model,
) -> Adapter:
    """Match the pairs of an adapter with the tensors of the base.

    Parameters
    ----------
    function, argument : str
        For messages.
    base : Base
    source : WeightSource
        The base once more, which knows its layers.
    adapter : WeightSource
        The adapter, open for as long as its task vector is read.
    given : mapping or path
        What it was opened from.
    model : Model
        It once more, as its tensors.

    Raises
    ------
    ArgumentValueError
        If a pair belongs to no tensor of the base, or there is more than pairs.
    """

    def unlike(got: str) -> ArgumentValueError:
        hint = "merge it into its base first (merge_and_unload of peft), and give the result"
        requirement = "have LoRA pairs alone, each of one matrix of the base"
        return ArgumentValueError(function, argument, requirement, f"{model.name}, {got}", hint)

    pairs = [(x.name, p) for x in adapter.layers if (p := lora_product(x)) is not None]
    halves = {layer.key for _, p in pairs for layer in (p.a, p.b, p.alpha) if layer is not None}
    more = [k for k, t in model.tensors.items() if t.dtype.is_float and k not in halves]
    if more:
        raise unlike(f"which has {listed(more)} besides")
    layers = adapted_layers(source, adapter, given, function=function, argument=argument)
    found = {id(one.product): one for one in layers}
    updates: dict[str, Adapted] = {}
    for name, product in pairs:
        update = found.get(id(product))
        owner = None if update is None else base.owners.get(update.layer.key)
        if update is None or owner is None or not _fits(update):
            raise unlike(f"where {name!r} belongs to no such tensor")
        if owner in updates:
            raise unlike(f"where {name!r} is the second pair for {owner!r}")
        updates[owner] = update
    return Adapter(model.name, (*model.files, *adapter.files), updates)


def _fits(update: Adapted) -> bool:
    rows, columns = update.product.shape
    if _inputs_first(update):
        rows, columns = columns, rows
    shape = update.layer.shape
    return shape[0] == rows and math.prod(shape[1:]) == columns
