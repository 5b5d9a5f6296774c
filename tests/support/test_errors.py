"""Errors carry what they say as fields."""

from __future__ import annotations

import errno
import pickle

import pytest

from pyspectra.errors import (
    ArgumentError,
    ArgumentTypeError,
    ArgumentValueError,
    MissingPathError,
    called_as,
)

KINDS = [
    (ArgumentTypeError, TypeError),
    (ArgumentValueError, ValueError),
    (MissingPathError, FileNotFoundError),
]


@pytest.mark.parametrize(("kind", "builtin"), KINDS)
def test_whoever_calls_for_another_renames_the_argument(
    kind: type[ArgumentError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin) as raised, called_as("outer", inner_name="outer_name"):
        raise kind("inner", "inner_name", "be 3", "4", "count again")
    assert str(raised.value) == "outer: 'outer_name' must be 3, got 4. Hint: count again."
    back = pickle.loads(pickle.dumps(raised.value))
    assert type(back) is kind
    assert str(back) == str(raised.value)


def test_arguments_that_are_not_renamed_keep_their_names() -> None:
    with pytest.raises(ValueError, match=r"^outer: 'x' must be 3, got 4\.$"), called_as("outer"):
        raise ArgumentValueError("inner", "x", "be 3", "4")


def test_a_missing_path_says_so_to_those_who_read_numbers() -> None:
    error = MissingPathError("f", "path", "exist", "'a'")
    assert error.errno == errno.ENOENT
    assert error.strerror == "No such file or directory"
    assert error.filename is None
