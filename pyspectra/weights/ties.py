"""Names of tied weights: a tensor that a model holds more than once is listed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyspectra.weights.layer import Layer
from pyspectra.weights.skip import SkippedLayer

__all__ = ["other_names"]


def other_names(
    layers: Iterable[Layer], skipped: Iterable[SkippedLayer]
) -> Iterator[tuple[str, Layer]]:
    """Yield the names of tied weights beside those that they are listed by.

    Parameters
    ----------
    layers : iterable of Layer
        What is listed, in order.
    skipped : iterable of SkippedLayer
        What is not listed, ties among it.

    Yields
    ------
    (str, Layer)
        A name, and the layer that holds its weight. The parts of a tied weight have as many names
        as their whole. A name may come twice, and may be that of a layer of its own.
    """
    listed: dict[str, list[Layer]] = {}
    for layer in layers:
        owner = layer.part_of or layer.name
        if layer.name.startswith(owner):  # a change may go by another name than its weight
            listed.setdefault(owner, []).append(layer)
    for tie in skipped:
        owner = tie.same_as or ""
        for layer in listed.get(owner, ()):
            yield tie.name + layer.name[len(owner) :], layer
