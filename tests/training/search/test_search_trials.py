"""Spaces, what is tried of them, and what is remembered of it."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pyspectra as ps
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training import search
from pyspectra.training.search import Choice, Range, Space, Trial, Trials


@dataclass(frozen=True)
class Window:
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    lr: float
    warmup: int = 0
    window: Window = Window()


@dataclass(frozen=True)
class Config:
    optimizer: Optimizer
    act: str = "relu"
    hidden: tuple[int, ...] = (64,)
    dropout: float | None = None
    table: dict[str, float] = field(default_factory=dict)


TOML = """
act = {choices = ["relu", "gelu"]}
hidden = {choices = [[64], [32, 32]]}
dropout = {low = 0, high = 0.5}
table = {low = 3, high = 4}
[optimizer]
lr = {low = 1e-5, high = 1e-1, log = true}
warmup = {low = 0, high = 10}
window = {low = 0.5}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(TOML)
    return path


# --- spaces -------------------------------------------------------------------------------------


def test_a_file_says_what_is_searched_and_what_is_not(file):
    space = search.read_space(file, Config)
    assert dict(space) == {
        "act": Choice(["relu", "gelu"]),
        "hidden": Choice([[64], [32, 32]]),
        "dropout": Range(0.0, 0.5),
        "optimizer.lr": Range(1e-5, 1e-1, log=True),
        "optimizer.warmup": Range(0.0, 10.0, integer=True),  # as its field is
    }
    values = {"act": "gelu", "hidden": [32, 32], "dropout": 0.1, "optimizer.lr": 0.01,
              "optimizer.warmup": 4}  # fmt: skip
    # A class with fields of these names is no range, nor is a table.
    wanted = Config(Optimizer(0.01, 4, Window(0.5)), "gelu", (32, 32), 0.1, {"low": 3, "high": 4})
    assert space.config(values) == wanted
    assert pickle.loads(pickle.dumps(space)) == space  # workers get it


def test_a_value_of_the_command_line_is_not_searched(file):
    space = search.read_space(file, Config, ["optimizer.lr=1e-3", "act=tanh"])
    assert set(space) == {"hidden", "dropout", "optimizer.warmup"}
    config = space.config({"hidden": [8], "dropout": 0.0, "optimizer.warmup": 1})
    assert (config.act, config.optimizer.lr) == ("tanh", 1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = {low = 1e-3, hihg = 1}", "'optimizer.lr.hihg' must be a field of Range, got an "
         "unknown key. Hint: did you mean 'high'?"),
        ("lr = {low = 1e-3}", "'optimizer.lr.high' must be given, got no value."),
        ("lr = {low = 1, high = 0.1}", "'optimizer.lr.high' must be at least 'low' (1), got 0.1."),
        ("lr = {low = 0, high = 1, log = true}",
         "'optimizer.lr.low' must be positive if 'log' is true, got 0.0."),
        ("lr = {low = -inf, high = 1}", "'optimizer.lr.low' must be a finite number, got -inf."),
        ("lr = {low = nan, high = 1}",
         "'optimizer.lr.low' must be a number that float64 can hold, got nan."),
        ("lr = {choices = []}", "'optimizer.lr.choices' must not be empty, got []."),
        ("lr = {choices = [1e-3, 'x']}", "'optimizer.lr' must be a number, got 'x'."),
        ("lr = {choices = [1, 1]}", "'optimizer.lr.choices' must differ, got 1 twice."),
        ("lr = {choices = 3}", "'optimizer.lr.choices' must be a list, got 3."),
        ("warmup = {low = 0.5, high = 1}\nlr = 1",
         "'optimizer.warmup.low' must be a whole number if 'integer' is true, got 0.5."),
        ("warmup = {low = 0, high = 1}", "'optimizer.lr' must be given, got no value."),
        ("lr = {low = 0, high = 1}\n[optimzer]\n", "'optimzer' must be a field of Config, got an "
         "unknown key. Hint: did you mean 'optimizer'?"),
        ("lr = 1", "'space' must hold a range or choices, got none. "
         "Hint: write lr = {low = 1e-5, high = 1e-1, log = true}."),
    ],
)  # fmt: skip
def test_files_that_are_no_space(tmp_path, text, message):
    path = tmp_path / "search.toml"
    path.write_text("[optimizer]\n" + text)
    with pytest.raises(ArgumentValueError) as caught:
        search.read_space(path, Config)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("ranges", "error", "message"),
    [
        ({"act": Range(0, 1)}, ArgumentValueError, "'act' must be text, got 0.0"),
        ({"optimizer.warmpu": Range(0, 1)}, ArgumentValueError, "did you mean 'warmup'"),
        ({"act.x": Range(0, 1)}, ArgumentValueError, "must be a field of str"),
        ({"act": ["relu"]}, ArgumentTypeError, "'act' must be a Range or a Choice"),
        ({3: Range(0, 1)}, ArgumentTypeError, "got the key 3"),
        ({}, ArgumentTypeError, "with one at least"),
    ],
)
def test_ranges_must_fit_the_class(ranges, error, message):
    with pytest.raises(error, match=message):
        Space(ranges, Config)


