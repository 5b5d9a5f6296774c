"""Which layers of a model: by id, by name or its beginning, or by a pattern."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable, Sequence

from pyspectra._support.arguments import as_integer
from pyspectra._support.text import counted, nearest
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
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
            raise ArgumentValueError(
                function, "layers", "not be empty", repr(selection), "None means all"
            )
    found: list[int | str] = []
    for item in items:
        name_or_id = item if isinstance(item, str) else as_integer(item)
        if name_or_id is None:
            raise _wrong(item, function)
        found.append(name_or_id)
    return tuple(found)


def _wrong(got: object, function: str) -> ArgumentTypeError:
    return ArgumentTypeError(function, "layers", "hold ids or names", repr(got))


def layer_filter(
    layers: Sequence[Layer], selection: Selection, function: str
) -> Callable[[Layer], bool]:
    """Return a test of whether a layer is selected.

    Parameters
    ----------
    layers : sequence of Layer
        All that there are.
    selection : int, str, sequence of these or None
        Ids; names, with a trailing ``.weight`` or without; the beginning of names, up to a dot;
        patterns, in which ``*`` and ``?`` stand for any text. None selects all.
    function : str
        The public function, for messages.

    Returns
    -------
    callable

    Raises
    ------
    ArgumentValueError
        If no layer answers to an item of the selection.
    """
    items = checked(selection, function)
    if items is None:
        return lambda layer: True
    ids = {s for s in items if not isinstance(s, str)}
    patterns = [s for s in items if isinstance(s, str)]
    unknown: list[int | str] = sorted(ids - {layer.layer_id for layer in layers})
    unknown += [p for p in patterns if not any(_matches(layer, p) for layer in layers)]
    if unknown:
        hint = _hint(layers, unknown)
        raise ArgumentValueError(function, "layers", "hold what the model has", repr(unknown), hint)
    return lambda layer: layer.layer_id in ids or any(_matches(layer, p) for p in patterns)


def _matches(layer: Layer, pattern: str) -> bool:
    name = layer.name
    if pattern in (name, f"{name}.weight") or name.startswith(f"{pattern.rstrip('.')}."):
        return True
    # Names of parts hold brackets, which in a pattern may be just these.
    literal = pattern.replace("[", "[[]")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, literal)


def _hint(layers: Sequence[Layer], unknown: Sequence[int | str]) -> str:
    words = f"it has {counted(len(layers), 'layer')}"
    if layers:
        words += f", e.g. {layers[0].name!r} (id {layers[0].layer_id})"
    # Whole names, and what they begin with up to a dot.
    known = dict.fromkeys(
        prefix
        for layer in layers
        for prefix in itertools.accumulate(layer.name.split("."), "{}.{}".format)
    )
    meant = [near for x in unknown if isinstance(x, str) and (near := nearest(x, known))]
    return f"{words}; did you mean {', '.join(map(repr, meant))}?" if meant else words


def chosen_layers(layers: Sequence[Layer], selection: Selection, function: str) -> list[Layer]:
    """Return the selected layers, in order."""
    return list(filter(layer_filter(layers, selection, function), layers))
