"""The shape of curves, held against curves whose shape is known, and against SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pyspectra.training import History, curves, read_out, series


def test_slope_is_that_of_scipy_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(20.0)
    y = 3 - 0.2 * x + rng.standard_normal(20)
    found = curves.slope(x, y, log=False)
    expected = stats.linregress(x, y)
    assert found is not None
    assert found.value == pytest.approx(expected.slope)
    half = stats.t.ppf(0.975, 18) * expected.stderr
    assert (found.low, found.high) == pytest.approx((expected.slope - half, expected.slope + half))


def test_slope_of_the_logarithm_is_relative_and_needs_positive_values() -> None:
    x = np.arange(1.0, 6)
    found = curves.slope(x, 7 * np.exp(-0.1 * x))
    assert found is not None
    assert found.value == pytest.approx(-0.1)
    assert curves.slope(x, x - 1) is None
    assert curves.slope([1.0], [1.0]) is None
    assert curves.slope([1.0, 1.0], [1.0, 2.0]) is None
    with_gaps = curves.slope([1, 2, math.nan, 3], [1.0, 2.0, 9.0, 3.0], log=False)
    assert with_gaps is not None
    assert with_gaps.n == 3
    assert with_gaps.value == pytest.approx(1)


def test_plateau_begins_where_the_curve_becomes_flat() -> None:
    x = np.arange(1, 41.0)
    y = np.maximum(2.0 * np.exp(-0.1 * x), 0.5)
    found = curves.plateau(x, y)
    assert found is not None
    bend = 10 * math.log(4)
    assert bend - 3 <= found.since <= bend + 2
    assert found.level == pytest.approx(0.5, rel=0.02)
    assert curves.plateau(x[:12], y[:12]) is None
    assert curves.plateau([1, 2], [1.0, 1.0]) is None


def test_a_noisy_end_is_no_plateau_unless_its_slope_is_known_to_be_small() -> None:
    rng = np.random.default_rng(1)
    x = np.arange(1, 11.0)
    assert curves.plateau(x, np.exp(rng.standard_normal(10))) is None
    assert curves.plateau(x, 1 + 1e-3 * rng.standard_normal(10)) is not None


def test_mann_kendall_is_exact_for_few_values() -> None:
    for y in ([1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [5, 1, 4, 2, 3]):
        trend = series.mann_kendall(y)
        every = [series.mann_kendall(p).S for p in itertools.permutations(range(5))]
        share = np.mean([abs(S) >= abs(trend.S) for S in every])
        assert trend.p_value == pytest.approx(share)
    assert series.mann_kendall([1, 2, 3, 4, 5]).p_value == pytest.approx(2 / 120)


def test_mann_kendall_of_many_values_and_of_ties_is_that_of_kendall() -> None:
    rng = np.random.default_rng(2)
    y = np.arange(60) * 0.01 + rng.standard_normal(60)
    expected = stats.kendalltau(np.arange(60), y)
    assert series.mann_kendall(y).p_value == pytest.approx(expected.pvalue, rel=0.05)
    assert series.mann_kendall([1, 1, 1, 1]).p_value == 1.0
    assert series.mann_kendall([1.0]).p_value == 1.0
    tied = [1, 2, 2, 3, 3, 4, 5, 5, 6, 7]
    assert series.mann_kendall(tied).p_value < 1e-3


def test_crossings_lie_where_the_lines_meet() -> None:
    x = [1, 2, 3, 4, 5]
    found = curves.crossings(x, [5, 4, 3, 2, 1], [4, 3.5, 3, 2.5, math.nan])
    assert [(c.x, c.y, c.upward) for c in found] == [(3.0, 3.0, True)]
    assert curves.crossings(x, [1] * 5, [1, 2, 1, 2, 1]) == []  # it touches only
    assert len(curves.crossings(x, [0] * 5, [1, -1, 1, -1, 1])) == 4


def test_divergence_needs_a_rise_and_not_a_gap() -> None:
    x = np.arange(1, 9.0)
    train = np.linspace(1, 0.2, 8)
    assert curves.divergence(x, train, train + 0.5) is None
    val = [1.0, 0.9, 0.8, 0.81, 0.82, 0.9, 0.95, 1.0]
    found = curves.divergence(x, train, val)
    assert found is not None
    # The second best value is what it is held against: one may be lucky.
    assert (found.best_x, found.best, found.since, found.n) == (3, 0.81, 6, 3)
    assert found.worse_by == pytest.approx(0.19)
    assert found.limit == pytest.approx(0.0405)
    assert found.train_improves
    within_chance = curves.divergence(x, train, val, val_se=np.full(8, 0.07))
    assert within_chance is None
    rising = curves.divergence(x, train[::-1], val)
    assert rising is not None
    assert not rising.train_improves
    upwards = curves.divergence(x, None, 1 - np.asarray(val) / 2, better="higher")
    assert upwards is not None
    assert upwards.n == 3


def test_a_curve_that_came_back_is_no_divergence() -> None:
    x = np.arange(1, 6.0)
    assert curves.divergence(x, None, [1.0, 0.5, 0.9, 0.9, 0.51]) is None


def test_swings_pass_over_what_is_small() -> None:
    assert curves.swings([0.5, 0.8, 0.79, 0.81, 0.6], 0.1) == [(0, 3), (3, 4)]
    assert curves.swings([1, 2, 3, 4], 0.5) == [(0, 3)]
    assert curves.swings([1, 1.01, 1, 1.01], 0.5) == []
    assert len(curves.swings([0, 1] * 5, 0.5)) == 9
    assert curves.swings([math.nan, 0, math.nan, 1, 0], 0.5) == [(1, 3), (3, 4)]


def test_autocorrelation_tells_bouncing_from_drifting() -> None:
    x = np.arange(40.0)
    bouncing = 3 - 0.05 * x + 0.1 * (-1) ** x
    assert series.autocorrelation(series.detrended(x, bouncing)) < -0.9
    assert series.autocorrelation(np.sin(x / 5)) > 0.9
    assert math.isnan(series.autocorrelation([1, 1, 1, 1]))
    assert math.isnan(series.autocorrelation([1]))


def test_robust_z_is_not_moved_by_a_spike() -> None:
    past = np.random.default_rng(3).standard_normal(1000)
    past[:10] = 1e6
    assert series.robust_z(6.0, past) == pytest.approx(6, rel=0.1)
    assert series.robust_z(1.0, [1, 1, 1]) == 0
    assert series.robust_z(2.0, [1, 1, 1]) == math.inf


def test_smoothing_starts_at_the_first_value_and_forgets_by_half_lives() -> None:
    assert series.smoothed([0, 1, 2], [4.0, 4.0, 4.0], 1.0) == pytest.approx([4, 4, 4])
    two = series.smoothed([0, 3], [1.0, 0.0], 3.0)
    assert two[1] == pytest.approx(0.5 / 1.5)
    gap = series.smoothed([0, 1, 2], [1.0, math.nan, 1.0], 1.0)
    assert math.isnan(gap[1])
    assert gap[2] == 1.0


def test_best_index_is_the_first_of_equal_ones() -> None:
    assert curves.best_index([3, math.nan, 1, 1]) == 2
    assert curves.best_index([3, 5, 5], "higher") == 1
    with pytest.raises(ValueError, match="finite"):
        curves.best_index([math.nan])


def test_a_curve_that_only_falls_is_not_said_to_go_up_and_down() -> None:
    history = History()
    for epoch, loss in enumerate([0.474, 0.312, 0.270, 0.244], 1):
        history.log(epoch=epoch, train_loss=loss, val_loss=0.3 + 0.02 * (epoch % 2))
    falls, wavers = read_out(history)[:2]
    assert falls.startswith("loss: training falls from each of the last 4 epochs to the next, by ")
    assert wavers.startswith("loss: validation goes up and down over the last 4 epochs")
