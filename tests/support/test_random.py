"""The keys of random numbers: who shares them, and that they stay."""

from __future__ import annotations

import itertools

import pytest

from pyspectra._support.random import Purpose, random_key


def test_what_differs_in_anything_has_a_key_of_its_own() -> None:
    keys = [
        random_key(purpose, seed, name, *numbers)
        for purpose in Purpose
        for seed in (0, 1, 2**64 - 1)
        for name in ("", "a", "b", "a\x00", "\ud800", "0")
        for numbers in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (2**64 - 1,))
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


def test_numbers_of_different_purposes_are_independent() -> None:
    from pyspectra import ops

    n, keep = 100_000, 20_000
    masks = [ops.random_draws(random_key(p, 3, "w"), 1, 0, 0, n) < keep for p in Purpose]
    share = keep / 65536
    for a, b in itertools.combinations(masks, 2):
        both = (a & b).mean()
        assert abs(both - share**2) < 5 * (share**2 * (1 - share**2) / n) ** 0.5


@pytest.mark.parametrize(
    ("purpose", "key"),
    [
        (Purpose.STEP, 0xCF82190F52E2D8C3),
        (Purpose.SELECTION, 0xB5E09D6F97DD10D4),
        (Purpose.PERMUTATION, 0xF836D5664961EBA2),
        (Purpose.BOOTSTRAP, 0x76B7F84BBBB8EDC0),
    ],
)
def test_keys_stay_what_they_are(purpose: Purpose, key: int) -> None:
    """Whoever resumes a run with a later version must meet the same masks."""
    assert random_key(purpose, 7, "encoder.layer.0.weight", 3) == key


def test_nothing_is_remembered() -> None:
    """A cache would grow with every name that was ever seen."""
    assert not hasattr(random_key, "cache_info")
