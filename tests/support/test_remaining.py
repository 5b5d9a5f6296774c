"""The time that work will still take, by a clock of our own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pyspectra._support.remaining import RemainingTime
from pyspectra._support.text import duration
from pyspectra.analysis.batches import gram_elements, split
from pyspectra.analysis.engine import PENDING_BYTES
from pyspectra.analysis.work import BYTES, GRAM, GUESSES, SOLVE, by_size, work_of, work_of_all
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights.layer import Layer

OPTIONS = AnalyzeOptions()


def layers_of(*shapes: tuple[int, int]) -> list[Layer]:
    return [
        Layer(f"l{i}", "linear", shape, "bfloat16", i, f"l{i}", lambda: None)  # type: ignore[arg-type, return-value]
        for i, shape in enumerate(shapes)
    ]


LLAMA_8B = [
    (128256, 4096),
    *[(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096)] * 32,
    *[(14336, 4096), (14336, 4096), (4096, 14336)] * 32,
    (128256, 4096),
]
GPT2_XL = [(50257, 1600), *[(4800, 1600), (1600, 1600), (6400, 1600), (1600, 6400)] * 48]
WIDE = [*[(2048, 256), (1024, 1024), (512, 4608)] * 60, (100_000, 512)]


@pytest.mark.parametrize("shapes", [LLAMA_8B, GPT2_XL, WIDE], ids=["llama", "gpt2", "wide"])
@pytest.mark.parametrize("disk", [3e8, 5e9])
@pytest.mark.parametrize("rates", [(85e9, 50e9), (10e9, 9e9), (900e9, 200e9)])
def test_after_a_tenth_of_the_time_the_rest_is_told_within_20_percent(
    shapes: list[tuple[int, int]], disk: float, rates: tuple[float, float]
) -> None:
    """Rates of Gram matrices and eigenvalues, which small matrices do not reach, with noise."""
    rng = np.random.default_rng(0)
    now = 0.0
    layers = layers_of(*shapes)
    work = RemainingTime(work_of_all(layers, OPTIONS), GUESSES, BYTES, lambda: now)
    told: list[tuple[float, float]] = []

    def took(seconds: float, kind: str, amount: float) -> None:
        nonlocal now
        now += seconds * rng.uniform(0.9, 1.1)
        work.spent({kind: amount})
        rest = work.seconds()
        if rest is not None:
            told.append((now, rest))

    solved = [layers[i] for i in by_size(layers, lambda x: gram_elements(x, OPTIONS))]
    for batch in split(solved, OPTIONS, PENDING_BYTES // 8):
        works = [work_of(layer, OPTIONS) for layer in batch]
        for own in works:
            took(own[BYTES] / disk, BYTES, own[BYTES])
            took(own[GRAM] / rates[0], GRAM, own[GRAM])
        seconds = sum(
            4 / 3 * min(x.shape) ** 3 / (rates[1] * min(x.shape) / (min(x.shape) + 150))
            for x in batch
        )
        took(seconds, SOLVE, sum(own[SOLVE] for own in works))
    later = [(at, rest) for at, rest in told if at >= 0.1 * now]
    assert len(later) > 10
    for at, rest in later:
        assert rest == pytest.approx(now - at, rel=0.2, abs=0.02 * now)
    assert work.share() == pytest.approx(1.0)
    assert later[-1][1] == pytest.approx(0.0, abs=1e-9 * now)


def test_nothing_is_told_before_anything_is_done() -> None:
    work = RemainingTime({"a": 10.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, clock=lambda: 0.0)
    assert work.seconds() is None
    assert work.share() == 0.0


def test_a_kind_that_is_still_to_come_goes_by_its_guess_on_this_machine() -> None:
    now = 0.0
    work = RemainingTime({"a": 2.0, "b": 3.0}, {"a": 1.0, "b": 10.0}, clock=lambda: now)
    now = 4.0
    work.spent({"a": 2.0})
    assert work.seconds() == 3.0 * 10.0 * 2.0
    now = 10.0
    work.spent({"b": 1.0})
    assert work.seconds() == 2.0 * 6.0


def test_a_slow_disk_makes_no_slow_cores() -> None:
    now = 0.0
    work = RemainingTime({"a": 2.0, "b": 4.0}, {"a": 1.0, "b": 1.0}, "a", lambda: now)
    now = 50.0
    work.spent({"a": 1.0})
    assert work.seconds() is None
    now = 51.0
    work.spent({"b": 1.0})
    assert work.seconds() == 50.0 + 3.0


def test_time_of_several_kinds_at_once_is_divided_as_guessed() -> None:
    now = 0.0
    work = RemainingTime({"a": 2.0, "b": 4.0}, {"a": 3.0, "b": 1.0}, clock=lambda: now)
    now = 8.0
    work.spent({"a": 1.0, "b": 1.0})
    assert work.seconds() == 6.0 + 3 * 2.0


def test_no_work_at_all_is_done() -> None:
    assert RemainingTime({}, {}, clock=lambda: 0.0).share() == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3725.0, "1:02:05")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_largest_come_first_and_equals_keep_their_order() -> None:
    layers = layers_of((9, 30), (40, 50), (30, 9), (50, 40))
    assert by_size(layers, lambda x: gram_elements(x, OPTIONS)) == [1, 3, 0, 2]


def test_work_is_counted_as_stored_and_as_solved() -> None:
    (layer,) = layers_of((30, 20))
    work: Any = work_of(layer, OPTIONS)
    assert work[BYTES] == 30 * 20 * 2
    assert work[GRAM] == 30 * 20**2
    assert math.isclose(work[SOLVE], 4 / 3 * 20**2 * (20 + 120))
