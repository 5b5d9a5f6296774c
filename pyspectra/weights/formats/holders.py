"""Which parts of a checkpoint hold arrays; each container is visited once, however deep."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final

from pyspectra._arrays import array_info
from pyspectra.errors import FormatError

__all__ = ["Holders"]

_MAX_CONTAINERS: Final = 1 << 22


class Holders:
    """The parts of a checkpoint that hold arrays, however deep; each container is visited once."""

    def __init__(self, mapping: Mapping[Any, Any]) -> None:
        # All of them are kept until this object goes, or their identities would say nothing.
        self._found: list[Any] = [mapping]
        owners: dict[int, list[int]] = {id(mapping): []}
        holding: list[int] = []
        mappings = {id(mapping)}
        for inside in self._found:  # which grows
            for value in inside.values() if isinstance(inside, Mapping) else inside:
                if isinstance(value, Mapping | list | tuple):
                    if id(value) not in owners:
                        owners[id(value)] = []
                        self._found.append(value)
                        if isinstance(value, Mapping):
                            mappings.add(id(value))
                    owners[id(value)].append(id(inside))
                elif array_info(value) is not None:
                    holding.append(id(inside))
            if len(self._found) > _MAX_CONTAINERS:
                raise FormatError("A checkpoint holds more containers than any model has.")
        self._by_name = _owners_too([one for one in holding if one in mappings], owners, mappings)
        self._at_all = _owners_too(holding, owners, owners)

    def by_name(self, value: object) -> bool:
        """Tell whether a value is a mapping from which names lead to an array."""
        return isinstance(value, Mapping) and id(value) in self._by_name

    def at_all(self, value: object) -> bool:
        """Tell whether a value is a mapping or a list with an array in it, in lists or not."""
        return isinstance(value, Mapping | list | tuple) and id(value) in self._at_all


def _owners_too(
    holding: list[int], owners: Mapping[int, list[int]], within: Container[int]
) -> set[int]:
    """Add what holds these containers, what holds those, and so on."""
    found = set(holding)
    waiting = list(found)
    for one in waiting:  # which grows
        new = {owner for owner in owners[one] if owner in within} - found
        found |= new
        waiting += new
    return found
