"""Which part of a checkpoint is the model: training scripts wrap it, and keep other things beside.

Checkpoints of files may be hostile, so that every walk here visits a mapping once, or counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyspectra._arrays import array_info
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.weights.formats.pickle_values import Foreign, Global

__all__ = ["Chosen", "choose", "flat", "has_arrays", "is_optimizer_state", "type_name"]

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

_TRAINING_STATE = re.compile(r"optim|sched|scaler|rng|hyper|config|callbacks|loops")
# Beside a model its moving average is state; it is a model for whoever asks for it.
_AVERAGE = re.compile(r"(?:^|_)ema(?:$|_)")
_MAX_DEPTH: Final = 8
_MAX_CHARACTERS: Final = 1 << 26
_MAX_CHOICES: Final = 20


@dataclass(frozen=True)
class Chosen:
    """The part of a checkpoint that is analysed.

    Attributes
    ----------
    mapping : Mapping
        The state dict.
    beside : tuple of (str, object)
        What was passed by and is worth a word, by its dotted name: other models (mappings), and
        objects of classes that are not imported.
    """

    mapping: Mapping[Any, Any]
    beside: tuple[tuple[str, Any], ...] = ()


def has_arrays(mapping: Mapping[Any, Any]) -> bool:
    """Tell whether any value is an array."""
    return any(array_info(value) is not None for value in mapping.values())


def is_optimizer_state(value: object) -> bool:
    """Tell whether this is what ``optimizer.state_dict()`` returns."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("param_groups"), list | tuple)
        and isinstance(value.get("state"), Mapping)
    )


def type_name(value: object) -> str:
    """Name the class of an object, also of one that a pickle names and nobody imports."""
    if isinstance(value, Foreign):
        return value.name
    return value.path if isinstance(value, Global) else type(value).__name__


def choose(mapping: Mapping[Any, Any], key: str | None, name: str) -> Chosen:
    """Find the model in a checkpoint.

    Parameters
    ----------
    mapping : Mapping
        The checkpoint.
    key : str or None
        Dotted path to the part that is wanted; None for the one that goes by a usual name.
    name : str
        Of the checkpoint, for messages.

    Returns
    -------
    Chosen

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `key` is no text, or names no part that holds tensors.
    FormatError
        If the part is the state of an optimizer.
    """
    chosen = Chosen(mapping if key is None else _part(mapping, key))
    if not is_optimizer_state(chosen.mapping):
        chosen = _unwrap(chosen.mapping)
    if is_optimizer_state(chosen.mapping):
        raise FormatError(
            f"{name}: holds the state of an optimizer ('state' and 'param_groups'), not the "
            "weights of a model. Hint: pass the file of the model, which lies beside it."
        )
    return chosen


def _unwrap(mapping: Mapping[Any, Any]) -> Chosen:
    """Descend through wrappers until tensors show."""
    beside: list[tuple[str, Any]] = []
    prefix = ""
    for _ in range(_MAX_DEPTH):
        if has_arrays(mapping) and any(str(k).endswith(".weight") for k in mapping):
            break
        wrapper = next((w for w in WRAPPERS if _holds_arrays(mapping.get(w))), None)
        if wrapper is None:
            break
        beside.extend(
            (f"{prefix}{other}", value)
            for other, value in mapping.items()
            if other != wrapper and (isinstance(value, Foreign) or _is_model(other, value))
        )
        mapping, prefix = mapping[wrapper], f"{prefix}{wrapper}."
    return Chosen(mapping, tuple(beside))


def _holds_arrays(value: object) -> bool:
    """Tell whether a mapping holds arrays, however deep; False for anything else."""
    waiting = [value] if isinstance(value, Mapping) else []
    seen = set(map(id, waiting))
    while waiting:
        mapping = waiting.pop()
        if has_arrays(mapping):
            return True
        inner = [v for v in mapping.values() if isinstance(v, Mapping) and id(v) not in seen]
        seen.update(map(id, inner))
        waiting.extend(inner)
    return False


def _is_model(name: object, value: object) -> bool:
    return not _is_training(name, value) and _holds_arrays(value)


def _is_training(name: object, value: object) -> bool:
    return _TRAINING_STATE.search(str(name).lower()) is not None or is_optimizer_state(value)


def _part(mapping: Mapping[Any, Any], key: object) -> Mapping[Any, Any]:
    if not isinstance(key, str):
        got = f"an object of type {type(key).__name__}"
        raise ArgumentTypeError("open_weights", "key", "be the name of a part", got)
    value: Any = mapping
    rest = key
    while rest and isinstance(value, Mapping):
        names = {str(k): k for k in value}
        # A name may hold dots itself: the longest that fits is meant.
        fits = [n for n in names if n and (rest == n or rest.startswith(f"{n}."))]
        if not fits:
            break
        longest = max(fits, key=len)
        value, rest = value[names[longest]], rest[len(longest) + 1 :]
    if not rest and isinstance(value, Mapping) and value is not mapping and _holds_arrays(value):
        return value
    parts = list(_parts(mapping))
    if not parts:
        only = "be None for a checkpoint that holds one state dict and nothing beside it"
        raise ArgumentValueError("open_weights", "key", only, repr(key))
    near = difflib.get_close_matches(key, parts, 1)
    hint = f"did you mean {near[0]!r}" if near else None
    listed = f"be one of {', '.join(map(repr, parts))}"
    raise ArgumentValueError("open_weights", "key", listed, repr(key)[:120], hint)


def _parts(mapping: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the dotted names of the first parts that hold tensors themselves."""
    waiting = [("", mapping)]
    seen = {id(mapping)}
    count = 0
    for prefix, inside in waiting:  # which grows
        for name, value in inside.items():
            if not isinstance(value, Mapping) or id(value) in seen or _is_training(name, value):
                continue
            seen.add(id(value))
            waiting.append((f"{prefix}{name}."[: 1 << 12], value))
            if has_arrays(value):
                yield f"{prefix}{name}"
                count += 1
                if count == _MAX_CHOICES:
                    return


def flat(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Join nested names with dots: ``{"generator": {...}, "discriminator": {...}}``.

    Raises
    ------
    FormatError
        If mappings that hold one another make more names than any model has.
    """
    result: dict[str, Any] = {}
    characters = 0

    def visit(inside: Mapping[Any, Any], prefix: str, depth: int) -> None:
        nonlocal characters
        for key, value in inside.items():
            name = f"{prefix}{key if isinstance(key, str) else _name_of(key)}"
            characters += len(name) + 64
            if characters > _MAX_CHARACTERS:
                raise FormatError("a checkpoint with more names than any model has")
            is_state = _is_training(key, value) or _AVERAGE.search(str(key).lower()) is not None
            if depth > 0 and isinstance(value, Mapping) and not is_state:
                visit(value, f"{name}.", depth - 1)
            else:
                result[name] = value

    visit(mapping, "", _MAX_DEPTH)
    return result


def _name_of(key: object) -> str:
    return type_name(key) if isinstance(key, Foreign | Global) else str(key)
