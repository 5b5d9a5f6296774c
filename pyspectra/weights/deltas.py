"""What fine-tuning changed: the differences between the weights of two models, as layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra._support.dtypes import BY_NAME
from pyspectra.weights.layer import Layer
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.skip import Skip, SkippedLayer
from pyspectra.weights.source import WeightSource

__all__ = ["Deltas", "deltas"]


@dataclass(frozen=True)
class Deltas:
    """Layers of ``W - W_base``.

    Attributes
    ----------
    layers : tuple of Layer
        One for each layer that both models have, named and numbered as in the first; float64.
    skipped : tuple of SkippedLayer
        What was skipped in the first, and layers that only one has, or in another shape.
    floors : dict of str to float
        Layer name -> eigenvalue below which rounding of the stored weights is all there is; filled
        when the layer is loaded.
    """

    layers: tuple[Layer, ...]
    skipped: tuple[SkippedLayer, ...]
    floors: dict[str, float]


def deltas(source: WeightSource, base: WeightSource) -> Deltas:
    """Pair the layers of two models by name.

    Parameters
    ----------
    source, base : WeightSource
        The model and what it was trained from.

    Returns
    -------
    Deltas

    Notes
    -----
    The floor is the Marchenko-Pastur edge ``s^2 (sqrt(N) + sqrt(M))^2`` of a matrix of rounding
    errors: uniform over a spacing ``u`` of the coarser type, ``s^2 = u^2 mean(W_base^2) / 12``. It
    scales with the weights, as an absolute threshold does not.
    """
    ours, theirs = _by_name(source), _by_name(base)
    # A tie that both have is one weight. One that was made or undone in between is not.
    names = dict.fromkeys(x.name for s in (source, base) for x in s.layers)
    found, skipped, floors = [], [], dict[str, float]()
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
            load = _difference(layer, other, floors)
            found.append(replace(layer, dtype="float64", _loader=load))
    paired = {layer.name for layer in found}
    kept = [s for s in source.skipped if s.name not in paired]
    return Deltas(tuple(found), (*kept, *skipped), floors)


def _by_name(source: WeightSource) -> dict[str, Layer]:
    """All layers by all names that they go by."""
    layers = {layer.name: layer for layer in source.layers}
    ties = {
        s.name: replace(layers[s.same_as], name=s.name)
        for s in source.skipped
        if s.same_as in layers
    }
    return layers | ties


def _difference(layer: Layer, base: Layer, floors: dict[str, float]) -> Callable[[], HostArray]:
    spacing = max(BY_NAME[layer.dtype].spacing, BY_NAME[base.dtype].spacing)

    def load() -> HostArray:
        N, M, _ = matrix_shape(layer)
        before = base.load().to_float64()
        after = layer.load().to_float64()
        # What is not finite is reported as the status of the difference.
        with np.errstate(all="ignore"):
            square = float(np.vdot(before, before)) / before.size
            after -= before
        floors[layer.name] = spacing**2 * square / 12.0 * (math.sqrt(N) + math.sqrt(M)) ** 2
        return HostArray(after, "float64")

    return load