def test_records_check_themselves():
    for make, message in [
        (lambda: Range(0, math.inf), "'high' must be a finite number"),
        (lambda: Range("a", 1), "'low' must be a finite number, got 'a'"),
        (lambda: Range(0, 1, log=1), "'log' must be a bool"),
        (lambda: Range(0, 2.0**54, integer=True), "whole number"),
        (lambda: Choice("relu"), "'choices' must be a list"),
        (lambda: Choice([math.nan]), "hold values that JSON has"),
        (lambda: Choice([object()]), "hold values that JSON has"),
        (lambda: Space({"a": Range(0, 1)}).config({"a": 1}), "'cls' must be given to the space"),
        (lambda: search.grid([Range(0, 1)]), "'space' must be a Space or a mapping"),
    ]:
        with pytest.raises((ArgumentTypeError, ArgumentValueError), match=message):
            make()
    assert len(Choice([1, 1.0, True]).choices) == 3


BOUNDS = st.floats(1e-300, 1e300)


@settings(max_examples=60, deadline=None)
@given(BOUNDS, BOUNDS, st.booleans(), st.floats(0, 1))
def test_positions_and_numbers_of_a_range(a, b, log, u):
    low, high = sorted((a, b))
    one = Range(low, high, log=log)
    assert (one.at(0.0), one.at(1.0)) == (pytest.approx(low), pytest.approx(high))
    assert low <= one.at(u) <= high
    if high > 1.001 * low:
        assert one.position(one.at(u)) == pytest.approx(u, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.booleans())
def test_every_integer_of_a_range_can_be_drawn(low, length, log):
    one = Range(low, low + length, log=log, integer=True)
    drawn = {one.at(u) for u in np.linspace(0, 1, 1000)}
    assert drawn == set(range(low, low + length + 1))
    assert all(type(n) is int for n in drawn)


def test_overflowing_ranges():
    one = Range(-1.7e308, 1.7e308)
    assert (one.at(0.5), one.position(0.0)) == (0.0, 0.5)


# --- grid, random -------------------------------------------------------------------------------

SPACE = {"lr": Range(1e-4, 1.0, log=True), "layers": Range(1, 3, integer=True),
         "act": Choice(["relu", "gelu"])}  # fmt: skip


def test_a_grid_is_the_product_of_its_axes():
    found = list(search.grid(SPACE, points=5))
    axes = [1e-4, 1e-3, 1e-2, 0.1, 1.0], [1, 2, 3], ["relu", "gelu"]
    assert [tuple(v.values()) for v in found] == list(itertools.product(*axes))
    assert [v["lr"] for v in search.grid({"lr": SPACE["lr"]}, points=1)] == [0.01]
    with pytest.raises(ArgumentValueError, match="'points' must be a positive integer"):
        search.grid(SPACE, points=0)


