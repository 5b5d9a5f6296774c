"""The verdict on models whose truth is known; the table is in benchmarks/truth.md."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.report.problems import is_judged
from truth import cases

CANNOT = "cannot be judged"
JUDGED = ("typical", "heavy-tailed", "light-tailed", "mixed")


@pytest.mark.parametrize("name", cases.TRAINED)
def test_structure_is_seen_in_what_was_trained(name: str) -> None:
    verdict = ps.analyze(cases.TRAINED[name]()).verdict
    assert verdict.label in (*JUDGED, CANNOT)
    if verdict.label == CANNOT:
        assert "and a power law in none (p <= 0.1)" in verdict.text
        assert verdict.n_no_power_law > 0
        assert math.isnan(verdict.mean_alpha)
    assert verdict.structure_p <= 1e-3
    assert "not accuracy" in verdict.text
    assert "well trained" not in verdict.text
    assert "untrained" not in verdict.text


def test_layers_without_a_power_law_leave_the_word_to_no_minority() -> None:
    """HED v2 shows structure in all of its 12 layers, and follows a power law in 4."""
    real_models = pytest.importorskip("real_models")
    verdict = ps.analyze(real_models.hed_v2()).verdict
    assert verdict.n_no_power_law > verdict.n_typical > 0
    assert verdict.label == "mixed"
    assert verdict.text.startswith("Mixed: structure in 12 of 12 layers, and no power law in 8 of")
    assert verdict.text.count("no power law") == 1
    assert "mean alpha" in verdict.text


def test_a_few_layers_without_a_power_law_change_no_word() -> None:
    real_models = pytest.importorskip("real_models")
    verdict = ps.analyze(real_models.minilm_l6()).verdict
    assert verdict.n_no_power_law > 0
    assert verdict.label == "typical"


@pytest.mark.parametrize("name", cases.UNTRAINED)
def test_no_structure_is_seen_in_what_was_not(name: str) -> None:
    pytest.importorskip("torch")
    report = ps.analyze(cases.UNTRAINED[name]())
    assert report.verdict.label == "no structure", report.verdict.text
    assert np.isnan(report.summary()["alpha"]) or report.verdict.n_no_structure > 0


@pytest.mark.parametrize("name", cases.SPOILT)
def test_what_was_spoilt_is_not_praised(name: str) -> None:
    verdict = ps.analyze(cases.SPOILT[name]()).verdict
    assert verdict.label in (*JUDGED, "no structure", "cannot be judged")
    assert verdict.text.endswith("can have the same spectra: this is not accuracy.")


@pytest.mark.parametrize("name", [name for name in cases.SPOILT if name.startswith("lottery")])
def test_a_mask_is_no_network_whose_alpha_has_bounds(name: str) -> None:
    """The mask of a lottery ticket is seen, and its weights, which nobody trained, not praised."""
    report = ps.analyze(cases.SPOILT[name]())
    assert report.verdict.label == ("no structure" if report.verdict.structure_p > 1e-3 else CANNOT)
    if report.verdict.label == CANNOT:
        assert "A mask that training chose is structure" in report.verdict.text
        assert any("mask" in layer.structures for layer in report.layers)
    if "50%" in name:
        assert report.verdict.structure_p <= 1e-3


AGREE = 15


def test_half_of_the_weights_pruned_leave_the_word() -> None:
    """Networks on which the rule was not chosen, without the smaller half of their weights."""
    agree = []
    for run in cases.LATER:
        for seed in range(500, 505):
            name = f"{run}-{seed}"
            report = ps.analyze(cases.pruned_to(0.5, name))
            before = ps.analyze(cases.TRAINED[name]())
            assert report.verdict.structure_p <= 1e-3
            assert not any("mask" in layer.structures for layer in report.layers)
            agree.append(report.verdict.label == before.verdict.label)
            at_error = [
                abs(x.alpha - y.alpha) <= 1.96 * math.hypot(x.fit.alpha_stderr, y.fit.alpha_stderr)
                for x, y in zip(report.layers, before.layers, strict=True)
                if is_judged(x) and is_judged(y)
            ]
            assert all(at_error)
    assert sum(agree) >= AGREE


@pytest.mark.parametrize("name", ["vit-500", "gated-500", "digits_wide-0"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_mask_of_the_smallest_is_told_from_others(name: str, share: float) -> None:
    pruned = cases.pruned_to(share, name)
    names = {s for layer in ps.analyze(pruned).layers for s in layer.structures}
    assert ("pruned" in names, "mask" in names) == ((True, False) if share < 0.6 else (False, True))
    rng = np.random.default_rng(0)
    other = {k: w * (rng.random(w.shape) > share) for k, w in cases.state(name).items()}
    names = {s for layer in ps.analyze(other).layers for s in layer.structures}
    assert "pruned" not in names


def test_at_least_sixty_cases_of_each_truth_and_fresh_ones() -> None:
    assert len(cases.TRAINED) >= 60
    assert len(cases.UNTRAINED) >= 60
    fresh = [name for name in (*cases.TRAINED, *cases.UNTRAINED) if cases.is_fresh(name)]
    assert len(fresh) >= 60
    for architecture in cases.NEW:
        assert sum(name.startswith(f"{architecture}-1") for name in cases.TRAINED) >= 5
    for architecture in cases.LATER:
        assert sum(name.startswith(f"{architecture}-5") for name in cases.TRAINED) >= 5


NAMED = {
    "orthogonal-100": ("layers.0", "orthogonal"),
    "orthogonal_noise-100": ("layers.1", "nearly orthogonal"),
    "identity-100": ("layers.0", "identity"),
    "identity_pure-100": ("layers.1", "identity"),
    "sinusoidal-100": ("positions", "sinusoidal table"),
    "zero_rows-100": ("layers.0", "zero rows or columns"),
    "uncentred-100": ("layers.0", "mean direction"),
    "row_gains-100": ("layers.0", "mixed scales"),
    "column_gains-100": ("layers.0", "mixed scales"),
}


@pytest.mark.parametrize("name", NAMED)
def test_structures_with_a_name_are_recognised(name: str) -> None:
    layer, structure = NAMED[name]
    report = ps.analyze(cases.UNTRAINED[name]())
    assert structure in report[layer].structures
    row = next(row for row in report.rows() if row["name"] == layer)
    assert structure in row["structure"]


def test_low_rank_is_recognised_and_is_structure() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((80, 12)) @ rng.standard_normal((12, 60))
    layer = ps.analyze({"w.weight": W}).layers[0]
    assert layer.null is not None
    assert ("low rank", 12.0) in layer.null.structures
    assert layer.null.p_value < 1e-6


@pytest.mark.parametrize("estimator", ["hill", "tpl", "tempbalance_median"])
def test_no_word_for_alpha_where_bounds_are_not_calibrated(estimator: str) -> None:
    report = ps.analyze(cases.TRAINED["digits-100"](), estimator=estimator)
    assert report.verdict.label == "cannot be judged"
    assert estimator in report.verdict.text
    assert {layer.warning for layer in report.layers} <= {
        "", "too small to tell", "no structure detected"
    }  # fmt: skip


def test_a_verdict_on_layers_that_are_all_flagged_counts_them() -> None:
    weights = cases.TRAINED["digits-100"]()
    report = ps.analyze(weights)
    heavy = [layer.name for layer in report.layers if layer.warning == "heavy tail"]
    verdict = ps.analyze(weights, layers=heavy).verdict
    assert verdict.label == "heavy-tailed"
    assert verdict.n_heavy_tail == len(heavy)


def test_the_test_depends_on_seed_and_name_alone() -> None:
    weights = cases.TRAINED["california-100"]()
    p = [layer.null.p_value for layer in ps.analyze(weights).layers if layer.null]
    reverse = ps.analyze(dict(reversed(weights.items())))
    again = {layer.name: layer.null.p_value for layer in reverse.layers if layer.null}
    assert p == [again[layer.name] for layer in ps.analyze(weights).layers]
