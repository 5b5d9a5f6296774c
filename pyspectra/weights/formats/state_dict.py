"""State dicts: mappings of names to tensors, bare or inside a checkpoint's wrapper."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from pyspectra._arrays import HostArray, array_info, as_host
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.layer import Held
from pyspectra.weights.skip import Skip, array_skip

__all__ = ["flat", "read"]

WRAPPERS: Final = (
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "module",
    "net",
    "network",
    "params",
    "weights",
)
"""Names under which training scripts keep the model in a checkpoint."""

_TRAINING_STATE = re.compile(
    r"optim|sched|scaler|rng|(?:^|_)ema(?:$|_)|hyper|config|callbacks|loops"
)
_MAX_DEPTH: Final = 8


def _has_arrays(mapping: Mapping[Any, Any]) -> bool:
    return any(array_info(value) is not None for value in mapping.values())


def _unwrap(mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Descend through wrappers until tensors show; what lies beside a wrapper is training state."""
    for _ in range(_MAX_DEPTH):
        if _has_arrays(mapping) and any(str(k).endswith(".weight") for k in mapping):
            break
        inner = next((mapping[w] for w in WRAPPERS if _is_inner(mapping.get(w))), None)
        if inner is None:
            break
        mapping = inner
    return mapping


def _is_inner(value: object, depth: int = _MAX_DEPTH) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    return _has_arrays(value) or any(_is_inner(v, depth - 1) for v in value.values())


def _flatten(mapping: Mapping[Any, Any], prefix: str, depth: int) -> dict[str, Any]:
    """Join nested names with dots: ``{"generator": {...}, "discriminator": {...}}``."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        is_state = _TRAINING_STATE.search(str(key).lower()) is not None
        if isinstance(value, Mapping) and depth > 0 and not is_state:
            flat.update(_flatten(value, f"{name}.", depth - 1))
        else:
            flat[name] = value
    return flat


def flat(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the values that `read` lists, by the names it gives them; nothing is copied."""
    return _flatten(_unwrap(mapping), "", _MAX_DEPTH)


def _load(held: dict[str, Any], key: str) -> HostArray:
    if key not in held:
        raise FormatError(f"layer {key!r} cannot be read: its source has been closed.")
    return as_host(held[key], function="Layer.load", argument=key)


def read(mapping: Mapping[Any, Any], *, format: str = "state_dict") -> Contents:
    """List the tensors of a state dict.

    Parameters
    ----------
    mapping : Mapping
        Names to torch or numpy arrays; wrappers such as ``{"state_dict": ...}`` are looked
        through, other nested mappings get dotted names.
    format : str
        What to call the source.

    Returns
    -------
    Contents
        Tensors in the order of the mapping, read at load time.
    """
    held = flat(mapping)
    entries = []
    for key, value in held.items():
        info = array_info(value)
        if info is None:
            no_tensor = Skip("not_a_tensor", {"type": type(value).__name__})
            entries.append(TensorEntry(key, None, "none", None, problem=no_tensor))
            continue
        load = Held(functools.partial(_load, held, key)) if info.problem is None else None
        problem = array_skip(info.problem)
        entries.append(
            TensorEntry(key, info.shape, info.dtype, load, identity=info.identity, problem=problem)
        )
    return Contents(format, entries, held.clear)
