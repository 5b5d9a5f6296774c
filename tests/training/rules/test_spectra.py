"""Rules of spectra, with trajectories written by hand."""

from __future__ import annotations

import dataclasses

import pytest

from pyspectra.training.rules import Thresholds, judge
from pyspectra.training.rules import facts as f
from pyspectra.training.trajectories import trajectories

T = Thresholds()
LEVELS = {"layer_under_trained": (6.0, 9.0), "layer_over_trained": (2.0, 1.3)}


def row(step, name="b", alpha=4.0, error=0.2, **more):
    given = {
        "N": 100, "M": 64, "n_tail": 30, "n_evals": 64, "stable_rank": 10.0, "spectral_norm": 2.0,
        "random_p_value": 1e-9,
    }  # fmt: skip
    return f.LayerSpectrum(
        step, name, alpha=alpha, alpha_low=alpha - error, alpha_high=alpha + error, **given | more
    )


def steady(name, steps, **more):
    return [row(step, name, spectral_norm=1.0, **more) for step in steps]


def found(*changing, steps=(0, 50, 100, 150, 200)):
    """Return the findings of three layers, of which the middle one changes."""
    rows = [*steady("a", steps), *changing, *steady("c", steps)]
    return [(x.code, x.severity, x.where) for _, x in judge([trajectories(sorted_by(rows))], T)]


def sorted_by(rows):
    order = {"a": 0, "b": 1, "c": 2}
    return sorted(rows, key=lambda r: (r.step, order[r.name]))


@pytest.mark.parametrize("code", LEVELS)
def test_alpha_is_told_of_where_it_left_its_bounds(code):
    limit, beyond = LEVELS[code]
    assert found(row(0), row(200, alpha=beyond)) == [(code, "info", "b")]
    [(_, finding)] = judge([trajectories(sorted_by([*steady("a", (0, 200)), row(0),
                           row(200, alpha=beyond), *steady("c", (0, 200))]))], T)  # fmt: skip
    assert finding.threshold == limit
    assert f"at step 0 it was {4.0:.2f}" in finding.message


@pytest.mark.parametrize("code", LEVELS)
@pytest.mark.parametrize(
    "more",
    [
        {"error": 4.0},  # within its error
        {"n_tail": 19},
        {"n_evals": 49},
        {"random_p_value": 0.02},  # no structure: alpha says nothing
        {"step": 10},  # before the end of warm-up
    ],
)
def test_alpha_is_not_told_of_without_certainty(code, more):
    last = {"step": 200, "alpha": LEVELS[code][1], **more}
    assert found(row(0), row(**last)) == []


@pytest.mark.parametrize("code", LEVELS)
def test_a_level_that_was_there_at_first_is_no_finding(code):
    beyond = LEVELS[code][1]
    assert found(*(row(step, alpha=beyond) for step in (0, 100, 200))) == []


def test_outer_layers_are_told_of_only_beside_others():
    first = [row(0, "a", alpha=4.0), row(200, "a", alpha=1.2)]
    rest = [row(0), row(200), *steady("c", (0, 200))]
    assert judge([trajectories(sorted_by([*first, *rest]))], T) == []
    inner = [row(0), row(200, alpha=1.2), *steady("c", (0, 200))]
    said = judge([trajectories(sorted_by([*first, *inner]))], T)
    assert {x.where for _, x in said} == {"a", "b"}
    embedding = [dataclasses.replace(r, kind="embedding") if r.name == "b" else r for r in inner]
    assert judge([trajectories(sorted_by([*steady("a", (0, 200)), *embedding]))], T) == []


@pytest.mark.parametrize(
    ("at_warm", "last", "shape", "fires"),
    [
        (10.0, 1.9, (100, 64), True),
        (3.0, 1.9, (100, 64), False),  # it fell by less than half
        (10.0, 2.1, (100, 64), False),
        (10.0, 1.9, (100, 31), False),
    ],
)
def test_rank_collapse(at_warm, last, shape, fires):
    N, M = shape
    rows = [
        row(0, stable_rank=20.0, N=N, M=M),
        row(10, stable_rank=at_warm, N=N, M=M),
        row(200, stable_rank=last, N=N, M=M),
    ]
    assert found(*rows) == ([("rank_collapse", "warning", "b")] if fires else [])


def test_rank_at_the_end_of_warm_up_is_the_reference():
    rows = [row(0, stable_rank=20.0), row(10, stable_rank=1.5), row(200, stable_rank=1.4)]
    assert found(*rows) == []
    assert found(rows[0], rows[2]) == [("rank_collapse", "warning", "b")]
    later = [row(50, stable_rank=20.0), row(200, stable_rank=1.4)]
    assert found(*later, steps=(50, 200)) == [("rank_collapse", "warning", "b")]


def norms(values, steps=(50, 100, 150, 200), **more):
    return [row(s, spectral_norm=v, **more) for s, v in zip(steps, values, strict=True)]


def test_norm_that_doubles_three_times():
    up = [1.5 * 2 ** (0.51 * k) for k in range(4)]
    assert found(row(0), *norms(up)) == [("spectral_norm_growth", "warning", "b")]
    slower = [*up[:3], 1.3 * up[2]]
    assert found(row(0), *norms(slower)) == []
    assert found(row(0), *norms(up, steps=(5, 100, 150, 200))) == []
    # Like a LoRA pair, which begins at zero: not larger than the others yet.
    small = [0.01 * x for x in up]
    assert found(row(0), *norms(small)) == []


def traps(*counts, strength=12.0, **more):
    steps = (0, 50, 100, 150)[: len(counts)]
    return [
        row(s, n_traps=n, trap_strength=strength if n else 0.9, **more)
        for s, n in zip(steps, counts, strict=True)
    ]


@pytest.mark.parametrize("counts", [(0, 0, 1, 1), (1, 1, 2, 2)])
def test_traps_that_are_new_strong_and_stay(counts):
    assert found(*traps(*counts)) == [("correlation_trap", "info", "b")]


@pytest.mark.parametrize("counts", [(0, 0, 0, 1), (0, 1, 0, 1), (1, 1, 1, 1), (0, 1)])
def test_traps_that_are_old_or_gone_are_not_told_of(counts):
    assert found(*traps(*counts)) == []


def test_weak_traps_and_small_layers_are_not_told_of():
    assert found(*traps(0, 0, 1, 1, strength=6.3)) == []
    assert found(*traps(0, 0, 1, 1, n_evals=49)) == []


def test_nan_is_silent():
    nan = float("nan")
    rows = [row(s, alpha=nan, error=nan, stable_rank=nan, spectral_norm=nan) for s in
            (0, 50, 100, 150, 200)]  # fmt: skip
    assert found(*rows) == []
    assert judge([trajectories(rows[:1])], T) == []
    assert judge([trajectories([])], T) == []
