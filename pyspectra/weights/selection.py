"""Which layers of a model: by id, by name, or by a pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from pyspectra._support.arguments import as_integer
from pyspectra.weights import Layer

Selection = Sequence[int | str] | int | str | None


def checked(selection: Selection, function: str) -> tuple[int | str, ...] | None:
    """Return the selection as a tuple of ids and names, or None for all layers."""
    if selection is None:
        return None
    items: tuple[object, ...]
    if isinstance(selection, str) or as_integer(selection) is not None:
        items = (selection,)
    else:
        try:
            items = tuple(selection)  # type: ignore[arg-type]  # an iterator ends
        except TypeError:
            raise _wrong(selection, function) from None
        if isinstance(selection, bytes):
            raise _wrong(selection, function)
        if not items:
            raise ValueError(f"{function}: 'layers' must not be empty. Hint: None means all.")
    found: list[int | str] = []
    for item in items:
        name_or_id = item if isinstance(item, str) else as_integer(item)
        if name_or_id is None:
            raise _wrong(item, function)
        found.append(name_or_id)
    return tuple(found)


def _wrong(got: object, function: str) -> TypeError:
    return TypeError(f"{function}: 'layers' must hold ids or names, got {got!r}.")


def layer_filter(
    layers: Sequence[Layer], selection: Selection, function: str
) -> Callable[[Layer], bool]:
    """Return a test of whether a layer is selected; ValueError for what no layer answers to."""
    items = checked(selection, function)
    if items is None:
        return lambda layer: True
    ids = {s for s in items if not isinstance(s, str)}
    patterns = [s for s in items if isinstance(s, str)]

    def matches(layer: Layer, pattern: str) -> bool:
        # Also by the key in the file: `pattern` is then a name that ends in .weight.
        names = (layer.name, f"{layer.name}.weight")
        return pattern in names or fnmatch.fnmatchcase(layer.name, pattern)

    unknown: list[int | str] = sorted(ids - {layer.layer_id for layer in layers})
    unknown += [p for p in patterns if not any(matches(layer, p) for layer in layers)]
    if unknown:
        example = f", e.g. {layers[0].name!r} (id {layers[0].layer_id})" if layers else ""
        raise ValueError(
            f"{function}: 'layers' names what the model has not: {unknown}. "
            f"Hint: it has {len(layers)} layers{example}."
        )
    return lambda layer: layer.layer_id in ids or any(matches(layer, p) for p in patterns)


def chosen_layers(layers: Sequence[Layer], selection: Selection, function: str) -> list[Layer]:
    """Return the selected layers, in order."""
    return list(filter(layer_filter(layers, selection, function), layers))
