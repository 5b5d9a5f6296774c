"""What fine-tuning changed: the differences between the weights of two models, as layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from pyspectra._arrays import Allocate, HostArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra._support.extents import Extent
from pyspectra.types import FloatArray
from pyspectra.weights.layer import Layer
from pyspectra.weights.lora import joint_shape, lora_product
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.pairing import (
    Note,
    arrays_to_compare,
    pair_layers,
    shapes_to_compare,
)
from pyspectra.weights.rounding import Change, change_of
from pyspectra.weights.skip import Skip, SkippedLayer
from pyspectra.weights.source import WeightSource

__all__ = ["Delta", "Deltas", "deltas"]


@dataclass(frozen=True)
class Delta(Layer):
    """A layer of ``W - W_base``, float64; named and numbered as the layer that changed.

    What rounding explains of it is told by `pyspectra.weights.rounding`.
    """

    pair: tuple[Layer, Layer] | None = field(default=None, repr=False, compare=False)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read both tensors and return their difference."""
        return self.load_with_change(allocate)[0]

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Those of both tensors."""
        assert self.pair is not None
        return (*self.pair[0].extents, *self.pair[1].extents)

    def load_with_change(self, allocate: Allocate | None = None) -> tuple[HostArray, Change | None]:
        """Read both tensors; return their difference, and what of it rounding explains."""
        assert self.pair is not None
        layer, base = self.pair
        after, before = arrays_to_compare(layer, base)
        N, M, _ = matrix_shape(self)
        # What is not finite is reported as the status of the difference.
        with np.errstate(all="ignore"):
            if lora_product(layer) is None or lora_product(base) is None:
                change = change_of(after, before, (layer.dtype, base.dtype), (N, M))
                after -= before
            else:
                change = _of_products(after, before, max(_spacing(layer), _spacing(base)), (N, M))
        return HostArray(after, "float64"), change


def _of_products(
    after: FloatArray, before: FloatArray, spacing: float, sides: tuple[int, int]
) -> Change:
    """Measure the difference of two LoRA products, which takes the place of the first.

    Their entries are sums of rounded numbers, so that the spacing is taken relative to the root
    mean square of them all.
    """
    N, M = sides
    square = float(np.vdot(before, before))
    after -= before
    variance = spacing**2 * square / before.size / 12.0
    relative = float(np.linalg.norm(after)) / math.sqrt(square) if square > 0.0 else math.inf
    return Change(
        relative, spacing / math.sqrt(12.0), variance * (math.sqrt(N) + math.sqrt(M)) ** 2,
        only_rounding=False,
    )  # fmt: skip


def _spacing(layer: Layer) -> float:
    """Spacing of the stored numbers, relative to a power of two."""
    product = lora_product(layer)
    return BY_NAME[layer.dtype].spacing if product is None else product.spacing


@dataclass(frozen=True)
class Deltas:
    """Layers of ``W - W_base``.

    Attributes
    ----------
    layers : tuple of Delta
        One for each layer that both models have.
    skipped : tuple of SkippedLayer
        What was skipped in the first, and layers that only one has, or in another shape.
    notes : tuple of Note
        What was done to names so that they agree.
    """

    layers: tuple[Delta, ...]
    skipped: tuple[SkippedLayer, ...]
    notes: tuple[Note, ...] = ()


def deltas(source: WeightSource, base: WeightSource) -> Deltas:
    """Subtract the layers of one model from those of another; see `pyspectra.weights.pairing`.

    Parameters
    ----------
    source, base : WeightSource
        The model and what it was trained from.

    Returns
    -------
    Deltas
    """
    pairing = pair_layers(source, base)
    found, skipped = [], []
    for layer, other in pairing.pairs:
        shape, other_shape = shapes_to_compare(layer, other)
        if shape == other_shape:
            found.append(_delta(layer, other))
        else:
            differs = Skip("shape_differs", {"shape": shape, "other": other_shape})
            skipped.append(layer.skipped(differs))
    skipped += [x.skipped(Skip("not_in_base")) for x in pairing.only_in_a]
    skipped += [x.skipped(Skip("only_in_base")) for x in pairing.only_in_b]
    paired = {layer.name for layer in found}
    # A tie that was made since: it is paired under the name that it had.
    kept = [s for s in source.skipped if s.same_as is None or s.name not in paired]
    return Deltas(tuple(found), (*kept, *skipped), pairing.notes)


def _delta(layer: Layer, base: Layer) -> Delta:
    known = {f.name: getattr(layer, f.name) for f in fields(Layer)}
    one, other = lora_product(layer), lora_product(base)
    shape = layer.shape if one is None or other is None else joint_shape(one, other)
    return Delta(**{**known, "dtype": "float64", "shape": shape}, pair=(layer, base))
