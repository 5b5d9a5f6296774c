"""Plain values become what annotations want, or an error says which does not, and why."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import numpy as np

from pyspectra._support.arguments import shown
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentError, ArgumentTypeError, ArgumentValueError

__all__ = ["FromCommandLine", "convert", "field_types", "is_record", "made"]

T = TypeVar("T")


class FromCommandLine(str):
    """Text of a command line, which may stand for a number, a truth value, a list or null."""

    __slots__ = ()


def made(source: str, cls: type[T], values: Any) -> T:
    """Return `values` as `cls`; `source` is what messages begin with."""
    field_types(cls)
    try:
        return typing.cast(T, _dataclass(source, "", cls, values))
    except RecursionError as error:  # an alias of YAML may stand within what it names
        requirement = "not be nested without end"
        raise ArgumentValueError(source, "mapping", requirement, "a deep mapping") from error


def field_types(cls: type) -> dict[str, Any]:
    """Return the annotations of the fields that a dataclass is made from.

    Raises
    ------
    ArgumentTypeError
        If it is no dataclass, or an annotation names what cannot be found.
    """
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ArgumentTypeError("from_mapping", "cls", "be a dataclass", shown(cls))
    try:
        hints = typing.get_type_hints(cls)
    except NameError as error:
        raise ArgumentTypeError(
            "from_mapping", "cls", "have annotations that can be resolved", str(error),
            f"define what {cls.__name__} names at the top of its module",
        ) from error  # fmt: skip
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def convert(source: str, key: str, annotation: Any, value: Any) -> Any:
    """Return a plain value as an annotation wants it.

    Parameters
    ----------
    source : str
        File or function that a message begins with.
    key : str
        Where the value stands: ``"optimizer.lr"``; empty for the whole.
    annotation : type or special form
    value : object

    Raises
    ------
    ArgumentValueError
        If the value does not fit.
    ArgumentTypeError
        If the annotation is not supported.
    """
    if isinstance(value, np.generic):  # of a space that numpy made
        value = value.item()
    origin = typing.get_origin(annotation)
    if annotation in (Any, object):
        return _read(value)
    if origin is typing.Annotated:
        return convert(source, key, typing.get_args(annotation)[0], value)
    if dataclasses.is_dataclass(annotation):
        return _dataclass(source, key, typing.cast(type, annotation), value)
    if origin in (Union, types.UnionType):
        return _union(source, key, typing.get_args(annotation), value)
    if origin is Literal:
        return _one_of(source, key, typing.get_args(annotation), value)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _member(source, key, annotation, value)
    if (origin or annotation) in (list, tuple, Sequence):
        return _sequence(source, key, annotation, value)
    if (origin or annotation) in (dict, Mapping):
        return _mapping(source, key, typing.get_args(annotation) or (str, Any), value)
    if annotation in _SCALARS:
        return _scalar(source, key, annotation, value)
    raise ArgumentTypeError(
        source, key, "have an annotation that configurations support", shown(annotation)
    )


def _refused(
    source: str, key: str, requirement: str, value: Any, hint: str | None = None
) -> ArgumentValueError:
    got = shown(str(value)) if isinstance(value, FromCommandLine) else shown(value)
    return ArgumentValueError(source, key or "mapping", requirement, got, hint)


def _read(value: Any) -> Any:
    """Return what text of a command line stands for."""
    if not isinstance(value, FromCommandLine):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return str(value)


def _dataclass(source: str, key: str, cls: type, value: Any, base: Any = None) -> Any:
    """Make a dataclass; what the mapping does not say comes from `base`, or is the default."""
    value = _read(value)
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise _refused(source, key, f"hold the fields of {cls.__name__}", value)
    annotations = field_types(cls)
    for name in value:
        if name not in annotations:
            hint = did_you_mean(name, annotations)
            raise ArgumentValueError(
                source, _below(key, str(name)), f"be a field of {cls.__name__}",
                "an unknown key", hint or f"fields are {', '.join(annotations)}",
            )  # fmt: skip
    defaults = {name: getattr(base, name) for name in annotations if base is not None}
    defaults = defaults or _defaults(cls)
    missing = [_below(key, n) for n in annotations if n not in value and n not in defaults]
    if missing:
        more = " and ".join(map(repr, missing[1:]))
        hint = f"{more} must be given, too" if more else None
        raise ArgumentValueError(source, missing[0], "be given", "no value", hint)
    found = {n: defaults[n] for n in annotations if n not in value}
    for name, one in value.items():
        below, default = _below(key, name), defaults.get(name)
        if isinstance(one, Mapping) and is_record(default):
            found[name] = _dataclass(source, below, type(default), one, default)
        else:
            found[name] = convert(source, below, annotations[name], one)
    try:
        return cls(**found)
    except ArgumentError as error:  # it checks its fields as this package does
        error.function, error.argument = source, _below(key, error.argument)
        raise
    except (TypeError, ValueError) as error:  # its __post_init__ refuses
        requirement = f"be accepted by {cls.__name__}"
        raise _refused(source, key, requirement, value, str(error).rstrip(".")) from error


def is_record(value: Any) -> bool:
    """Tell whether a value is an object of a dataclass."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _defaults(cls: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _union(source: str, key: str, members: tuple[Any, ...], value: Any) -> Any:
    """Return the value as the first member has it that leaves its type alone, or that takes it."""
    taken, refusals = [], []
    for member in members:
        try:
            found = convert(source, key, member, value)
        except ArgumentValueError as error:
            refusals.append(error)
            continue
        if type(found) is type(_read(value)):
            return found
        taken.append(found)
    if taken:
        return taken[0]
    deepest = max(refusals, key=lambda error: len(error.argument))
    if deepest.argument not in (key, "mapping"):
        raise deepest  # of a nested value, which says more
    words = " or ".join(dict.fromkeys(error.requirement for error in refusals))
    hints = [error.hint for error in refusals if error.hint]
    raise _refused(source, key, words, value, hints[0] if hints else None)