@pytest.mark.parametrize("method", ["independent", "sobol"])
def test_a_trial_of_a_seed_is_always_the_same(method):
    ten = list(search.random(SPACE, 10, seed=3, method=method))
    assert list(search.random(SPACE, 25, seed=3, method=method))[:10] == ten
    assert list(search.random(SPACE, 10, seed=4, method=method)) != ten
    if method == "independent":  # a further key leaves the others as they are
        more = search.random({"first": Range(0, 1), **SPACE}, 10, seed=3)
        assert [{key: v[key] for key in SPACE} for v in more] == ten


def test_numbers_of_a_seed_stay_from_version_to_version():
    space = {"lr": Range(1e-4, 1.0, log=True), "n": Range(1, 9, integer=True)}
    assert list(search.random(space, 2, seed=7)) == GOLDEN["independent"]
    assert list(search.random(space, 2, seed=7, method="sobol")) == GOLDEN["sobol"]


GOLDEN = {
    "independent": [{"lr": 0.517702339232, "n": 1}, {"lr": 0.000143348588806, "n": 4}],
    "sobol": [{"lr": 0.517702339232, "n": 1}, {"lr": 0.00517702339232, "n": 5}],
}


def test_points_of_sobol_leave_smaller_gaps():
    space = {"a": Range(0, 1), "b": Range(0, 1)}
    gaps = {}
    for method in ("independent", "sobol"):
        a = sorted(v["a"] for v in search.random(space, 64, seed=0, method=method))
        gaps[method] = max(np.diff([0.0, *a, 1.0]))
    assert gaps["sobol"] <= 2 / 64 + 1e-9 < gaps["independent"]


def test_random_values_cover_the_range_evenly():
    values = [v["lr"] for v in search.random({"lr": SPACE["lr"]}, 400, seed=0)]
    counts = np.histogram(np.log10(values), bins=4, range=(-4, 0))[0]
    assert counts.sum() == 400
    assert counts.min() > 70


def test_what_random_refuses():
    with pytest.raises(ArgumentValueError, match="random: 'method' must be one of"):
        search.random(SPACE, 3, method="halton")
    with pytest.raises(ArgumentValueError, match="random: 'seed' must be"):
        search.random(SPACE, 3, seed=-1)
    with pytest.raises(ArgumentTypeError, match="refine: 'trials' must be Trials"):
        search.refine(SPACE, [], 3)
    with pytest.raises(ArgumentValueError, match="refine: 'n' must be"):
        search.refine(SPACE, Trials(), 0)
    with pytest.raises(ArgumentValueError, match="refine: 'factor' must be"):
        search.refine(SPACE, Trials(), 3, factor=1.0)
    with pytest.raises(ArgumentTypeError, match="narrowed: 'trials' must have numbers"):
        search.narrowed({"a": Range(0, 1)}, [Trial({"a": "x"}, 1.0)])


# --- coarse to fine -----------------------------------------------------------------------------


def test_a_range_becomes_a_third_around_the_best_decile():
    space = {"lr": Range(1e-6, 1.0, log=True), "m": Range(0.0, 0.9), "n": Range(1, 9, integer=True)}
    trials = [Trial({"lr": 10.0**-k, "m": 0.1 * k, "n": k + 1}, abs(k - 3) + 1) for k in range(7)]
    smaller = search.narrowed(space, trials)
    assert smaller["lr"] == Range(1e-4, 1e-2, log=True)
    assert smaller["m"].low == pytest.approx(0.15)
    assert smaller["m"].high == pytest.approx(0.45)
    assert (smaller["n"].low, smaller["n"].high, smaller["n"].integer) == (3, 5, True)


