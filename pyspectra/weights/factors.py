"""Weights that a file stores as factors, put together again: weight normalisation and pruning.

A module that computes its weight from other parameters saves those, and not the weight. Where names
and shapes tell how it is computed, the weight is listed as the layer that it is in the module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pyspectra._arrays import FLOAT_DTYPES, Allocate, HostArray, Loader
from pyspectra.types import FloatArray
from pyspectra.weights.catalogue import TensorEntry
from pyspectra.weights.kinds import LINEAR, layer_name
from pyspectra.weights.layer import Held, Layer
from pyspectra.weights.skip import Skip

__all__ = ["Factors", "with_products"]

Shape = tuple[int, ...]
Compute = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class _Recipe:
    """How a weight is stored in two tensors.

    Attributes
    ----------
    whole, other : str
        Ends of their names: of the one that has the shape of the weight, and of the other.
    fits : callable
        Tells from the shapes of the two whether they can be such a pair.
    compute : callable
        The weight, from the two.
    """

    whole: str
    other: str
    fits: Callable[[Shape, Shape], bool]
    compute: Compute


def _are_norms(whole: Shape, norms: Shape) -> bool:
    """Tell whether `norms` has one number for each place along one axis, or one for all."""
    if len(norms) != len(whole):
        return norms == ()
    long = [i for i, n in enumerate(norms) if n != 1]
    return len(long) <= 1 and all(norms[i] == whole[i] for i in long)


def _normalised(directions: FloatArray, norms: FloatArray) -> FloatArray:
    # An axis of length 1 in both may be summed over or not: it is the same.
    axes = tuple(i for i, n in enumerate(norms.shape) if n == 1) if norms.ndim else None
    with np.errstate(all="ignore"):  # zeros and infinities are reported downstream
        lengths = np.sqrt(np.square(directions).sum(axes, keepdims=True))
        return np.asarray(directions * (norms / lengths))


def _masked(whole: FloatArray, mask: FloatArray) -> FloatArray:
    return whole * mask


# https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.weight_norm.html
_PARAMETRIZATIONS: Final = "parametrizations"
_RECIPES: Final = (
    _Recipe(".original1", ".original0", _are_norms, _normalised),
    _Recipe("_v", "_g", _are_norms, _normalised),
    _Recipe("_orig", "_mask", tuple.__eq__, _masked),
)


def _parametrized(key: str) -> str | None:
    """Return the name of the weight whose parametrization a tensor belongs to, or None."""
    before, found, after = f".{key}".rpartition(f".{_PARAMETRIZATIONS}.")
    return f"{before}.{after.partition('.')[0]}".removeprefix(".") if found else None


def _weight_of(key: str, end: str) -> str | None:
    """Return the name of the weight of which a tensor with this end of its name is a factor."""
    if not key.endswith(end):
        return None
    if end.startswith("."):
        return _parametrized(key)
    stem = key.removesuffix(end)
    return stem if "weight" in stem.rpartition(".")[2] else None


@dataclass(frozen=True)
class Factors(Loader):
    """Loader of a weight that is stored in two tensors.

    Attributes
    ----------
    whole, other : Layer
        The two, which check what they read.
    dtype : str
        Of the weight.
    compute : callable
        The weight, from the two.
    """

    whole: Layer
    other: Layer
    dtype: str
    compute: Compute

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Compute the weight in float64, and round it to its type."""
        product = self.compute(self.whole.load().to_float64(), self.other.load().to_float64())
        return HostArray(product.astype(self.dtype), self.dtype)


def with_products(entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Add the weights that are stored as factors, and mark their factors.

    Parameters
    ----------
    entries : sequence of TensorEntry
        All tensors of a source.

    Returns
    -------
    list of TensorEntry
        The same, with each weight before the factor of its shape. Of a module, which lists its
        weights by itself, the factors are marked alone.
    """
    by_key = {entry.key: entry for entry in entries}
    listed: list[TensorEntry] = []
    weight_of: dict[str, str] = {}
    for entry in entries:
        owner = _parametrized(entry.key)
        if owner is not None and owner in by_key:
            weight_of[entry.key] = owner
        for recipe in _RECIPES:
            name = _weight_of(entry.key, recipe.whole)
            if name is None:
                continue
            other = by_key.get(entry.key.removesuffix(recipe.whole) + recipe.other)
            if name not in by_key:
                product = _product(name, entry, other, recipe)
                if product is None:
                    continue
                listed.append(product)
            weight_of[entry.key] = name
            if other is not None:
                weight_of[other.key] = name
        listed.append(entry)
    return [
        replace(entry, problem=Skip("factor", {"weight": layer_name(weight_of[entry.key])}))
        if entry.key in weight_of
        else entry
        for entry in listed
    ]


def _product(
    name: str, whole: TensorEntry, other: TensorEntry | None, recipe: _Recipe
) -> TensorEntry | None:
    if other is None or whole.shape is None or other.shape is None:
        return None
    if not recipe.fits(whole.shape, other.shape):
        return None
    one, two = _as_layer(whole), _as_layer(other)
    if one is None or two is None:
        return None
    dtype = "float64" if whole.dtype == "float64" else "float32"
    loader = Factors(one, two, dtype, recipe.compute)
    tied = whole.identity is not None and other.identity is not None
    return replace(
        whole,
        key=name,
        dtype=dtype,
        load=Held(loader.load) if one.in_memory else loader,
        identity=("factors", whole.identity, other.identity) if tied else None,
    )


def _as_layer(entry: TensorEntry) -> Layer | None:
    """Return a layer that is never listed, and only checks what it loads."""
    if entry.shape is None or entry.load is None or entry.dtype not in FLOAT_DTYPES:
        return None
    return Layer(entry.key, LINEAR.name, entry.shape, entry.dtype, 0, entry.key, entry.load)
