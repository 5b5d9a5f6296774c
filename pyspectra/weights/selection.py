"""Which layers of a model: by id, by any of their names or its beginning, or by a pattern."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Mapping, Sequence

from pyspectra._support.arguments import as_integer
from pyspectra._support.text import counted, nearest
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.weights.names import unwrapped_name
from pyspectra.weights.skip import SkippedLayer
from pyspectra.weights.ties import L, Named, other_names

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


def chosen_layers(
    layers: Sequence[L],
    skipped: Sequence[SkippedLayer],
    selection: Selection,
    function: str,
) -> list[L]:
    """Return the selected layers, in order.

    Parameters
    ----------
    layers : sequence of Layer or LayerReport
        All that there are.
    skipped : sequence of SkippedLayer
        What is not among them: tied weights answer to their other names too.
    selection : int, str, sequence of these or None
        Ids; names, with a trailing ``.weight`` or without; the beginning of names, up to a dot;
        patterns, in which ``*`` and ``?`` stand for any text. None selects all.
    function : str
        The public function, for messages.

    Returns
    -------
    list of Layer or LayerReport

    Raises
    ------
    ArgumentValueError
        If no layer answers to an item of the selection.
    """
    items = checked(selection, function)
    if items is None:
        return list(layers)
    names = {layer.name: [layer.name] for layer in layers}
    for name, layer in other_names(layers, skipped):
        names[layer.name].append(name)
    for layer in layers:
        names[layer.name].append(unwrapped_name(layer.name)[0])
    unknown: list[int | str] = []
    found: set[str] = set()
    for item in items:
        answering = [layer.name for layer in layers if _answers(layer, names[layer.name], item)]
        found.update(answering)
        if not answering:
            unknown.append(item)
    if unknown:
        hint = _hint(layers, names, unknown)
        raise ArgumentValueError(function, "layers", "hold what the model has", repr(unknown), hint)
    return [layer for layer in layers if layer.name in found]


def _answers(layer: Named, names: Sequence[str], item: int | str) -> bool:
    if isinstance(item, str):
        return any(_matches(name, item) for name in names)
    return layer.layer_id == item


def _matches(name: str, pattern: str) -> bool:
    if pattern in (name, f"{name}.weight") or name.startswith(f"{pattern.rstrip('.')}."):
        return True
    # Names of parts hold brackets, which in a pattern may be just these.
    literal = pattern.replace("[", "[[]")
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, literal)


def _hint(
    layers: Sequence[Named], names: Mapping[str, Sequence[str]], unknown: Sequence[int | str]
) -> str:
    words = f"it has {counted(len(layers), 'layer')}"
    if layers:
        words += f", e.g. {layers[0].name!r} (id {layers[0].layer_id})"
    # Whole names, and what they begin with up to a dot.
    known = dict.fromkeys(
        prefix
        for name in itertools.chain.from_iterable(names.values())
        for prefix in itertools.accumulate(name.split("."), "{}.{}".format)
    )
    meant = [near for x in unknown if isinstance(x, str) and (near := nearest(x, known))]
    return f"{words}; did you mean {', '.join(map(repr, meant))}?" if meant else words
