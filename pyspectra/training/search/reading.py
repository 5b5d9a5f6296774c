"""Files of configurations: TOML, YAML and JSON become plain mappings, text and numbers."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import check_path, shown
from pyspectra._support.text import did_you_mean, printable
from pyspectra.errors import ArgumentValueError, FormatError, MissingPathError, missing_dependency

__all__ = ["plain_mapping"]


def plain_mapping(function: str, path: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the name of a file for messages, and what it holds.

    Raises
    ------
    ArgumentValueError, MissingPathError
        If the path is no file, or its suffix none of those in `_READERS`.
    FormatError
        If the file cannot be read as what its suffix says, or holds no mapping.
    MissingDependencyError
        If the package that reads it is not installed.
    """
    file = check_path(function, "path", path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        suffixes = ", ".join(_READERS)
        hint = did_you_mean(file.suffix.lower(), _READERS)
        raise ArgumentValueError(
            function, "path", f"end with one of {suffixes}", shown(str(file)), hint
        )
    if not file.is_file():
        raise MissingPathError(function, "path", "be a file", shown(str(file)))
    name = printable(str(file))
    try:
        found = reader(file.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise FormatError(f"{name}: it is nested too deeply.") from error
    except ValueError as error:  # UnicodeDecodeError and the errors of all three readers
        raise FormatError(f"{name}: {printable(str(error))}.") from error
    if found is None:
        found = {}  # an empty YAML file
    if not isinstance(found, Mapping):
        raise FormatError(f"{name}: it must hold names with values, got {shown(found)}.")
    return name, dict(found)


def _read_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise missing_dependency(
                "tomli", "reading TOML before Python 3.11", extra="config"
            ) from error
    return tomllib.loads(text)


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _read_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise missing_dependency("pyyaml", "reading YAML", extra="config") from error

    class Loader(yaml.SafeLoader):
        """The safe loader, with scalars of YAML 1.2 and without doubled keys."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # as its base has it

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        line = key.start_mark.line + 1
                        raise ValueError(
                            f"the key {key.value!r} appears twice, again in line {line}"
                        )
                    seen.add((key.tag, key.value))
            return node

    for kind, pattern, first, make in _SCALARS:
        tag = f"tag:yaml.org,2002:{kind}"
        Loader.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), list(first) or [""])
        if make is not None:
            construct = functools.partial(_constructed, make)
            Loader.add_constructor(tag, construct)
    try:
        found = yaml.load(text, Loader)  # a subclass of the safe one
    except yaml.MarkedYAMLError as error:
        mark = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(mark + ", ".join(filter(None, (error.context, error.problem)))) from error
    except yaml.reader.ReaderError as error:
        raise ValueError(f"character {error.position}: {error.reason}") from error
    if _size(found, {}) > MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")
    return found


MOST_VALUES = 1_000_000


def _size(value: Any, known: dict[int, int]) -> int:
    """Return how many values a value is, each alias written out; one within itself is too deep."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(value)]


def _constructed(make: Callable[[str], Any], loader: Any, node: Any) -> Any:
    return make(loader.construct_scalar(node))


def _yaml_int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _yaml_float(text: str) -> float:
    return float(re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE))


# Scalars of YAML 1.2's core schema: tag, pattern, first characters, what makes the value. PyYAML's
# own are those of YAML 1.1, where 1e-4 is text, `no` is false, 010 is 8 and 1:30 is 90.
_SCALARS: tuple[tuple[str, str, str, Callable[[str], Any] | None], ...] = (
    ("null", "", "", None),
    ("null", r"~|null|Null|NULL", "~nN", None),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF", None),
    ("int", r"0o[0-7]+|0x[0-9a-fA-F]+|[-+]?[0-9]+", "-+0123456789", _yaml_int),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
     r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789", _yaml_float),
    ("merge", r"<<", "<", None),
)  # fmt: skip

_READERS: dict[str, Callable[[str], Any]] = {
    ".toml": _read_toml,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
}