def _one_of(source: str, key: str, choices: tuple[Any, ...], value: Any) -> Any:
    for given in (value, _read(value)):
        for choice in choices:
            plain = str(given) if isinstance(given, FromCommandLine) else given
            if type(choice) is type(plain) and choice == plain:
                return choice
    hint = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
    raise _refused(source, key, f"be one of {', '.join(map(repr, choices))}", value, hint)


def _member(source: str, key: str, kind: type[enum.Enum], value: Any) -> Any:
    if isinstance(value, kind):
        return value
    for member in kind:
        if any(type(member.value) is type(v) and member.value == v for v in _readings(value)):
            return member
    if isinstance(value, str) and str(value) in kind.__members__:
        return kind[str(value)]
    names = [m.value if isinstance(m.value, str | int | float) else m.name for m in kind]
    hint = did_you_mean(value, [name for name in names if isinstance(name, str)])
    raise _refused(source, key, f"be one of {', '.join(map(repr, names))}", value, hint)


def _readings(value: Any) -> tuple[Any, ...]:
    return (str(value), _read(value)) if isinstance(value, FromCommandLine) else (value,)


def _sequence(source: str, key: str, annotation: Any, value: Any) -> Any:
    kind = tuple if (typing.get_origin(annotation) or annotation) is tuple else list
    value = _read(value)
    if not isinstance(value, list | tuple):
        raise _refused(source, key, "be a list", value)
    args = typing.get_args(annotation)
    if kind is tuple and args and args[-1] is not Ellipsis:
        args = () if args == ((),) else args
        if len(value) != len(args):
            raise _refused(source, key, f"be a list of {len(args)} values", value)
        items = args
    else:
        items = (args[0] if args else Any,) * len(value)
    return kind(
        convert(source, f"{key}[{i}]", item, one)
        for i, (item, one) in enumerate(zip(items, value, strict=True))
    )


def _mapping(source: str, key: str, items: tuple[Any, ...], value: Any) -> Any:
    value = _read(value)
    if not isinstance(value, Mapping):
        raise _refused(source, key, "be a mapping", value)
    return {
        convert(source, f"{key} (a key)", items[0], name): convert(
            source, _below(key, str(name)), items[1], one
        )
        for name, one in value.items()
    }


def _scalar(source: str, key: str, annotation: Any, value: Any) -> Any:
    if annotation in (str, Path):
        if isinstance(value, str) or (annotation is Path and isinstance(value, Path)):
            return annotation(value)
        raise _refused(source, key, _SCALARS[annotation], value, _why_no_text(value))
    value = _read(value)
    plain = type(value)
    if annotation is float and plain in (int, float):
        number = _as_float(value)
        if number is None:
            raise _refused(source, key, "be a number that float64 can hold", value)
        return number
    if plain is annotation or (annotation is None and value is None):
        return value
    raise _refused(source, key, _SCALARS[annotation], value, _why_no_number(annotation, value))


def _as_float(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return None if math.isnan(number) else number


def _why_no_text(value: Any) -> str | None:
    return "quote it" if isinstance(value, bool | int | float) else None


def _why_no_number(annotation: Any, value: Any) -> str | None:
    """Return what to write instead of a value that is nearly right."""
    if annotation is int and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}" if abs(value) < 2**53 else None
    if annotation is bool and isinstance(value, str) and value.lower() in _OTHER_BOOLS:
        return f"write {str(_OTHER_BOOLS[value.lower()]).lower()}, without quotes"
    if annotation in (int, float) and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return None
        return "write it without quotes"
    return None


_OTHER_BOOLS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}

# Annotation -> what a value must be.
_SCALARS: dict[Any, str] = {
    bool: "be true or false",
    int: "be an integer",
    float: "be a number",
    str: "be text",
    Path: "be a path",
    None: "be null",
    type(None): "be null",
}
