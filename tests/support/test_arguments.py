"""Numbers as callers give them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from pyspectra._support.arguments import as_integer, as_number


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3)])
def test_integers(value: Any) -> None:
    assert as_integer(value) == 3
    assert type(as_integer(value)) is int
    assert as_number(value) == 3.0


@pytest.mark.parametrize("value", [2.5, np.float16(2.5), np.array(2.5), torch.tensor(2.5)])
def test_numbers(value: Any) -> None:
    assert as_integer(value) is None
    assert as_number(value) == 2.5


@pytest.mark.parametrize(
    "value",
    [
        True, np.True_, np.array(True), torch.tensor(True), 1j, np.complex64(1), torch.tensor(1j),
        "3", b"3", np.array("3"), np.datetime64(1, "s"), np.array([1, 2]), torch.ones(2), None, [3],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_number(value: Any) -> None:
    assert as_integer(value) is None
    assert as_number(value) is None


def test_integers_beyond_floats() -> None:
    assert as_integer(-(10**400)) == -(10**400)
    assert as_number(10**400) == math.inf
    assert as_number(-(10**400)) == -math.inf
