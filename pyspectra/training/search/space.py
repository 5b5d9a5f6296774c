"""What is searched: ranges and choices at the fields of a configuration."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from pyspectra._support.arguments import check_flag, check_number, shown
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.search.config import merged, parsed
from pyspectra.training.search.conversion import convert, field_types, made
from pyspectra.training.search.reading import plain_mapping

__all__ = ["Choice", "Range", "Searched", "Space", "as_space", "label_of", "read_space"]

EXACT = 2**53
"""Integers up to this are exact in float64."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes
    ----------
    low, high : float
        Finite.
    log : bool
        Whether equal ratios are equally likely, not equal differences; `low` is then positive.
    integer : bool
        Whether only whole numbers are meant.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a bound is no finite number, or they do not fit one another.

    Examples
    --------
    >>> from pyspectra.training.search import Range
    >>> Range(1e-4, 1e-2, log=True).at(0.5)
    0.001
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        low = check_number("Range", "low", self.low)
        high = check_number("Range", "high", self.high)
        check_flag("Range", "log", self.log)
        if high < low:
            raise ArgumentValueError("Range", "high", f"be at least 'low' ({low:g})", shown(high))
        if self.log and low <= 0:
            raise ArgumentValueError("Range", "low", "be positive if 'log' is true", shown(low))
        if check_flag("Range", "integer", self.integer):
            for name, bound in (("low", low), ("high", high)):
                if not bound.is_integer() or abs(bound) > EXACT:
                    requirement = "be a whole number if 'integer' is true"
                    raise ArgumentValueError("Range", name, requirement, shown(bound))

    def at(self, position: float) -> float:
        """Return the number at a position in [0, 1]: the ends of the range at 0 and 1."""
        low, high = self._ends()
        number = low * (1.0 - position) + high * position
        number = math.exp(number) if self.log else number
        if self.integer:
            # Each whole number has a share of its own, those at the ends too.
            return int(min(max(math.floor(number + 0.5), self.low), self.high))
        # Rounding: the ends are exact, and 0.001 is not 0.0009999999999999998.
        return min(max(float(f"{number:.12g}"), float(self.low)), float(self.high))

    def position(self, number: float) -> float:
        """Return where in [0, 1] a number stands, or outside if it is no number of the range."""
        low, high = self._ends()
        if self.log:
            number = math.log(number) if number > 0 else -math.inf
        if high == low:
            return 0.5
        return (number / 2 - low / 2) / (high / 2 - low / 2)  # halves: the difference may overflow

    def _ends(self) -> tuple[float, float]:
        half = 0.5 if self.integer else 0.0
        low, high = self.low - half, self.high + half
        return (math.log(low), math.log(high)) if self.log else (low, high)

    def grid(self, points: int) -> list[float]:
        """Return numbers at equal distances, the ends among them; of integers each once."""
        low, high = float(self.low), float(self.high)
        steps = [i / (points - 1) for i in range(points)] if points > 1 else [0.5]
        plain = Range(low, high, log=self.log)
        numbers = [plain.at(step) for step in steps]
        return list(dict.fromkeys(round(n) if self.integer else n for n in numbers))


@dataclass(frozen=True)
class Choice:
    """One of some values.

    Attributes
    ----------
    choices : tuple
        Texts, numbers, truth values, None, or lists of these: what JSON holds.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is none, two are equal, or JSON does not have one.

    Examples
    --------
    >>> from pyspectra.training.search import Choice
    >>> Choice(["relu", "gelu"]).at(0.7)
    'gelu'
    """

    choices: Sequence[Any]

    def __post_init__(self) -> None:
        if isinstance(self.choices, str | bytes) or not isinstance(self.choices, Sequence):
            raise ArgumentTypeError("Choice", "choices", "be a list", shown(self.choices))
        object.__setattr__(self, "choices", tuple(self.choices))
        if not self.choices:
            raise ArgumentValueError("Choice", "choices", "not be empty", "[]")
        seen = set()
        for value in self.choices:
            label = label_of("Choice", "choices", value)
            if label in seen:
                raise ArgumentValueError("Choice", "choices", "differ", f"{shown(value)} twice")
            seen.add(label)

    def at(self, position: float) -> Any:
        """Return the value at a position in [0, 1]; each has an equal share."""
        return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]

    def grid(self, points: int) -> list[Any]:
        """Return all values, however many `points` a range has."""
        return list(self.choices)


