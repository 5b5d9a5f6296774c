"""Two models side by side: differences with errors, outliers by name, ranking or none."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
import real_models
from truth import cases

import pyspectra as ps
from pyspectra.report.compared_layers import mean_shift


def tail(exponent: float, seed: int, N: int = 80, M: int = 64) -> np.ndarray:
    """A matrix whose singular values have a power-law tail."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((n, M)))[0] for n in (N, M))
    return (u * (1.0 + rng.pareto(2.0 * (exponent - 1.0), M))) @ v.T


def model(exponent: float, seed: int, layers: int = 4) -> dict[str, np.ndarray]:
    return {f"block.{i}.weight": tail(exponent, 10 * seed + i) for i in range(layers)}


def test_what_differs_is_found_and_said_with_its_error() -> None:
    found = ps.compare(model(4.0, 1), model(2.2, 2), names=("early", "late"))
    summary = found.summary()
    assert summary["n_compared"] == 4
    assert summary["alpha_shift"] == pytest.approx(summary["alpha_b"] - summary["alpha_a"])
    assert summary["alpha_shift_high"] < 0.0
    row = found["block.0"]
    a, b = row.a.fit, row.b.fit
    assert row.alpha_shift == b.alpha - a.alpha
    assert row.alpha_shift_stderr == pytest.approx(math.hypot(a.alpha_stderr, b.alpha_stderr))
    z = abs(row.alpha_shift) / row.alpha_shift_stderr
    assert row.p_value == pytest.approx(4 * math.erfc(z / math.sqrt(2.0)))
    assert "late has the lower mean alpha" in found.ranking
    assert "weight decay" in found.ranking
    assert "early" in str(found)
    assert str(found).endswith("no measurement of accuracy: only a test set is.")


def test_a_model_and_its_copy_differ_in_nothing() -> None:
    a = model(3.0, 1)
    found = ps.compare(a, {name: 10.0 * W for name, W in a.items()})
    assert {row.change for row in found} == {"within its error"}
    assert found.alpha_shift.mean == pytest.approx(0.0, abs=1e-6)
    assert found.log_spectral_norm_shift.mean == pytest.approx(1.0)
    assert found.ranking.startswith("No ranking: the mean difference")
    assert "In no layer does alpha differ" in found.text


def test_no_ranking_of_other_architectures_or_too_few_layers() -> None:
    a = model(4.0, 1)
    assert (
        "architectures differ" in ps.compare(a, {**model(2.2, 2), "x.weight": tail(3.0, 9)}).ranking
    )
    wide = {**model(2.2, 2), "block.0.weight": tail(3.0, 9, M=60)}
    assert "architectures differ" in ps.compare(a, wide).ranking
    assert "fewer than 3" in ps.compare(model(4.0, 1, 2), model(2.2, 2, 2)).ranking


def test_layers_without_structure_enter_no_mean_and_are_named() -> None:
    a, b = model(4.0, 1), model(2.2, 2)
    a["block.3.weight"] = np.random.default_rng(0).standard_normal((80, 64))
    found = ps.compare(a, b)
    assert len(found.compared) == 3
    assert found["block.3"].change == "structure in b only"
    assert math.isnan(found["block.3"].p_value)
    assert "Only b shows structure in block.3." in found.text


def test_layers_are_paired_by_the_rule_of_distances_and_slices_by_number() -> None:
    rng = np.random.default_rng(0)
    a = {"conv.weight": rng.standard_normal((40, 30, 2, 2)), "fc.weight": tail(3.0, 1)}
    b = {f"module.{name}": W for name, W in a.items()} | {"module.new.weight": tail(3.0, 2)}
    found = ps.compare(a, b, pool=False)
    assert [row.a.label for row in found] == [*(f"conv[{i}]" for i in range(4)), "fc"]
    assert [row.b.label for row in found] == [*(f"module.conv[{i}]" for i in range(4)), "module.fc"]
    assert (found.only_in_a, found.only_in_b) == ((), ("module.new",))
    assert "without 'module.'" in found.notes[0]
    assert all(row.alpha_shift == 0.0 for row in found)


