"""Each test lets one planted fault happen: run.py sees to it that the sanitizer reports it.

pytest does not collect this file by itself. A test of it ends the process, if all is well.
"""

from __future__ import annotations

import _planted
import numpy as np


def test_heap_buffer_overflow() -> None:
    _planted.read_beyond(10)


def test_heap_buffer_overflow_of_numpy() -> None:
    _planted.read_beyond_array(np.zeros(1000))


def test_heap_use_after_free() -> None:
    _planted.read_freed(10)


def test_signed_integer_overflow() -> None:
    _planted.overflow(1)


def test_null_pointer_passed() -> None:
    _planted.copy_nothing_from_null(0)


def test_cast() -> None:
    _planted.cast(float("nan"))


def test_misaligned_address() -> None:
    _planted.read_misaligned(1)


def test_invalid_bool() -> None:
    _planted.load_bool(77)


def test_data_race() -> None:
    _planted.race(100_000)
