"""Rules of steps and losses over time, on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest
from rule_facts import codes, found, losses, said, steps, tensor

from pyspectra.training import Thresholds
from pyspectra.training.rules import facts as f

FALLING, STUCK, RISING = losses(2.0, 0.5), losses(1.6, 1.6, noise=0.01), losses(1.0, 2.0, 8.0)


@pytest.mark.parametrize("place", ["inputs", "targets", "outputs", "loss", "gradient", "weight"])
def test_what_is_not_finite_is_named_by_its_place(place):
    name = "layer3.conv" if place in ("outputs", "gradient", "weight") else ""
    finding = found(f.NonFinite(7, place, "Inf", name, 6.5e4, "float16", grew=True))
    assert (finding.code, finding.severity, finding.step) == ("nonfinite", "error", 7)
    assert finding.where == (name or place)
    assert "float16 ends at 65504" in finding.message
    assert "divide the learning rate by 10" in finding.advice[0]
    assert "the model" in found(f.NonFinite(7, "outputs", "NaN")).message


@pytest.mark.parametrize(
    ("last", "curve", "fires"),
    [(12.0, STUCK, True), (9.0, STUCK, False), (12.0, FALLING, False), (12.0, None, True)],
)
def test_a_gradient_explodes_ten_times_while_the_loss_does_not_fall(last, curve, fires):
    norms = np.r_[np.ones(20), [last] * 3]
    assert bool(said(f.GradientNorms(50, norms, curve))) is fires
    assert said(f.GradientNorms(50, np.r_[np.ones(20), last, last, 1.0], curve)) == []


def layers(first, **more):
    rows = [tensor("a", grad=first), tensor("b"), tensor("c")]
    return steps(*rows, **more)


def test_a_gradient_vanishes_only_where_nothing_is_learned():
    stuck = losses(1.61, 1.61, each=220, noise=0.01, baseline=1.61)
    assert said(layers(1e-4, curve=stuck)) == ["vanishing_gradient"]
    assert said(layers(2e-3, curve=stuck)) == []
    assert said(layers(1e-4, curve=losses(1.6, 0.4, each=220, baseline=1.61))) == []
    assert said(layers(1e-4)) == []
    assert said(layers(1e-4, curve=stuck, n_warm=0)) == []


@pytest.mark.parametrize(
    ("update", "curve", "expected"),
    [
        (1e-3, None, []),
        (0.09, None, []),
        (0.2, None, [("update_ratio", "warning")]),
        (0.2, FALLING, []),
        (2.0, None, [("update_ratio", "error")]),
        (2.0, FALLING, []),
        (2e-6, None, []),
        (5e-7, None, [("update_ratio", "warning")]),
    ],
)
def test_updates_too_long_and_too_short(update, curve, expected):
    assert codes(steps(tensor(update=update), curve=curve)) == expected


def test_what_has_no_update_ratio():
    assert codes(steps(tensor(update=0.5, shape=(16,)))) == []
    assert codes(steps(tensor(update=0.5, lr=0.0))) == []
    assert codes(steps(tensor(update=0.5, masked=True))) == []
    assert codes(steps(tensor(update=0.5), n_warm=4)) == []  # five checks at least
    # One tensor that hardly moves is a way to train; a model that does not move is not.
    assert codes(steps(tensor("a", update=1e-8), tensor("b", update=1e-3))) == []


@pytest.mark.parametrize(("update", "fires"), [(2.5, False), (3.5, True)])
def test_the_first_steps_throw_the_weights_away(update, fires):
    assert bool(said(steps(tensor(update=update), n=3))) is fires
    assert said(steps(tensor(update=update), n=4)) == []


@pytest.mark.parametrize(("now", "fires"), [(2e-3, False), (5e-4, True)])
def test_weights_that_decay_away(now, fires):
    rows = [[tensor("a"), tensor("b")], [tensor("a", weights=now), tensor("b", weights=now)]]
    assert bool(said(f.RecentSteps(2, rows))) is fires
    if fires:
        assert "weight decay" in found(f.RecentSteps(2, rows)).advice[0]
    one_of_three = [[*rows[0], tensor("c")], [tensor("a", weights=now), tensor("b"), tensor("c")]]
    assert said(f.RecentSteps(2, one_of_three)) == []


@pytest.mark.parametrize(
    ("more", "fires"),
    [
        ({"lost": 9}, True),
        ({"lost": 7}, False),
        ({"lost": 5, "zero": 8}, True),  # of those with a gradient
        ({"lost": 9, "master": True}, False),
        ({"lost": 9, "dtype": "float32"}, False),
    ],
)
def test_updates_lost_to_rounding(more, fires):
    row = tensor(**{"dtype": "bfloat16", **more})
    assert ("lost_updates" in said(steps(row))) is fires
    assert said(steps(row, n=4)) == []


def test_spikes_are_notes():
    quiet = losses(1.0, 1.0, noise=0.05).losses
    for last, fires in ((1.8, False), (2.5, True)):
        assert codes(f.LossCurve(np.r_[quiet, last])) == ([("loss_spike", "info")] if fires else [])
    assert codes(f.LossCurve(np.r_[quiet[:20], 9.0])) == []


def test_divergence():
    assert said(RISING) == ["divergence"]
    assert said(FALLING) == []
    assert said(losses(1.0, 0.5, 0.8, 0.8, 0.8)) == []
    assert said(losses(1.0, 0.3, 0.9, 0.9, 0.9)) == ["divergence"]
    # Thrown up at the first step, and on its way down ever since.
    assert said(f.LossCurve(np.r_[[1.6] * 3, np.geomspace(400, 5, 150)])) == ["divergence"]
    assert said(f.LossCurve(np.r_[[1.6] * 3, np.geomspace(400, 2, 150)])) == []
    # Losses of single samples: three windows in a row may well have twice the median of the best.
    single = np.random.default_rng(3).chisquare(1, (200, 400))
    assert sum("divergence" in said(f.LossCurve(row)) for row in single) <= 2
    # Near zero a ratio says nothing.
    assert said(losses(1.0, 0.001, 0.01, 0.01, 0.01)) == []


def test_losses_that_bounce():
    r = np.random.default_rng(0)
    up_and_down = 1.0 + 0.2 * (-1.0) ** np.arange(120) + 0.05 * r.standard_normal(120)

    def bounces(values, epoch_steps=30):
        return "oscillation" in said(f.LossCurve(values, epoch_steps=epoch_steps))

    assert bounces(up_and_down)
    assert bounces(up_and_down, epoch_steps=1)  # the whole data in each step
    assert not bounces(up_and_down, epoch_steps=2)  # two batches take turns
    assert not bounces(up_and_down, epoch_steps=None)
    assert not bounces(up_and_down[:80])
    assert not bounces(up_and_down * np.linspace(3, 1, 120))  # on its way down
    assert not bounces(1.0 + 1e-5 * up_and_down)  # at rest
    assert not any(bounces(r.exponential(size=200)) for _ in range(300))
    walk = [1.0 + 0.1 * np.cumsum(r.standard_normal(200)) for _ in range(100)]
    assert not any(bounces(values) for values in walk)


def test_bouncing_by_a_rate_that_is_too_high():
    """Gradient descent on log cosh with a rate above 2: it settles on two sides of the minimum."""
    w, losses = 0.3, []
    for _ in range(200):
        losses.append(float(np.log(np.cosh(w + 0.4))) + 0.1 * w)
        w -= 2.6 * (np.tanh(w + 0.4) + 0.1)
    assert said(f.LossCurve(np.array(losses), epoch_steps=1)) == ["oscillation"]


def test_thresholds_are_those_of_the_caller():
    assert said(losses(1.0, 0.997, each=220, noise=0.01, baseline=1.0)) == ["not_learning"]
    assert said(losses(1.0, 0.9, each=220, baseline=1.0)) == []
    still = f.LossCurve(np.full(220, 0.97), baseline=1.0)
    assert said(still, thresholds=Thresholds(baseline_share=0.02, least_decrease=0.0)) == []
    assert said(still, thresholds=Thresholds(baseline_share=0.04)) == ["not_learning"]


@pytest.mark.parametrize(
    "more", [{"rates_rise": True}, {"least": 300}, {"baseline": None}, {"baseline": -1.0}]
)
def test_when_nothing_is_said_of_learning(more):
    still = f.LossCurve(np.full(220, 1.0), **{"baseline": 1.0, **more})
    assert said(still) == []
