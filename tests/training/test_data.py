"""Checks of data, and balanced subsets."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra.training import data
from pyspectra.training.rules.splits import agreement

rng = np.random.default_rng(0)
X = rng.standard_normal((600, 8))
Y = X[:, :3].argmax(1)
MEAN, STD = (np.array(v)[None, :, None, None] for v in data.IMAGENET)
PIXELS = rng.random((20, 3, 8, 8))


def codes(*args, least="warning", **options):
    ranks = ("error", "warning", "info")
    report = data.check(*args, **options)
    return [x.code for x in report if ranks.index(x.severity) <= ranks.index(least)]


def test_standardised_data_are_silent():
    assert codes(X[:400], Y[:400], X[400:], Y[400:], batch_size=20, epochs=50, least="info") == []


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ((PIXELS - MEAN) / STD, None),
        (PIXELS, "not normalised"),
        (np.round(255 * PIXELS), "neither divided"),
        ((255 * PIXELS - MEAN) / STD, "division by 255 is missing"),
        ((PIXELS - STD) / MEAN, "swapped"),
        (255 * PIXELS - np.array([123.68, 116.779, 103.939])[None, :, None, None], "Caffe"),
    ],
)
def test_pretrained_normalisation_names_the_cause(values, wrong):
    found = [x for x in data.check(values, pretrained="imagenet") if x.severity == "error"]
    assert bool(found) is (wrong is not None)
    if wrong:
        assert wrong in found[0].message


def test_random_erasing_is_allowed():
    values = ((PIXELS - MEAN) / STD).copy()
    values[0, 0, 0, 0] = 5.0
    assert codes(values, pretrained="imagenet") == []


def test_ranges():
    assert codes(rng.integers(0, 256, (50, 1, 8, 8)).astype(float)) == ["input_range"]
    assert codes(X * np.array([1, 1e4, 1, 1, 1, 1, 1, 1])) == ["input_range"]
    assert codes(np.where(X > 3, np.nan, X)) == ["input_range"]
    assert codes(rng.integers(0, 1000, (50, 12))) == []  # tokens


def test_shuffled_labels_carry_no_information():
    shuffled = rng.permutation(Y)
    assert "labels_carry_no_information" in codes(X, shuffled, least="info")
    assert agreement(X, Y) > 10
    assert agreement(X, X[:, 0] ** 2) > 3
    assert abs(agreement(X, rng.permutation(X[:, 0]))) < 3.5


def test_leakage_and_shifts():
    assert codes(X, Y, X[:50], Y[:50]) == ["leakage"]
    near = X[:50] + 1e-4 * rng.standard_normal((50, 8))
    assert codes(X, Y, near, Y[:50]) == ["leakage"]
    few = rng.integers(0, 2, (600, 3)).astype(float)
    assert codes(few[:400], None, few[400:]) == []
    order = np.argsort(Y, kind="stable")
    assert "label_shift" in codes(X[order[:400]], Y[order[:400]], X[order[400:]], Y[order[400:]])
    assert codes(X[:400], None, X[400:] + np.array([1.0] + [0] * 7)) == ["input_shift"]


def test_features_that_are_correlated_otherwise():
    """No feature by itself has changed."""
    mixed = rng.standard_normal((1500, 6)) @ rng.standard_normal((6, 6))
    turned = mixed.copy()
    turned[:, 0] = rng.permutation(turned[:, 0])  # belongs to other rows now
    [found] = data.check(mixed[:1000], X_val=turned[1000:])
    assert (found.code, found.where, found.severity) == ("input_shift", "covariance", "warning")
    assert found.value > 2
    assert codes(mixed[:1000], None, 100 * mixed[1000:])[0] == "input_shift"
    assert "input_shift" not in codes(mixed[:120], None, turned[120:160])  # too few rows to tell
    images = rng.random((400, 3, 6, 6)) + rng.random((400, 1, 1, 1))
    assert codes(images[:300], None, images[300:]) == []


@pytest.mark.parametrize("seed", range(12))
def test_splits_by_chance_are_no_shift(seed):
    r = np.random.default_rng(seed)
    n, p = int(r.integers(120, 2000)), int(r.integers(2, 40))
    heavy = r.standard_t(3, (n, p)) @ r.standard_normal((p, p))
    constant = np.c_[r.exponential(size=(n, p)) ** 2, np.ones(n), np.zeros(n)]
    few = r.integers(0, 2, (n, p)).astype(float)
    twice = np.repeat(r.standard_normal((n, 2)), 3, axis=1)  # of rank two
    for values in (heavy, constant, few, twice):
        cut = int(n * r.uniform(0.5, 0.9))
        assert "input_shift" not in codes(values[:cut], None, values[cut:])


def test_labels():
    assert codes(X, Y, n_outputs=2) == ["label_format"]
    assert codes(X, Y, n_outputs=4, least="info") == ["label_format"]
    assert codes(X, np.where(X[:, 0] > 1, np.nan, X[:, 0])) == ["label_format"]
    rare = np.where(rng.random(600) < 0.03, 1, 0)
    assert "class_imbalance" in codes(X, rare, least="info")


def test_batches():
    [found] = data.check(X[:100], batch_size=64)
    assert (found.code, found.value) == ("batch_vs_dataset", 2.0)
    assert codes(X, batch_size=1, batch_norm=True) == ["batch_vs_dataset"]
    assert codes(X, batch_size=20, epochs=2, least="info") == ["batch_vs_dataset"]


def test_standardised_categories():
    category = rng.integers(0, 5, 600) * 1.3
    column = (category - category.mean()) / category.std()
    assert codes(np.c_[X, column], least="info") == ["scaled_categorical"]


def test_subsets_are_balanced_seeded_and_shuffled():
    y = np.repeat(np.arange(10), 50)
    rows = data.balanced_subset(y, 300, seed=3)
    assert np.bincount(y[rows]).tolist() == [30] * 10
    assert len(set(rows.tolist())) == 300
    assert not np.array_equal(np.sort(y[rows]), y[rows])
    assert np.array_equal(rows, data.balanced_subset(y, 300, seed=3))
    assert not np.array_equal(rows, data.balanced_subset(y, 300, seed=4))
    assert sorted(np.bincount(y[data.balanced_subset(y, 23)]).tolist()) == [2] * 7 + [3] * 3
    several = list(data.repeat_subsets(y, 20, 3))
    assert len({tuple(r) for r in several}) == 3
    with pytest.raises(ValueError, match="it has 50"):
        data.balanced_subset(y, 501)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="'y' must have the length of X, 600, got length 5"):
        data.check(X, Y[:5])


def test_predictions_for_samples_that_were_held_out():
    y = rng.integers(0, 3, 90)
    p = np.where(np.arange(3) == y[:, None], 0.95, 0.025)
    p[[7, 20, 33, 46, 59]] = np.roll(p[[7, 20, 33, 46, 59]], 1, axis=1)
    held_out = data.OutOfFold(y)
    assert len(held_out.report()) == 0
    for rows in np.array_split(rng.permutation(90), 4):
        held_out.add(rows, p[rows])
    [finding] = held_out.report()
    assert (finding.code, finding.severity) == ("label_noise", "info")
    assert len(finding.evidence["rows"]) == 5
    given = held_out.to_cleanlab()
    assert np.array_equal(given["labels"], y)
    assert np.array_equal(given["pred_probs"], p)
    held_out.add([0], p[:1])
    with pytest.raises(ValueError, match="must cover each of 90 samples once, got 91 rows"):
        held_out.to_cleanlab()
    with pytest.raises(ValueError, match="sum to one in each row"):
        held_out.add([0], 2 * p[:1])
    with pytest.raises(ValueError, match="'probabilities' must have 2 rows"):
        held_out.add([0, 1], p[:1])