def test_bounds_are_respected_and_may_be_wider_than_the_last_round():
    first = {"x": Range(0.0, 9.0)}
    at_edge = search.narrowed(first, [Trial({"x": 0.0}, 1.0), Trial({"x": 5.0}, 2.0)])
    assert at_edge["x"] == Range(0.0, 3.0)
    beyond = search.narrowed(at_edge, [Trial({"x": 3.0}, 0.5)], within=first)
    assert (beyond["x"].low, beyond["x"].high) == (2.5, 3.5)
    inside = search.narrowed(at_edge, [Trial({"x": 3.0}, 0.5)])
    assert (inside["x"].low, inside["x"].high) == (2.0, 3.0)


def test_ties_failures_and_choices():
    space = {"x": Range(0.0, 9.0), "act": Choice(["a", "b", "c", 1, True])}
    tied = [Trial({"x": x, "act": act}, 1.0) for x, act in [(2.0, "a"), (4.0, True)]]
    bad = [Trial({"x": 9.0, "act": "c"}, r) for r in (math.nan, -math.inf, math.inf, 7.0)]
    smaller = search.narrowed(space, [*bad, *tied])
    assert smaller["act"] == Choice(["a", True])
    assert (smaller["x"].low, smaller["x"].high) == (pytest.approx(1.5), pytest.approx(4.5))
    higher = search.narrowed(space, [bad[3], tied[0]], better="higher")
    assert (higher["act"], higher["x"]) == (Choice(["c"]), Range(6.0, 9.0))
    assert search.narrowed(space, bad[:3]) == Space(space)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, math.nan, 5.0])), min_size=1),
    st.booleans(), st.booleans(), st.floats(0.05, 0.9),
)  # fmt: skip
def test_the_best_trial_stays_in_a_space_that_shrinks(points, log, integer, factor):
    outer = Space({"x": Range(1, 50, log=log, integer=integer)})
    trials = [Trial({"x": outer["x"].at(u)}, result) for u, result in points]
    smaller = search.narrowed(outer, trials, factor=factor)["x"]
    finite = [t for t in trials if not t.failed]
    assert 1 <= smaller.low <= smaller.high <= 50
    if finite:
        assert smaller.low <= min(finite, key=lambda t: t.result).values["x"] <= smaller.high
        if not integer:
            width = smaller.position(1.0), smaller.position(50.0)
            assert 1 / (width[1] - width[0]) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("method", ["independent", "sobol"])
def test_refining_finds_a_known_optimum(method):
    space = {"lr": Range(1e-6, 1.0, log=True), "m": Range(0.0, 1.0), "act": Choice(["a", "b", "c"])}

    def loss(v):
        return abs(math.log10(v["lr"] / 2e-3)) + abs(v["m"] - 0.83) + (v["act"] != "b")

    fine, coarse = [], []
    for seed in range(10):
        trials = Trials()
        for values in search.refine(space, trials, 20, rounds=3, seed=seed, method=method):
            trials.add(values, loss(values))
        fine.append(trials.best.result)
        coarse.append(min(map(loss, search.random(space, 60, seed=seed, method=method))))
    assert np.median(fine) < 0.2
    assert np.mean(fine) < 0.75 * np.mean(coarse)


def test_equal_values_of_a_small_space_count_once(monkeypatch):
    counted = []

    def narrowed(space, trials, **options):
        counted.append([trial.values["n"] for trial in trials])
        return search.narrowed(space, trials, **options)

    monkeypatch.setattr("pyspectra.training.search.strategies.narrowed", narrowed)
    trials = Trials()
    for values in search.refine({"n": Range(1, 4, integer=True)}, trials, 30, rounds=2):
        trials.add(values, values["n"])
    assert [sorted(numbers) for numbers in counted] == [[1, 2, 3, 4]] * 2


