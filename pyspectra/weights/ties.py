"""Names of tied weights: a tensor that a model holds more than once is listed once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from pyspectra.weights.skip import SkippedLayer

__all__ = ["Named", "other_names"]


class Named(Protocol):
    """What has the names of a layer: a layer of a source, or the row of a report."""

    @property
    def name(self) -> str:
        """The name by which it is listed."""

    @property
    def part_of(self) -> str | None:
        """Name of the layer that it is a part of, if it is one."""

    @property
    def layer_id(self) -> int:
        """Its number in the model."""


L = TypeVar("L", bound=Named)


def other_names(layers: Iterable[L], skipped: Iterable[SkippedLayer]) -> Iterator[tuple[str, L]]:
    """Yield the names of tied weights beside those that they are listed by.

    Parameters
    ----------
    layers : iterable of Layer or LayerReport
        What is listed, in order.
    skipped : iterable of SkippedLayer
        What is not listed, ties among it.

    Yields
    ------
    (str, Layer or LayerReport)
        A name, and the layer that holds its weight. The parts of a tied weight have as many names
        as their whole. A name may come twice, and may be that of a layer of its own.
    """
    listed: dict[str, list[L]] = {}
    for layer in layers:
        owner = layer.part_of or layer.name
        if layer.name.startswith(owner):  # a change may go by another name than its weight
            listed.setdefault(owner, []).append(layer)
    for tie in skipped:
        owner = tie.same_as or ""
        for layer in listed.get(owner, ()):
            yield tie.name + layer.name[len(owner) :], layer
