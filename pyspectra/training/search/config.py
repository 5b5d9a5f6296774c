"""Declarative configuration: dataclasses from files, each value checked by its annotation."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.search.conversion import FromCommandLine, is_record, made
from pyspectra.training.search.reading import plain_mapping

__all__ = ["from_mapping", "merged", "parsed", "read_config", "to_dict"]

T = TypeVar("T")


def read_config(path: str | Path, cls: type[T], overrides: Iterable[str] = ()) -> T:
    """Read a configuration from a file into a dataclass.

    Parameters
    ----------
    path : str or path
        A file of TOML, YAML or JSON, which its suffix says: ``.toml``, ``.yaml``, ``.yml``,
        ``.json``. Scalars of YAML are those of its version 1.2: ``1e-4`` is a number, ``no`` is
        text.
    cls : type
        A dataclass, frozen best; see `from_mapping`.
    overrides : iterable of str
        What takes the place of values of the file: ``"optimizer.lr=1e-3"``. Values are written as
        in JSON, text without quotes.

    Returns
    -------
    object of `cls`

    Raises
    ------
    ArgumentValueError
        If a value does not fit its annotation, a key is unknown, or one is missing: the message
        has the file and the key, ``'optimizer.lr'``.
    FormatError
        If the file cannot be read.
    MissingPathError
        If there is no such file.
    MissingDependencyError
        If the package that reads the file is not installed (extra ``config``).

    Examples
    --------
    >>> import dataclasses, pathlib, tempfile
    >>> from pyspectra.training import search
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     lr: float
    ...     hidden: tuple[int, ...] = (64,)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "run.json")
    ...     _ = file.write_text('{"lr": 1e-3}')
    ...     search.read_config(file, Config, ["hidden=[32, 16]"])
    Config(lr=0.001, hidden=(32, 16))
    """
    name, values = plain_mapping("read_config", path)
    return made(name, cls, merged(values, parsed(overrides)))


def from_mapping(cls: type[T], mapping: Mapping[str, Any], overrides: Iterable[str] = ()) -> T:
    """Make a dataclass of a mapping, each value checked by the annotation of its field.

    Parameters
    ----------
    cls : type
        A dataclass. Its fields are annotated with bool, int, float, str, Path, None, Any, Literal,
        enumerations, other dataclasses, and lists, tuples, mappings and unions of these.
    mapping : mapping
        Names of fields with values. Mappings within it become nested dataclasses.
    overrides : iterable of str
        As for `read_config`.

    Returns
    -------
    object of `cls`
        An integer does for a float; nothing else changes its type. NaN is no number. What the
        mapping does not say is the default; within a nested dataclass it comes from the object that
        is the default of that field.

    Raises
    ------
    ArgumentValueError
        If a value does not fit, a key is unknown, or one is missing.
    ArgumentTypeError
        If `cls` is no dataclass, or has annotations that are not supported.

    Examples
    --------
    >>> import dataclasses
    >>> from pyspectra.training import search
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     lr: float
    >>> search.from_mapping(Config, {"lr": 1})
    Config(lr=1.0)
    >>> search.from_mapping(Config, {"lr": "fast"})
    Traceback (most recent call last):
    pyspectra.errors.ArgumentValueError: from_mapping: 'lr' must be a number, got 'fast'.
    """
    values = merged(mapping, parsed(overrides)) if isinstance(mapping, Mapping) else mapping
    return made("from_mapping", cls, values)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON can hold it: `from_mapping` makes the same of it again.

    Parameters
    ----------
    config : dataclass

    Returns
    -------
    dict
        A path becomes text, a tuple a list, a member of an enumeration its value.

    Raises
    ------
    ArgumentTypeError
        If it is no dataclass.

    Examples
    --------
    >>> import dataclasses, json
    >>> from pyspectra.training import search
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     lr: float = 1e-3
    ...     hidden: tuple[int, ...] = (64,)
    >>> json.dumps(search.to_dict(Config()))
    '{"lr": 0.001, "hidden": [64]}'
    """
    if not is_record(config):
        raise ArgumentTypeError("to_dict", "config", "be a dataclass", shown(config))
    return {
        field.name: _plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.init
    }


def _plain(value: Any) -> Any:
    if is_record(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str | int | float) else value.name
    return str(value) if isinstance(value, Path) else value


# --- mappings and overrides ---------------------------------------------------------------------


def parsed(overrides: Iterable[str]) -> dict[str, FromCommandLine]:
    """Return ``key=value`` of a command line as keys with values."""
    if isinstance(overrides, str):
        raise ArgumentTypeError(
            "read_config", "overrides", "be a list of texts", shown(overrides),
            f"write [{overrides!r}]",
        )  # fmt: skip
    found = {}
    for text in overrides:
        key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals or not all(key.strip().split(".")):
            raise ArgumentValueError(
                "read_config", "overrides", "have the form 'optimizer.lr=1e-3'", shown(text)
            )
        found[key.strip()] = FromCommandLine(value.strip())
    return found


def merged(mapping: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with other values at keys like ``"optimizer.lr"``; `mapping` stays."""
    whole = dict(mapping)
    for key, value in values.items():
        *folders, last = key.split(".")
        inner = whole
        for folder in folders:
            below = inner.get(folder)
            below = to_dict(below) if is_record(below) else below
            # What is no mapping gives way.
            inner[folder] = dict(below) if isinstance(below, Mapping) else {}
            inner = inner[folder]
        inner[last] = value
    return whole
