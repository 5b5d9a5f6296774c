"""What fine-tuning changed: the differences between the weights of two models, as layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np

from pyspectra._arrays import Allocate, HostArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.weights.layer import Layer
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.skip import Skip, SkippedLayer
from pyspectra.weights.source import WeightSource

__all__ = ["Delta", "Deltas", "deltas"]


@dataclass(frozen=True)
class Delta(Layer):
    """A layer of ``W - W_base``, float64; named and numbered as the layer that changed.

    The floor is the Marchenko-Pastur edge ``s^2 (sqrt(N) + sqrt(M))^2`` of a matrix of rounding
    errors: uniform over a spacing ``u`` of the coarser type, ``s^2 = u^2 mean(W_base^2) / 12``. It
    scales with the weights, as an absolute threshold does not.
    """

    pair: tuple[Layer, Layer] | None = field(default=None, repr=False, compare=False)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read both tensors and return their difference."""
        return self.load_with_floor(allocate)[0]

    def load_with_floor(self, allocate: Allocate | None = None) -> tuple[HostArray, float | None]:
        """Read both tensors; return their difference, and below what it is rounding alone."""
        assert self.pair is not None
        layer, base = self.pair
        N, M, _ = matrix_shape(layer)
        before = base.load().to_float64()
        after = layer.load().to_float64()
        # What is not finite is reported as the status of the difference.
        with np.errstate(all="ignore"):
            square = float(np.vdot(before, before)) / before.size
            after -= before
        spacing = max(BY_NAME[layer.dtype].spacing, BY_NAME[base.dtype].spacing)
        floor = spacing**2 * square / 12.0 * (math.sqrt(N) + math.sqrt(M)) ** 2
        return HostArray(after, "float64"), floor


@dataclass(frozen=True)
class Deltas:
    """Layers of ``W - W_base``.

    Attributes
    ----------
    layers : tuple of Delta
        One for each layer that both models have.
    skipped : tuple of SkippedLayer
        What was skipped in the first, and layers that only one has, or in another shape.
    """

    layers: tuple[Delta, ...]
    skipped: tuple[SkippedLayer, ...]


def deltas(source: WeightSource, base: WeightSource) -> Deltas:
    """Pair the layers of two models by name.

    Parameters
    ----------
    source, base : WeightSource
        The model and what it was trained from.

    Returns
    -------
    Deltas
    """
    ours, theirs = _by_name(source), _by_name(base)
    # A tie that both have is one weight. One that was made or undone in between is not.
    names = dict.fromkeys(x.name for s in (source, base) for x in s.layers)
    found, skipped = [], []
    for name in names:
        layer, other = ours.get(name), theirs.get(name)
        if layer is None:
            assert other is not None
            skipped.append(SkippedLayer(name, other.shape, Skip("only_in_base")))
        elif other is None:
            skipped.append(SkippedLayer(name, layer.shape, Skip("not_in_base")))
        elif other.shape != layer.shape:
            differs = Skip("shape_differs", {"shape": layer.shape, "other": other.shape})
            skipped.append(SkippedLayer(name, layer.shape, differs))
        else:
            found.append(_delta(layer, other))
    paired = {layer.name for layer in found}
    kept = [s for s in source.skipped if s.name not in paired]
    return Deltas(tuple(found), (*kept, *skipped))


def _by_name(source: WeightSource) -> dict[str, Layer]:
    """All layers by all names that they go by."""
    layers = {layer.name: layer for layer in source.layers}
    ties = {
        s.name: replace(layers[s.same_as], name=s.name)
        for s in source.skipped
        if s.same_as in layers
    }
    return layers | ties


def _delta(layer: Layer, base: Layer) -> Delta:
    known = {f.name: getattr(layer, f.name) for f in fields(Layer)}
    return Delta(**{**known, "dtype": "float64"}, pair=(layer, base))