def test_views_agree(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = ps.compare(model(4.0, 1), model(2.2, 2))
    plain = json.loads(found.to_json(tmp_path / "c.json"))
    assert json.loads((tmp_path / "c.json").read_text()) == plain == found.to_dict()
    assert plain["text"] == found.text
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [float(row["alpha_shift"]) for row in rows] == [x.alpha_shift for x in found]
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_pandas(), pandas.DataFrame)
    from rich.console import Console

    console = Console(record=True, width=80, file=io.StringIO())
    found.print(console)
    text = console.export_text()
    assert "lower" in text
    assert max(map(len, text.splitlines())) <= 80


def test_arguments_are_refused_by_their_own_names() -> None:
    a = model(3.0, 1, 1)
    with pytest.raises(ValueError, match=r"^compare: 'names' must be two strings"):
        ps.compare(a, a, names=("x",))
    with pytest.raises(TypeError, match=r"^compare: 'names' must be two strings"):
        ps.compare(a, a, names="ab")
    nothing_in_common = r"^compare: 'b' must have a layer that the first model has too"
    with pytest.raises(ValueError, match=nothing_in_common):
        ps.compare(a, {"other.weight": tail(3.0, 1)})
    with pytest.raises(TypeError, match=r"^compare: 'b' must be"):
        ps.compare(a, 3)
    with pytest.raises(ValueError, match="'estimator'"):
        ps.compare(a, a, estimator="magic")


def test_mean_shift_is_students() -> None:
    found = mean_shift([1.0, 2.0, 3.0, -2.0])
    assert (found.n, found.mean, found.n_lower, found.n_higher) == (4, 1.0, 1, 3)
    spread = math.sqrt(14.0 / 3.0 / 4.0)  # the quantile of t with 3 degrees of freedom: 3.1824
    assert found.high == pytest.approx(1.0 + 3.182446 * spread, rel=1e-6)
    assert not found.is_clear
    assert math.isnan(mean_shift([1.0, 2.0]).low)


def test_runs_that_differ_by_their_seed_alone_are_seldom_ranked() -> None:
    """The interval is one of 95 %: 10 pairs of seeds of each of two recipes."""
    clear = total = 0
    for run in ("transformer", "separable"):
        reports = [ps.analyze(cases.TRAINED[f"{run}-{seed}"]()) for seed in range(100, 105)]
        for i in range(5):
            for j in range(i):
                both = zip(reports[i].layers, reports[j].layers, strict=True)
                shifts = [
                    x.alpha - y.alpha for x, y in both if x.warning != "no structure detected"
                ]
                clear += mean_shift(shifts).is_clear
                total += 1
    assert total == 20
    assert clear <= 4


def test_hed_v1_and_v2_are_told_apart() -> None:
    found = ps.compare(*real_models.hed_files(), names=("v1", "v2"), goodness=False)
    assert found.equal_architecture
    assert found.alpha_shift.high < -0.2
    assert "v2 has the lower mean alpha" in found.ranking
    outliers = next(
        x for x in found.text.split(". ") if x.startswith("Outliers of v1, alpha above")
    )
    assert "block1.block1_conv1 (17.86, too small to tell)" in outliers
    assert "block4.block4_conv1 (6.26, within its error)" in outliers
    assert "Outliers of v2, alpha above" not in found.text
    # What WeightWatcher says of the two.
    summary = found.summary()
    assert round(summary["alpha_fitted_a"], 2) == 4.67
    assert round(summary["alpha_fitted_b"], 2) == 2.37
    assert (summary["n_above_a"], summary["n_above_b"]) == (2, 0)
    assert "4.67 in v1, above 6 in 2 of 13; 2.37 in v2, above 6 in none of 13" in found.text


