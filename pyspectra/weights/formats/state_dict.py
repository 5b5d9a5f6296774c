"""State dicts: mappings of names to tensors, bare or inside a checkpoint's wrapper."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from pyspectra._arrays import HostArray, StoredArray, array_info, as_host, raw_array
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats import wrappers
from pyspectra.weights.formats.stored import stored_entry
from pyspectra.weights.kinds import layer_name
from pyspectra.weights.layer import Held
from pyspectra.weights.skip import Skip, SkippedLayer, array_skip

__all__ = ["flat", "read"]


def flat(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the values that `read` lists, by the names it gives them; nothing is copied."""
    items = wrappers.flat(wrappers.choose(mapping, None, "state dict").mapping)
    return {item.name: item.value for item in items if item.skip is None}


def _load(held: dict[str, Any], key: str) -> HostArray:
    if key not in held:
        raise FormatError(f"layer {key!r} cannot be read: its source has been closed.")
    return as_host(held[key], function="Layer.load", argument=key)


def _raw(held: dict[str, Any], key: str) -> npt.NDArray[Any]:
    if key not in held:
        raise FormatError(f"layer {key!r} cannot be read: its source has been closed.")
    return raw_array(held[key])


def read(
    mapping: Mapping[Any, Any],
    *,
    format: str = "state_dict",
    name: str = "state dict",
    key: str | None = None,
) -> Contents:
    """List the tensors of a state dict.

    Parameters
    ----------
    mapping : Mapping
        Names to arrays; wrappers such as ``{"state_dict": ...}`` are looked through, other nested
        mappings get dotted names.
    format : str
        What to call the source.
    name : str
        Name of the source, for messages.
    key : str, optional
        Which part of a checkpoint.

    Returns
    -------
    Contents
        Tensors in the order of the mapping, read at load time; then what lies beside the part
        that was chosen.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `key` names no part that holds tensors.
    FormatError
        If this is the state of an optimizer.
    """
    chosen = wrappers.choose(mapping, key, name)
    items = wrappers.flat(chosen.mapping, chosen.path, name)
    held = {item.name: item.value for item in items if item.skip is None}
    entries = [_entry(held, name, value) for name, value in held.items()]
    beside = [_skipped(item) for item in items if item.skip is not None]
    beside += [_skipped(item) for item in chosen.beside]
    return Contents(format, entries, held.clear, beside=tuple(beside))


def _skipped(item: wrappers.Item) -> SkippedLayer:
    info = array_info(item.value)
    skip = item.skip or _no_tensor(item.value)
    return SkippedLayer(layer_name(item.name), info.shape if info else None, skip)


def _no_tensor(value: Any) -> Skip:
    return Skip("not_a_tensor", {"type": wrappers.type_name(value)})


def _entry(held: dict[str, Any], key: str, value: Any) -> TensorEntry:
    if isinstance(value, StoredArray):
        return stored_entry(key, value)
    info = array_info(value)
    if info is None:
        return TensorEntry(key, None, "none", None, problem=_no_tensor(value))
    load = Held(functools.partial(_load, held, key)) if info.problem is None else None
    problem = array_skip(info.problem)
    return TensorEntry(
        key,
        info.shape,
        info.dtype,
        load,
        identity=info.identity,
        problem=problem,
        raw=Held(functools.partial(_raw, held, key)) if problem is None else None,
    )