def label_of(function: str, argument: str, value: Any) -> str:
    """Return a value as JSON, by which values are told apart: 1, 1.0 and true are three.

    Raises
    ------
    ArgumentValueError
        If JSON does not have it: an object, NaN, infinity.
    """
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        requirement = "hold values that JSON has"
        raise ArgumentValueError(function, argument, requirement, shown(value)) from error


@dataclass(frozen=True)
class Space(Mapping[str, "Range | Choice"]):
    """Ranges and choices by key, and the configuration around them.

    Attributes
    ----------
    ranges : mapping of str to Range or Choice
        ``{"optimizer.lr": Range(1e-5, 1e-1, log=True)}``.
    cls : type, optional
        The dataclass whose fields are searched. Keys and values are checked against it, and ranges
        of fields that are integers hold integers.
    fixed : mapping
        Values of other fields, as in a file.
    source : str
        The file, which messages begin with.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a key is no field of `cls`, or a range or choice does not fit its field.

    Examples
    --------
    >>> import dataclasses
    >>> from pyspectra.training.search import Choice, Range, Space
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     lr: float
    ...     batch: int = 64
    >>> space = Space({"lr": Range(1e-4, 1e-1, log=True), "batch": Choice([32, 64])}, Config)
    >>> space.config({"lr": 0.01, "batch": 32})
    Config(lr=0.01, batch=32)
    """

    ranges: Mapping[str, Range | Choice]
    cls: type | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="Space", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.ranges, Mapping) or not self.ranges:
            requirement = "be a mapping of keys to ranges and choices, with one at least"
            raise ArgumentTypeError("Space", "ranges", requirement, shown(self.ranges))
        checked: dict[str, Range | Choice] = {}
        for key, one in self.ranges.items():
            if not isinstance(key, str) or not isinstance(one, Range | Choice):
                got = shown(one) if isinstance(key, str) else f"the key {shown(key)}"
                raise ArgumentTypeError("Space", str(key), "be a Range or a Choice", got)
            checked[key] = one if self.cls is None else _fitted(self.source, key, self.cls, one)
        object.__setattr__(self, "ranges", checked)

    def __getitem__(self, key: str) -> Range | Choice:
        return self.ranges[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def config(self, values: Mapping[str, Any]) -> Any:
        """Return the configuration that has these values at the searched keys.

        Parameters
        ----------
        values : mapping
            What `grid`, `random`, `refine` and `suggest` give.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If the space has no `cls`, or a value does not fit its field.
        """
        if self.cls is None:
            raise ArgumentValueError("Space.config", "cls", "be given to the space", "None")
        return made(self.source, self.cls, merged(self.fixed, values))

    def replaced(self, ranges: Mapping[str, Range | Choice]) -> Space:
        """Return the space with other ranges."""
        return dataclasses.replace(self, ranges=ranges)


Searched = Space | Mapping[str, Range | Choice]
"""What functions take for a space."""


def as_space(function: str, value: Any) -> Space:
    """Return a space, or a mapping of ranges and choices, as a space."""
    if isinstance(value, Space):
        return value
    if isinstance(value, Mapping):
        return Space(value)
    raise ArgumentTypeError(function, "space", "be a Space or a mapping", shown(value))


def read_space(path: str | Path, cls: type, overrides: Iterable[str] = ()) -> Space:
    """Read what is searched, and the configuration around it, from one file.

    Parameters
    ----------
    path : str or path
        A file as for `read_config`. Where a field would have its value there may be a range,
        ``lr = {low = 1e-5, high = 1e-1, log = true}``, or choices,
        ``activation = {choices = ["relu", "gelu"]}``.
    cls : type
        The dataclass.
    overrides : iterable of str
        As for `read_config`: a value in place of a range is not searched.

    Returns
    -------
    Space

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, FormatError, MissingPathError
        As `read_config`; and if nothing is searched.

    Examples
    --------
    >>> import dataclasses, pathlib, tempfile
    >>> from pyspectra.training import search
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     lr: float
    ...     batch: int = 64
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "search.json")
    ...     _ = file.write_text('{"lr": {"low": 1e-4, "high": 0.1, "log": true}, "batch": 32}')
    ...     space = search.read_space(file, Config)
    >>> space["lr"], space.config({"lr": 0.01})
    (Range(low=0.0001, high=0.1, log=True, integer=False), Config(lr=0.01, batch=32))
    """
    source, values = plain_mapping("read_space", path)
    ranges: dict[str, Range | Choice] = {}
    fixed = _split(source, "", cls, merged(values, parsed(overrides)), ranges)
    if not ranges:
        raise ArgumentValueError(
            source, "space", "hold a range or choices", "none",
            "write lr = {low = 1e-5, high = 1e-1, log = true}",
        )  # fmt: skip
    space = Space(ranges, cls, fixed, source)
    # What is wrong beside the ranges is told before the first trial, not in it.
    space.config({key: one.at(0.0) for key, one in space.items()})
    return space


def _split(
    source: str, key: str, cls: type, values: Mapping[str, Any], ranges: dict[str, Range | Choice]
) -> dict[str, Any]:
    """Return the values without the ranges, which are put into `ranges`."""
    annotations = field_types(cls)
    fixed = {}
    for name, value in values.items():
        below = f"{key}.{name}" if key else str(name)
        annotation = annotations.get(name)
        nested = _record_in(annotation)
        if not isinstance(value, Mapping) or name not in annotations or _holds_mappings(annotation):
            fixed[name] = value
        elif nested is not None:
            fixed[name] = _split(source, below, nested, value, ranges)
        else:
            ranges[below] = _range(source, below, value)
    return fixed


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _record_in(annotation: Any) -> type | None:
    found = (m for m in _members(annotation) if dataclasses.is_dataclass(m))
    return typing.cast("type | None", next(found, None))


def _holds_mappings(annotation: Any) -> bool:
    kinds = (dict, Mapping, Any)
    return any((typing.get_origin(m) or m) in kinds for m in _members(annotation))


def _range(source: str, key: str, value: Mapping[str, Any]) -> Range | Choice:
    kind: type[Range | Choice] = Choice if "choices" in value else Range
    return typing.cast("Range | Choice", convert(source, key, kind, value))


def _fitted(source: str, key: str, cls: type, one: Range | Choice) -> Range | Choice:
    """Return a range or choice as the field at `key` takes it."""
    annotation: Any = cls
    for name in key.split("."):
        record = _record_in(annotation)
        fields = {} if record is None else field_types(record)
        if name not in fields:
            hint = did_you_mean(name, fields) or f"fields are {', '.join(fields)}"
            requirement = f"be a field of {getattr(record or annotation, '__name__', annotation)}"
            raise ArgumentValueError(source, key, requirement, "an unknown key", hint)
        annotation = fields[name]
    if isinstance(one, Choice):
        for value in one.choices:
            convert(source, key, annotation, value)
        return one
    members = _members(annotation)
    if int in members and float not in members and not one.integer:
        whole = {**dataclasses.asdict(one), "integer": True}
        return typing.cast(Range, convert(source, key, Range, whole))
    for bound in (one.at(0.0), one.at(1.0)):
        convert(source, key, annotation, bound)
    return one