def test_a_part_of_a_fused_weight_is_compared_with_the_same_part() -> None:
    rng = np.random.default_rng(0)
    a = {"h.0.attn.c_attn.weight": rng.standard_normal((40, 120)) * rng.pareto(2.0, 120)}
    b = {name: 2.0 * W for name, W in a.items()}
    found = ps.compare(a, b, goodness=False)
    assert len(found) == len(found.a) == 4
    for row in found:
        assert row.a.name == row.b.name
        assert row.log_spectral_norm_shift == pytest.approx(math.log10(2.0))


def test_spectra_norms_and_ranks_are_compared() -> None:
    a, b = model(4.0, 1), model(2.2, 2)
    b["block.1.weight"] = tail(2.2, 7, N=90)
    found = ps.compare(a, b, goodness=False)
    for method in ("ks", "wasserstein", "js"):
        expected = {x.name: x.distance for x in ps.distances(a, b, method).layers}
        for row in found:
            if method != "js" or row.a.shape == row.b.shape:
                assert row.distances[method] == expected[row.a.name]
    row = found["block.0"]
    ranks = [x.metrics["stable_rank"] for x in (row.a, row.b)]
    assert row.stable_rank_ratio == pytest.approx(ranks[1] / ranks[0])
    assert found.summary()["stable_rank_ratio"] == pytest.approx(
        np.exp(np.mean([np.log(x.stable_rank_ratio) for x in found]))
    )
    assert row.rank_shift == 0.0


def test_histogram_and_outliers_count_every_fit() -> None:
    found = ps.compare(model(9.0, 1), model(2.2, 2), goodness=False)
    edges = np.array(found.histogram.edges)
    for counts, alphas, out in zip(
        found.histogram.counts, found.fitted_alphas, found.outliers, strict=True
    ):
        assert sum(counts) == len(alphas) == 4
        assert len(out.above) == sum(alpha > 6.0 for alpha in alphas)
    assert edges[0] <= min(map(min, found.fitted_alphas))
    assert edges[-1] >= max(map(max, found.fitted_alphas))
    assert len(found.outliers[0].above) > 0
    assert found.summary()["n_above_a"] == len(found.outliers[0].above)
    assert f"above 6 in {len(found.outliers[0].above)} of 4" in found.text


def test_a_tuned_model_is_recognised_and_lora_leaves_intruders() -> None:
    rng = np.random.default_rng(5)
    base = {f"block.{i}.weight": tail(3.0, i, 64, 48) for i in range(3)}
    lora, full = {}, {}
    for name, W in base.items():
        pair = rng.standard_normal((64, 2)), rng.standard_normal((2, 48))
        lora[name] = W + 0.5 * pair[0] @ pair[1] / math.sqrt(48.0)
        full[name] = W + 0.01 * rng.standard_normal(W.shape)
    merged, tuned = (ps.compare(base, x, goodness=False) for x in (lora, full))
    for found in (merged, tuned):
        assert found.is_related
        assert found.difference == ps.analyze(
            lora if found is merged else full, base_model=base, goodness=False
        )
        assert "one was trained from the other, or both from a third" in found.text
    assert merged.difference is not None
    assert merged.difference.verdict.label == "low rank"
    assert [x.n_intruders for x in merged] == [2, 2, 2]
    assert "Intruder dimensions: 6 of the 30 leading directions of b" in merged.text
    assert tuned.intruders == ()
    assert "No intruder dimension" in tuned.text
    plain = merged.to_dict()
    assert plain["layers"][0]["intruders"]["indices"] == list(merged.layers[0].intruders.indices)
    assert plain["difference"]["verdict"]["label"] == "low rank"


def test_two_models_of_their_own_are_not_taken_for_a_pair() -> None:
    found = ps.compare(model(3.0, 1), model(3.0, 2), goodness=False)
    assert abs(found.correlation) < 0.1
    assert not found.is_related
    assert found.difference is None
    assert "correlate" not in found.text
    asked = ps.compare(model(3.0, 1), model(3.0, 2), goodness=False, changes=True)
    assert asked.difference is not None
    refused = ps.compare(model(3.0, 1), model(3.0, 1), goodness=False, changes=False)
    assert refused.difference is None
    assert refused.correlation == pytest.approx(1.0)