def test_a_search_that_was_stopped_goes_on(tmp_path):
    space = {"x": Range(0.0, 1.0)}

    def run(path, most):
        trials = Trials(path)
        done = []
        for values in itertools.islice(search.refine(space, trials, 5, rounds=2, seed=1), most):
            trials.add(values, (values["x"] - 0.3) ** 2)
            done.append(values)
        return done

    whole = run(tmp_path / "a.jsonl", 10)
    parts = [run(tmp_path / "b.jsonl", n) for n in (3, 4, 100)]
    assert [len(part) for part in parts] == [3, 4, 3]
    assert [*itertools.chain(*parts)] == whole


# --- trials -------------------------------------------------------------------------------------


def test_trials_survive_their_process(tmp_path):
    path = tmp_path / "trials.jsonl"
    trials = Trials(path, better="higher")
    trials.add({"lr": 0.1, "act": "ü"}, np.float32(0.5), codes=["loss_input"], seconds=math.nan)
    trials.add({"lr": 0.2, "act": "b"}, None)
    trials.add({"lr": 0.3, "act": "b"}, math.inf)
    again = Trials(path, better="higher")
    assert [(t.values, t.notes) for t in again] == [(t.values, t.notes) for t in trials]
    assert again.best == Trial(
        {"lr": 0.1, "act": "ü"}, 0.5, {"codes": ["loss_input"], "seconds": None}
    )
    assert [t.failed for t in again] == [False, True, True]
    again.add({"act": "b", "lr": 0.2}, 0.9)  # the same trial, once more
    assert Trials(path, better="higher").best.values == {"lr": 0.2, "act": "b"}
    assert len(again) == 3
    assert again.to_records()[0] == {"result": 0.9, "act": "b", "lr": 0.2}
    assert str(again).splitlines()[0].split() == ["result", "act", "lr", "codes", "seconds"]
    again.add({"act": "\x1b[2J", "lr": 0.4}, 0.1, curve=[0.125] * 50)
    assert max(map(len, str(again).splitlines())) < 80
    assert str(again).replace("\n", "").isprintable()
    assert json.loads(path.read_text().splitlines()[0])["schema"] == "pyspectra.trials/1"


def test_a_torn_line_is_passed_over_and_cut_off(tmp_path):
    path = tmp_path / "trials.jsonl"
    trials = Trials(path)
    trials.add({"x": 1}, 1.0)
    trials.add({"x": 2}, 2.0)
    path.write_bytes(path.read_bytes()[:-4])
    again = Trials(path)
    assert [t.values for t in again] == [{"x": 1}]
    assert list(again.missing([{"x": 1}, {"x": 2}])) == [{"x": 2}]
    again.add({"x": 3}, 3.0)
    assert [t.values["x"] for t in Trials(path)] == [1, 3]


def test_files_and_results_that_are_none(tmp_path):
    path = tmp_path / "trials.jsonl"
    for text in ("hello\n", "{}\n", '{"schema":"pyspectra.trials/1"}\n{"values":1}\n', "x", "[\n"):
        path.write_text(text)
        with pytest.raises(ps.FormatError, match="holds no trials"):
            Trials(path)
        assert path.read_text() == text
    path.write_text('{"schema": "other"}\n')
    with pytest.raises(ps.FormatError, match="its schema is 'other'"):
        Trials(path)
    Trials(tmp_path / "a", better="lower").add({"x": 1}, 1)
    with pytest.raises(ArgumentValueError, match="'better' must be one of 'lower', got 'higher'"):
        Trials(tmp_path / "a", better="higher")
    with pytest.raises(ArgumentTypeError, match="'result' must be a number or None"):
        Trials().add({}, "0.1")
    with pytest.raises(ArgumentValueError, match="hold values that JSON has"):
        Trials().add({"x": math.nan}, 1.0)
    trials = Trials()
    for got in ("none", "1 that failed"):
        with pytest.raises(ArgumentValueError, match=f"hold one that did not fail, got {got}"):
            _ = trials.best
        trials.add({"x": 1}, math.nan)
    assert str(Trials()) == "No trials."
