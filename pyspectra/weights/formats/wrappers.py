"""Which part of a checkpoint is the model: training scripts wrap it, and keep other things beside.

No tensor is lost on the way: each is in the part that is chosen, or in what is listed beside it.
Checkpoints of files may be hostile, so that every walk here visits a mapping once, or counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyspectra._arrays import array_info
from pyspectra._support.cached import cached_property
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.weights.formats.holders import Holders
from pyspectra.weights.formats.pickle_values import Foreign, Global
from pyspectra.weights.skip import Skip

__all__ = [
    "Chosen",
    "Item",
    "choose",
    "flat",
    "has_arrays",
    "holds_arrays",
    "is_optimizer_state",
    "type_name",
    "unwrapped",
]

WRAPPERS: Final = (
    "state_dict", "model_state_dict", "model", "model_state", "module", "net",
    "network", "params", "weights",
)  # fmt: skip
"""Names under which training scripts keep the model in a checkpoint."""

_TRAINING_STATE = re.compile(
    r"optim(?!ized)|opt_state|sched|scaler|rng|hyper|config|callbacks|loops"
)
# Beside a model its moving average is state; it is a model for whoever asks for it.
_AVERAGE = re.compile(r"(?:^|_)ema(?:$|_)")
_MAX_DEPTH: Final = 64
_MAX_CHARACTERS: Final = 1 << 26
# Names under mappings that have been visited before. Files of a few bytes make any number of them:
# a mapping that holds another a dozen times, which holds another a dozen times, and so on.
_MAX_REPEATED: Final = 1 << 14
_MAX_CHOICES: Final = 20


@dataclass(frozen=True)
class Item:
    """One entry of a checkpoint.

    Attributes
    ----------
    name : str
        Its dotted name.
    value : object
        The entry.
    skip : Skip or None
        Why it is no part of the model, where its place tells.
    """

    name: str
    value: Any
    skip: Skip | None = None


@dataclass(frozen=True)
class Chosen:
    """The part of a checkpoint that is analysed.

    Attributes
    ----------
    mapping : Mapping
        The state dict.
    path : str
        Its own dotted name, with a dot at the end; empty for the whole.
    beside : tuple of Item
        What was passed by and is worth a word: whatever holds tensors, and objects of classes that
        are not imported.
    """

    mapping: Mapping[Any, Any]
    path: str = ""
    beside: tuple[Item, ...] = ()


def has_arrays(mapping: Mapping[Any, Any]) -> bool:
    """Tell whether any value is an array."""
    return any(array_info(value) is not None for value in mapping.values())


def holds_arrays(value: object) -> bool:
    """Tell whether a mapping holds arrays, however deep; False for anything else."""
    return isinstance(value, Mapping) and Holders(value).by_name(value)


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
        Name of the checkpoint, for messages.

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
    chosen = Chosen(mapping) if key is None else Chosen(_part(mapping, key), f"{key}.")
    if not is_optimizer_state(chosen.mapping):
        chosen = _unwrap(chosen)
    if is_optimizer_state(chosen.mapping):
        raise FormatError(
            f"{name}: holds the state of an optimizer ('state' and 'param_groups'), not the "
            "weights of a model. Hint: pass the file of the model, which lies beside it."
        )
    return chosen


def unwrapped(mapping: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """Return the first mapping that holds arrays itself, in the mappings of the usual names.

    None if there is none. Each is visited once: a file may hold one that holds itself.
    """
    visited: set[int] = set()
    while not has_arrays(mapping):
        visited.add(id(mapping))
        inner = (mapping.get(name) for name in WRAPPERS)
        fits = (x for x in inner if isinstance(x, Mapping) and id(x) not in visited)
        wrapped = next(fits, None)
        if wrapped is None:
            return None
        mapping = wrapped
    return mapping


def _unwrap(whole: Chosen) -> Chosen:
    """Descend through wrappers until tensors show."""
    mapping, path = whole.mapping, whole.path
    holders = Holders(mapping)
    beside: list[Item] = []
    visited = {id(mapping)}
    while not (has_arrays(mapping) and any(str(k).endswith(".weight") for k in mapping)):
        held: dict[str, Any] = {w: mapping.get(w) for w in WRAPPERS}
        fits = (w for w, x in held.items() if holders.by_name(x) and id(x) not in visited)
        wrapper = next(fits, None) or _only_average(mapping, holders)
        if wrapper is None or id(mapping[wrapper]) in visited:
            break
        model = f"{path}{wrapper}"
        for key, value in mapping.items():
            item = None if key == wrapper else _beside(path, key, value, holders, visited, model)
            if item is not None:
                beside.append(item)
        mapping, path = mapping[wrapper], f"{model}."
        visited.add(id(mapping))
    return Chosen(mapping, path, tuple(beside))


def _only_average(mapping: Mapping[Any, Any], holders: Holders) -> str | None:
    """Return the name of a moving average that is all of a model that a checkpoint holds."""
    held = [k for k, x in mapping.items() if holders.by_name(x) and not _is_training(k, x)]
    only = held[0] if len(held) == 1 and not has_arrays(mapping) else None
    return only if isinstance(only, str) and _AVERAGE.search(only.lower()) else None


def _beside(
    path: str, key: object, value: Any, holders: Holders, visited: set[int], model: str
) -> Item | None:
    """List what lies beside the mapping of a wrapper, if it is worth a word."""
    name = f"{path}{_name_of(key)}"
    if array_info(value) is not None:
        return Item(name, value, Skip("beside_model", {"model": model}))
    if not holders.by_name(value):
        known = isinstance(value, Foreign) or holders.at_all(value)
        return Item(name, value) if known else None
    if id(value) in visited:
        return Item(name, value, Skip("cycle"))
    if _is_training(key, value):
        return Item(name, value, Skip("training_state"))
    return Item(name, value, Skip("other_weights", {"key": name}))


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
    if not rest and isinstance(value, Mapping) and value is not mapping and holds_arrays(value):
        return value
    if isinstance(value, Mapping) and rest:
        dot = f"{rest}."  # flat names, as in "model_ema.fc.weight"
        under = {str(n)[len(dot) :]: x for n, x in value.items() if str(n).startswith(dot)}
        if has_arrays(under):
            return under
    parts = list(_parts(mapping))
    if not parts:
        only = "be None for a checkpoint that holds one state dict and nothing beside it"
        raise ArgumentValueError("open_weights", "key", only, repr(key))
    listed = f"be one of {', '.join(map(repr, parts))}"
    hint = did_you_mean(key, parts)
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


def flat(mapping: Mapping[Any, Any], path: str = "", source: str = "state dict") -> list[Item]:
    """Join nested names with dots: ``{"generator": {...}, "discriminator": {...}}``.

    Parameters
    ----------
    mapping : Mapping
        The state dict.
    path : str
        Its own name in the checkpoint, with a dot at the end, for what is said of its parts.
    source : str
        The checkpoint, for messages.

    Returns
    -------
    list of Item
        Every value that is no mapping, and every mapping that is not looked into, with the
        reason. A name that occurs twice belongs to the first; the others say so.

    Raises
    ------
    FormatError
        If mappings that hold one another make more names than any model has.
    """
    walk = _Flat(mapping, path, source)
    walk.visit(mapping, "", {id(mapping)})
    return walk.items


class _Flat:
    """The walk of `flat`."""

    def __init__(self, mapping: Mapping[Any, Any], path: str, source: str) -> None:
        self.items: list[Item] = []
        self._mapping, self._path, self._source = mapping, path, source
        self._names: set[str] = set()
        self._visited: set[int] = set()
        self._characters = self._repeated = 0

    @cached_property
    def _holders(self) -> Holders:
        return Holders(self._mapping)

    def visit(self, inside: Mapping[Any, Any], prefix: str, above: set[int]) -> None:
        again = id(inside) in self._visited
        self._visited.add(id(inside))
        for key, value in inside.items():
            name = f"{prefix}{_name_of(key)}"
            self._characters += len(name)
            self._repeated += again
            if self._characters > _MAX_CHARACTERS or self._repeated > _MAX_REPEATED:
                raise FormatError(
                    f"{self._source}: refused: mappings that hold one another make more names than "
                    "any model has."
                )
            if not isinstance(value, Mapping):
                self._add(name, value)
            elif id(value) in above:
                self._add(name, value, Skip("cycle"))
            elif _is_training(key, value):
                self._pass_by(name, value, Skip("training_state"))
            elif _AVERAGE.search(str(key).lower()) is not None:
                self._pass_by(name, value, Skip("other_weights", {"key": f"{self._path}{name}"}))
            elif len(above) == _MAX_DEPTH:
                self._pass_by(name, value, Skip("too_deep", {"limit": _MAX_DEPTH}))
            else:
                self.visit(value, f"{name}.", above | {id(value)})

    def _pass_by(self, name: str, value: Mapping[Any, Any], skip: Skip) -> None:
        """List a mapping; without tensors in it, it is like any other value that is none."""
        self._add(name, value, skip if self._holders.by_name(value) else None)

    def _add(self, name: str, value: Any, skip: Skip | None = None) -> None:
        if name in self._names:
            skip = Skip("same_name")
        self._names.add(name)
        self.items.append(Item(name, value, skip))


def _name_of(key: object) -> str:
    if isinstance(key, str):
        return key
    return type_name(key) if isinstance(key, Foreign | Global) else str(key)
