"""Rules of wiring, with numbers written by hand."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from pyspectra.report.findings import SEVERITIES
from pyspectra.training.rules import RULES, Thresholds, conclusions, judge, known_codes
from pyspectra.training.rules import facts as f
from pyspectra.types import StepStatistics

T = Thresholds()


def codes(*facts):
    return [(x.code, x.severity) for _, x in judge(facts, T)]


def tensor(name="w", grad=1.0, update=1e-3, shape=(4, 4), lr=0.1, **more):
    s = StepStatistics(16, grad, grad, 1.0, update, -1.0, 0, 0, 0)
    return f.TensorStep(name, shape, "float32", lr, s, **more)


@pytest.mark.parametrize(
    ("step", "n", "stale", "fires"),
    [(1, 1, 1, False), (2, 1, 1, True), (2, 4, 3, False), (2, 4, 4, True), (2, 0, 0, False)],
)
def test_gradients_are_stale_if_every_backward_found_old_ones(step, n, stale, fires):
    assert bool(codes(f.Backwards(step, "w", n, stale))) is fires


def test_parameters_outside_of_the_optimizer_are_named():
    rows = [
        f.ParameterInfo("head.weight", (3, 4), 12, True, False),
        f.ParameterInfo("body.weight", (3, 4), 12, True, True),
        f.ParameterInfo("frozen.weight", (3, 4), 12, False, False),
    ]
    [(_, found)] = judge([f.Parameters(0, rows)], T)
    assert (found.code, found.where) == ("parameter_not_optimized", "head.weight")
    assert codes(f.Parameters(0, rows[1:])) == []


def test_almost_all_frozen_is_a_note():
    rows = [
        f.ParameterInfo("a", (1000,), 1000, False, False),
        f.ParameterInfo("b", (5,), 5, True, True),
    ]
    assert codes(f.Parameters(0, rows)) == [("almost_all_frozen", "info")]


def test_no_gradient_needs_three_steps():
    none = f.TensorStep("w", (4, 4), "float32", 0.1, None)
    assert codes(f.RecentSteps(2, [[none]] * 2)) == []
    assert codes(f.RecentSteps(3, [[none]] * 3)) == [("no_gradient", "error")]
    sparse = dataclasses.replace(none, sparse=True)
    assert codes(f.RecentSteps(3, [[sparse]] * 3)) == [("no_gradient", "info")]


def test_zero_gradient_is_of_matrices_and_of_each_of_three_steps():
    zero = tensor(grad=0.0)
    assert codes(f.RecentSteps(3, [[zero]] * 3)) == [("zero_gradient", "error")]
    assert codes(f.RecentSteps(3, [[zero], [tensor()], [tensor()]])) == []
    assert codes(f.RecentSteps(3, [[tensor(grad=0.0, shape=(4,))]] * 3)) == []


def test_a_step_without_effect():
    stuck = tensor(update=0.0)
    assert codes(f.RecentSteps(3, [[stuck]] * 3)) == [("step_has_no_effect", "error")]
    for other in (tensor(update=0.0, lr=0.0), tensor(update=0.0, masked=True), tensor()):
        assert codes(f.RecentSteps(3, [[other]] * 3)) == []


def test_mode_of_the_step():
    assert codes(f.StepMode(5, False, ["drop"])) == [("eval_mode_at_train", "warning")]
    assert codes(f.StepMode(5, False, [])) == []
    assert codes(f.StepMode(5, True, ["drop"])) == []


def test_symptoms_are_left_out_beside_their_cause():
    found = [x for _, x in judge(
        [f.RecentSteps(3, [[tensor(grad=0.0)]] * 3), f.Backwards(2, "w", 1, 1)], T
    )]  # fmt: skip
    learned = dataclasses.replace(found[0], code="not_learning", severity="warning", step=200)
    assert [x.code for x in conclusions([learned, *found])] == ["stale_gradient", "zero_gradient"]


def test_every_rule_is_complete():
    assert len(known_codes()) >= 25
    for r in RULES:
        assert r.severity in SEVERITIES
        assert r.title.endswith("."), r.id
        assert set(r.explains) <= set(known_codes()), (r.id, set(r.explains) - set(known_codes()))
        assert r.codes


def test_thresholds_are_documented_in_the_class_of_their_family():
    for family in Thresholds.__mro__[:-1]:
        for name in inspect.get_annotations(family):
            assert name in (family.__doc__ or ""), (family.__name__, name)
