"""Rules of curves, on both sides of each threshold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rule_facts import RNG, codes, curves, found, said

from pyspectra.training.rules import facts as f
from pyspectra.training.valley import valley

DOWN = np.geomspace(1.0, 0.2, 12)
FLAT = np.full(12, 0.4)


def valley_of(rise, noise=0.0, n=24, seed=0):
    fall = np.geomspace(1.0, 0.5, n // 2)
    up = np.linspace(0.5, 0.5 * (1 + rise), n - n // 2 + 1)[1:]
    y = np.r_[fall, up]
    return y * (1 + noise * np.random.default_rng(seed).standard_normal(n))


def overfits(val, train=None):
    train = np.geomspace(1.0, 0.1, len(val)) if train is None else train
    return "overfitting" in said(curves(train, val))


@pytest.mark.parametrize(("rise", "fires"), [(0.04, False), (0.05, False), (0.1, True)])
def test_overfitting_is_a_rise_of_five_per_cent_in_three_evaluations(rise, fires):
    assert overfits(valley_of(rise)) is fires


def test_a_lucky_evaluation_is_not_the_best():
    val = np.full(20, 1.0) + 0.005 * RNG.standard_normal(20)
    val[14] = 0.9
    assert not overfits(val)
    assert sum(overfits(valley_of(0.0, 0.05, seed=k)) for k in range(50)) <= 1
    assert sum(overfits(valley_of(1.0, 0.05, seed=k)) for k in range(50)) >= 49


def test_a_gap_or_a_rise_of_both_is_no_overfitting():
    assert not overfits(np.full(12, 1.0))
    both = valley_of(0.5)
    assert not overfits(both, train=both)


def test_standard_errors_that_are_known_count():
    val = valley_of(0.2)
    train = np.geomspace(1.0, 0.1, len(val))
    assert said(curves(train, val, val_loss_se=np.full(len(val), 0.001))) == ["overfitting"]
    assert said(curves(train, val, val_loss_se=np.full(len(val), 0.05))) == []


def test_the_valley_of_a_curve():
    found = valley([3.0, 1.0, 1.2, 0.8, 2.0, 4.0])
    assert (found.bottom, found.low) == (3, 1.0)
    assert valley([3.0, 2.0, 1.0, 2.0, 3.0]).scatter == 0.0
    assert valley(np.geomspace(1, 0.1, 9)).bottom == 8
    assert valley(np.arange(500.0)).bottom == 300  # the last two hundred
    noisy = valley(valley_of(1.0, 0.05, n=100))
    assert 0.35 < noisy.low < 0.55
    assert 0.02 < noisy.scatter < 0.05


@pytest.mark.parametrize(
    ("slope", "ended", "alphas", "expected"),
    [
        (-0.05, True, None, [("stopped_early", "info")]),
        (-0.05, False, None, []),
        (-0.02, True, None, []),
        (-0.05, True, [7.0, 7.0, 3.0], [("stopped_early", "warning")]),
        (-0.05, True, [7.0, 3.0, 3.0], [("stopped_early", "info")]),
    ],
)
def test_a_run_stops_early_only_at_its_end(slope, ended, alphas, expected):
    train = np.exp(slope * np.arange(10))
    given = None if alphas is None else np.array(alphas)
    fact = curves(train, train, ended=ended, alphas=given)
    assert codes(fact) == expected


@pytest.mark.parametrize(("rise", "fires"), [(0.0, False), (0.004, False), (0.05, True)])
def test_a_training_loss_that_rises(rise, fires):
    train = np.r_[[1.0, 0.9, 0.8], 0.8 * (1 + rise) ** np.arange(1, 6)]
    assert ("train_metric_worsening" in said(curves(train))) is fires
    assert said(curves(train, objective=False)) == []
    assert said(curves(train, train_loss_se=np.full(len(train), 0.2))) == []


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0.4, [("plateau", "info")]), (0.7, []), (0.95, [("plateau", "warning")])],
)
def test_plateaus(level, expected):
    train = np.r_[1.0, 0.98, np.full(10, level)]
    assert codes(curves(train, baseline=1.0)) == expected
    annealed = np.r_[np.ones(6), np.full(6, 1e-3)]
    assert codes(curves(train, baseline=1.0, lr=annealed)) == []


@pytest.mark.parametrize(("target", "fires"), [(None, False), (0.3, True), (0.5, False)])
def test_underfitting_by_the_target(target, fires):
    train = np.r_[1.0, 0.6, np.full(10, 0.4)]
    given = {"baseline": 1.0, "target": target}
    assert ("underfitting", "info") in codes(curves(train, train, **given)) or not fires
    assert (("underfitting", "info") in codes(curves(train, train, **given))) is fires


def test_validation_that_swings():
    swinging = np.array([0.5, 0.6] + [0.7, 0.5] * 5)
    fact = curves(FLAT, val_accuracy=swinging, n_val=1000)
    assert said(fact) == ["oscillation"]
    assert said(dataclasses.replace(fact, n_val=20)) == []  # within chance
    assert said(curves(FLAT, val_accuracy=0.6 + 0.01 * swinging, n_val=100000)) == []


@pytest.mark.parametrize(("by", "fires"), [(0.2, False), (0.4, True)])
def test_validation_better_than_training(by, fires):
    fact = curves(FLAT + by, FLAT, val_loss_se=np.full(12, 0.1), post=True)
    assert (("suspicious_validation", "info") in codes(fact)) is fires
    assert codes(dataclasses.replace(fact, post=False)) == []


def comparable(**more):
    usual = {"n_records": np.full(12, 50.0), "batch": 32.0, "n_val": 400}
    better = {"higher_is_better": {"loss": False}}
    given = {**usual, **better, **more}
    return curves(given.pop("train", DOWN), given.pop("val", DOWN), **given)


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ({}, None),
        ({"n_records": np.ones(12)}, "one batch of 32"),
        ({"n_records": np.ones(12), "n_val": 100}, None),  # much of a small set
        ({"val": 400 * DOWN}, "a sum is of a mean"),
        ({"val": 100 * DOWN}, None),
        ({"train": 32 * DOWN}, "training is 32 times the other"),
        ({"train": np.r_[1.5, DOWN[1:]]}, None),  # as every curve begins
        ({"train": 1.1 * DOWN}, "stays better than training"),
        ({"train": 1.1 * DOWN, "post": True}, None),
        ({"train": 1.04 * DOWN}, None),
    ],
)
def test_what_is_not_comparable(more, how):
    notes = [x for x in codes(comparable(**more)) if x[0] == "not_comparable"]
    assert notes == ([] if how is None else [("not_comparable", "info")])
    if how is not None:
        assert how in found(comparable(**more)).message


@pytest.mark.parametrize(
    ("best", "error", "fires"),
    [
        (0.99, 0.0, True),
        (0.97, 0.0, False),
        (0.97, 0.02, True),
        (1.2, 0.0, True),
        (2.1, 0.0, False),
    ],
)
def test_no_evaluation_beats_the_baseline(best, error, fires):
    val = best * np.array([1.3, 1.0, 1.3, 1.4])
    fact = curves(DOWN[:4], val, baseline=1.0, val_loss_se=np.full(4, error))
    assert ("not_learning" in said(fact)) is fires
    assert "not_learning" not in said(curves(DOWN[:2], val[:2], baseline=1.0))


def labels(**more):
    given = {"baseline": 1.0, "n_val": 400, "val_accuracy": np.full(6, 0.52), **more}
    train = given.pop("train", np.linspace(1.0, 0.6, 6))
    return curves(train, given.pop("val", np.linspace(1.0, 1.5, 6)), **given)


@pytest.mark.parametrize(
    ("more", "z", "fires"),
    [
        ({}, 0.5, True),
        ({}, None, True),
        ({}, 5.0, False),  # neighbours agree: the labels are right
        ({}, 7.0, True),  # so sure that those of validation must be wrong
        ({"train": np.linspace(1.0, 0.85, 6)}, 0.5, False),  # not learned by heart
        ({"val": np.linspace(5.0, 9.0, 6)}, None, True),  # sure, and wrong
        ({"val": np.linspace(5.0, 9.0, 6), "val_accuracy": []}, None, False),  # maybe a sum
        ({"n_train": 200}, None, True),
        ({"n_train": 199}, None, False),
        ({"val_accuracy": np.full(6, 0.7)}, 0.5, False),
        ({"val": np.linspace(1.0, 0.9, 6)}, 0.5, False),
    ],
)
def test_labels_learned_by_heart(more, z, fires):
    fact = f.LabelEvidence(300, labels(**more), majority=0.5, agreement=z)
    assert codes(fact) == ([("labels_carry_no_information", "warning")] if fires else [])
