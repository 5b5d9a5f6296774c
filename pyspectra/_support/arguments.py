"""The one policy for what callers give: counts, seeds, numbers, choices, flags and paths.

Every number is taken from whatever library it comes: Python's, numpy's, or a scalar of a tensor
library. A wrong kind is an `ArgumentTypeError`, a value out of range an `ArgumentValueError`; both
name the public function and its argument. None is refused: whoever allows it asks first.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsFloat, SupportsIndex, TypeVar

from pyspectra._support.files import same_file
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError

__all__ = [
    "SEEDS",
    "as_integer",
    "as_number",
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "check_output",
    "check_path",
    "check_probability",
    "check_seed",
    "shown",
]

SEEDS = 2**64
"""Seeds are integers from 0 to below this number: the keys of the generator have 64 bits."""

_Choice = TypeVar("_Choice", str, "str | None")

# Names of numpy's and torch's element types that are no real numbers.
_NO_NUMBER = re.compile(r"bool|complex|time|object|[US]\d")


def _is_no_number(value: object) -> bool:
    if isinstance(value, bool | str | bytes):
        return True
    return _NO_NUMBER.search(str(getattr(value, "dtype", ""))) is not None


def as_integer(value: object) -> int | None:
    """Return `value` as an int if it is an integer of any library (no bool), else None."""
    if _is_no_number(value) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array of floats, or of several elements
        return None


def as_number(value: object) -> float | None:
    """Return `value` as a float if it is a real number (no bool, no text), else None.

    An integer beyond the range of float64 becomes infinite.
    """
    if _is_no_number(value) or not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf  # type: ignore[operator]
    except (TypeError, ValueError, RuntimeError):  # an array of several elements
        return None


def check_count(
    function: str, argument: str, value: object, *, least: int = 1, most: int | None = None
) -> int:
    """Return `value` as an int from `least` to `most`; an integer of any library, no bool.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not an integer, or out of range.
    """
    requirement = _count_words(least, most)
    count = as_integer(value)
    if count is None:
        raise ArgumentTypeError(function, argument, requirement, shown(value))
    if count < least or (most is not None and count > most):
        raise ArgumentValueError(function, argument, requirement, shown(value))
    return count


def _count_words(least: int, most: int | None) -> str:
    if most is not None:
        power = most.bit_length() - 1
        shown_most = f"2^{power}" if power > 32 and most == 1 << power else str(most)
        return f"be an integer from {least} to {shown_most}"
    return "be a positive integer" if least == 1 else f"be an integer of at least {least}"


def check_seed(function: str, argument: str, value: object) -> int:
    """Return `value` as an int in [0, 2^64): the range of the generator's keys.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not an integer, or out of range.
    """
    requirement = "be an integer in [0, 2^64)"
    seed = as_integer(value)
    if seed is None:
        raise ArgumentTypeError(function, argument, requirement, shown(value))
    if not 0 <= seed < SEEDS:
        raise ArgumentValueError(function, argument, requirement, shown(value))
    return seed


def check_number(
    function: str,
    argument: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """Return `value` as a finite float with ``above < value < below``, ``least <= value <= most``.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not a real number, or out of range.
    """
    requirement = _number_words(above, least, most, below)
    number = as_number(value)
    if number is None:
        raise ArgumentTypeError(function, argument, requirement, shown(value))
    inside = above < number < below and least <= number <= most
    if not (math.isfinite(number) and inside):
        raise ArgumentValueError(function, argument, requirement, shown(value))
    return number


def _number_words(above: float, least: float, most: float, below: float) -> str:
    low, high = max(above, least), min(most, below)
    left, right = "(" if low == above else "[", ")" if high == below else "]"
    if math.isinf(low) and math.isinf(high):
        return "be a finite number"
    if math.isinf(high):
        if low == 0.0:
            return "be positive and finite" if left == "(" else "be finite and not negative"
        return f"be finite and {'above' if left == '(' else 'at least'} {low:g}"
    if math.isinf(low):
        return f"be finite and {'below' if right == ')' else 'at most'} {high:g}"
    return f"be in {left}{low:g}, {high:g}{right}"


def check_probability(function: str, argument: str, value: object) -> float:
    """Return `value` as a float in (0, 1].

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not a real number, or out of range.
    """
    return check_number(function, argument, value, above=0.0, most=1.0)


def check_choice(
    function: str, argument: str, value: object, choices: Sequence[_Choice]
) -> _Choice:
    """Return the one of `choices` that `value` is.

    Raises
    ------
    ArgumentValueError
        If it is none of them, with the one that was probably meant.
    """
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    words = [choice for choice in choices if isinstance(choice, str)]
    listed = f"be one of {', '.join(map(repr, choices))}"
    hint = did_you_mean(value, words)
    raise ArgumentValueError(function, argument, listed, shown(value), hint)


def check_flag(function: str, argument: str, value: object) -> bool:
    """Return `value` as a bool; numpy's is one too.

    Raises
    ------
    ArgumentTypeError
        If it is no truth value.
    """
    # By name, so that this module needs no numpy.
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return bool(value)
    raise ArgumentTypeError(function, argument, "be a bool", shown(value))


def check_path(function: str, argument: str, value: object) -> Path:
    """Return `value`, text or any path object, as a path with ``~`` replaced by the home folder.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no path, or an empty one, or holds a NUL.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        got = f"an object of type {type(value).__name__}"
        raise ArgumentTypeError(function, argument, "be a path", got)
    if not text:
        raise ArgumentValueError(function, argument, "not be empty", repr(text))
    if "\0" in text:
        raise ArgumentValueError(function, argument, "be a path", repr(text))
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # no such user
        raise ArgumentValueError(function, argument, f"be a path ({error})", repr(text)) from error


def check_output(function: str, argument: str, value: object, read: Iterable[str | Path]) -> Path:
    """Return `value` as a path to write to: none of the files that were `read`, by any link.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no path, or one of those files.
    """
    target = check_path(function, argument, value)
    original = same_file(target, read)
    if original is not None:
        got = f"{str(target)!r}, which is the file {str(original)!r} of the model"
        raise ArgumentValueError(function, argument, "not be a file that was read", got)
    return target


def shown(value: object) -> str:
    """Return what a message shows of `value`: its `repr`, or its type where that is long."""
    try:
        text = repr(value)
    except Exception:  # a broken object raises anything, and the message must not fail
        text = ""
    if not text or len(text) > 120 or "\n" in text:
        return f"an object of type {type(value).__name__}"
    return text
