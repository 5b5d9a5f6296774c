"""Rules of units, on both sides of each threshold."""

from __future__ import annotations

import dataclasses

import pytest
from rule_facts import codes, found, losses

from pyspectra.training.rules import facts as f

STUCK = losses(1.61, 1.61, each=220, baseline=1.61)
LEARNED = losses(1.61, 0.3, each=220, baseline=1.61)
UNITS = f.Units(90, "fc1", "relu", 1000, 10, 100, 0)


def units(**more):
    return dataclasses.replace(UNITS, **more)


@pytest.mark.parametrize(
    ("dead", "curve", "severity"),
    [
        (50, None, None),
        (51, None, "info"),
        (90, STUCK, "info"),
        (91, STUCK, "error"),
        (91, None, "error"),
        (91, LEARNED, "warning"),
    ],
)
def test_dead_units(dead, curve, severity):
    expected = [] if severity is None else [("dead_units", severity)]
    assert codes(units(n_dead=dead, curve=curve)) == expected


def test_units_are_dead_only_after_enough_samples():
    assert codes(units(n_dead=95, n_samples=999)) == []
    assert codes(units(n_dead=95, n_batches=9)) == []
    assert codes(units(n_dead=95, activation="tanh")) == []
    assert (
        "95 of 100 units of fc1 were never active on 1000 samples"
        in found(units(n_dead=95)).message
    )


@pytest.mark.parametrize(
    ("more", "fires"),
    [
        ({"n_saturated": 51}, True),
        ({"n_saturated": 50}, False),
        ({"n_saturated": 51, "is_output": True}, False),
        ({"n_saturated": 51, "curve": LEARNED}, False),
        ({"n_saturated": 51, "activation": "relu"}, False),
    ],
)
def test_saturated_units_matter_where_nothing_is_learned(more, fires):
    fact = units(**{"activation": "sigmoid", "curve": STUCK, **more})
    assert bool(codes(fact)) is fires


@pytest.mark.parametrize(
    ("std", "fires"), [(0.11, False), (0.09, True), (9.0, False), (11.0, True)]
)
def test_scales_of_activations(std, fires):
    fact = f.Scales(90, {"a": 1.0, "b": 1.0, "c": std, "d": 1.0})
    assert codes(fact) == ([("activation_scale", "info")] if fires else [])
    assert codes(f.Scales(90, {"a": 1.0, "c": std})) == []  # no usual one
