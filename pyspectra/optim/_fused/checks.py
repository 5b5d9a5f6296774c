"""Checks of the options of the optimizers: function, argument and value in, plain types out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyspectra._support.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_number,
)
from pyspectra.errors import ArgumentTypeError, ArgumentValueError

Check = Callable[[str, str, Any], Any]
"""Takes function, argument and value; returns the value in plain types, or raises."""


def not_negative(function: str, argument: str, value: Any) -> float:
    """Return a finite number of at least 0."""
    return check_number(function, argument, value, least=0.0)


def learning_rate(function: str, argument: str, value: Any) -> Any:
    """Return a rate of at least 0, or the tensor that holds it."""
    number = not_negative(function, argument, value)
    return value if isinstance(value, Tensor) else number  # a captured graph reads the tensor


def pair_of_decays(function: str, argument: str, value: Any) -> tuple[float, float]:
    """Return two decays in [0, 1)."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ArgumentTypeError(function, argument, "be a pair of numbers", repr(value))
    first, second = (check_number(function, argument, x, least=0.0, below=1.0) for x in value)
    return first, second


def number(function: str, argument: str, value: Any) -> float:
    """Return a finite number."""
    return check_number(function, argument, value)


def reserve_p(function: str, argument: str, value: Any) -> float:
    """Return a probability that does not quantise to 0."""
    # At 2^-17 and below the quantised probability would be zero, and 1/p infinite.
    number = check_number(function, argument, value)
    if not 2.0**-17 < number <= 1.0:
        raise ArgumentValueError(function, argument, "be in (2^-17, 1]", repr(value))
    return number


def or_none(check: Check) -> Check:
    """Let a check pass None."""
    return lambda function, argument, value: (
        None if value is None else check(function, argument, value)
    )


def share(function: str, argument: str, value: Any) -> float:
    """Return a number in [0, 1]."""
    return check_number(function, argument, value, least=0.0, most=1.0)


def positive(function: str, argument: str, value: Any) -> float:
    """Return a finite number above 0."""
    return check_number(function, argument, value, above=0.0)


def count(function: str, argument: str, value: Any) -> int:
    """Return a positive integer that the kernel can count to."""
    return check_count(function, argument, value, most=2**32 - 1)


def one_of(*choices: str | None) -> Check:
    """Let pass what is one of `choices`."""
    return lambda function, argument, value: check_choice(function, argument, value, choices)


def refused(hint: str) -> Check:
    """Take a flag of torch's optimizers that no kernel obeys: it may be there, but not be set."""

    def check(function: str, argument: str, value: Any) -> bool:
        if check_flag(function, argument, value):
            raise ArgumentValueError(function, argument, "be False", f"{argument}=True", hint)
        return False

    return check
