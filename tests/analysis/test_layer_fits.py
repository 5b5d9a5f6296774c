"""Estimators, intervals and p-values of whole models."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import tolerances as tol
from reference import farms as ref_farms
from reference import powerlaw as ref

import pyspectra as ps
from pyspectra import Status


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    return {
        "a.weight": rng.standard_t(3, (80, 60)),
        "b.weight": rng.standard_t(3, (40, 90)),
        "conv.weight": rng.standard_t(3, (24, 20, 2, 2)),
        "flat.weight": np.eye(30),
        "nan.weight": np.full((12, 12), np.nan),
    }


REFERENCES = {
    "csn(12)": lambda x: ref.fit_csn(x, 12),
    "tempbalance_median": ref.fit_tempbalance_median,
    "fix_finger": ref.fit_fix_finger,
    "hill(15)": lambda x: ref.fit_hill(x, 15),
}


@pytest.mark.parametrize("estimator", REFERENCES)
def test_estimators_by_name(estimator: str) -> None:
    report = ps.analyze(state(), estimator=estimator)
    assert report.options.estimator == estimator
    for layer in report.layers:
        assert layer.fit.estimator == estimator
        if layer.name in ("flat", "nan"):
            assert layer.status in (Status.DEGENERATE, Status.NOT_FINITE)
            continue
        want = REFERENCES[estimator](layer.esd.evals)
        assert layer.alpha == pytest.approx(want.alpha, rel=tol.SCALE_RTOL)
        assert layer.fit.index == want.index


def test_tpl_has_a_column_of_its_own() -> None:
    report = ps.analyze(state(), estimator="tpl")
    for layer in report.layers:
        if layer.status is Status.OK:
            assert repr(layer.fit) == repr(ps.fit_powerlaw(layer.esd.evals, estimator="tpl"))
            assert layer.fit.Lambda >= 0.0
    for dialect in ("pyspectra", "weightwatcher"):
        assert "Lambda" in report.rows(dialect)[0]
        assert "Lambda" not in ps.analyze(state()).rows(dialect)[0]


def test_goodness_is_told_by_few_replicates_and_of_each_layer_alone() -> None:
    told = ps.analyze(state())
    sure = ps.analyze(state(), bootstrap=400)
    for layer, exact in zip(told.layers, sure.layers, strict=True):
        if layer.status is Status.OK:
            assert math.isnan(layer.fit.ci[0])
            assert layer.fit.p_value == pytest.approx(exact.fit.p_value, abs=0.35)
            decided = min(layer.fit.p_value, exact.fit.p_value)
            if decided > 0.2 or max(layer.fit.p_value, exact.fit.p_value) < 0.05:
                assert (layer.fit.p_value <= 0.1) == (exact.fit.p_value <= 0.1)
    names = [layer.name for layer in told.layers if layer.status is Status.OK]
    alone = ps.analyze(state(), layers=names[-1])
    assert alone.layers[0].fit == told[names[-1]].fit
    for estimator in ("hill", "tpl"):  # without bounds that a goodness would guard
        report = ps.analyze(state(), estimator=estimator)
        assert all(math.isnan(layer.fit.p_value) for layer in report.layers)
        assert "p_value" not in report.columns()


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("method", ["auto", "svd"])
def test_farms_fits_the_windows_of_each_layer(pool: bool, method: str) -> None:
    weights = state()
    report = ps.analyze(weights, estimator="farms(16, 4, 1)", pool=pool, method=method)
    for layer in report.layers:
        assert layer.fit.estimator == "farms(16, 4, 1)"
        if layer.name in ("flat", "nan"):
            assert layer.status in (Status.DEGENERATE, Status.NOT_FINITE)
            continue
        W = weights[f"{layer.name}.weight"]
        matrices = [W] if W.ndim == 2 else [W[:, :, i, j] for i in range(2) for j in range(2)]
        if layer.slice_id is not None:
            matrices = [matrices[layer.slice_id]]
        pooled = np.sort(np.concatenate([ref_farms.pooled(m, 16, 4, 1.0) for m in matrices]))
        want = ref.fit_ww(pooled)
        assert layer.fit.n == want.n
        assert layer.alpha == pytest.approx(want.alpha, rel=tol.SCALE_RTOL)
        assert layer.fit.xmin == pytest.approx(want.xmin, rel=tol.SCALE_RTOL)
        assert layer.n_tail == layer.fit.n_tail
        # The layer's own eigenvalues are all there still.
        whole = [np.linalg.svd(m, compute_uv=False)[0] ** 2 for m in matrices]
        assert layer.esd.evals[-1] == pytest.approx(max(whole), rel=1e-9)


def uncertain(report: ps.Report) -> dict[str, tuple[float, ...]]:
    return {
        f"{layer.name} {layer.slice_id}": (*layer.fit.ci, layer.fit.p_value)
        for layer in report.layers
        if layer.status is Status.OK
    }


def test_bootstrap_of_every_layer() -> None:
    plain = ps.analyze(state(), goodness=False)
    report = ps.analyze(state(), bootstrap=60)
    for layer, before in zip(report.layers, plain.layers, strict=True):
        if layer.status is Status.OK:
            assert layer.fit.ci[0] < layer.alpha < layer.fit.ci[1]
            assert 0.0 < layer.fit.p_value <= 1.0
        else:
            assert math.isnan(layer.fit.p_value)
        assert math.isnan(before.fit.p_value)
        np.testing.assert_equal(
            (before.alpha, before.fit.D, before.metrics), (layer.alpha, layer.fit.D, layer.metrics)
        )
    assert report.summary() == plain.summary()


@pytest.mark.parametrize("pool", [True, False])
def test_random_numbers_come_from_seed_and_name_alone(pool: bool) -> None:
    weights = state()
    options: dict[str, Any] = {"bootstrap": 30, "seed": 5, "pool": pool}
    first = uncertain(ps.analyze(weights, **options))
    backwards = uncertain(ps.analyze(dict(reversed(weights.items())), **options))
    assert first == backwards
    alone = uncertain(ps.analyze(weights, layers="b", **options))
    assert alone == {"b None": first["b None"]}
    other = uncertain(ps.analyze(weights, **{**options, "seed": 6}))
    assert other != first
    renamed = uncertain(ps.analyze({"z.weight": weights["b.weight"]}, **options))
    assert renamed["z None"] != first["b None"]
    if not pool:
        twins = np.repeat(weights["conv.weight"][:, :, :1, :1], 2, axis=2)
        found = uncertain(ps.analyze({"conv.weight": twins}, **options))
        assert found["conv 0"] != found["conv 1"]


def test_the_clipped_fit_is_the_one_that_is_bootstrapped() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(np.concatenate([np.exp(rng.exponential(0.2, 60)), [2e3, 2.2e3, 2.4e3]]))
    weights = {"w.weight": np.diag(np.sqrt(values))}
    report = ps.analyze(weights, fix_fingers="clip_xmax", bootstrap=200)
    (layer,) = report.layers
    assert layer.raw_fit is not None
    if layer.n_fingers:
        assert math.isnan(layer.raw_fit.p_value)
    assert layer.fit.ci[0] < layer.fit.alpha < layer.fit.ci[1]
    # As wide as the clipped fit's own standard error suggests.
    width = (layer.fit.ci[1] - layer.fit.ci[0]) / layer.fit.alpha_stderr
    assert 2.0 < width < 12.0


def test_exports() -> None:
    report = ps.analyze(state(), bootstrap=30, seed=3, estimator="hill")
    rows = json.loads(report.to_json())
    assert rows["options"]["bootstrap"] == 30
    assert rows["options"]["seed"] == 3
    for row, layer in zip(rows["layers"], report.layers, strict=True):
        if layer.status is Status.OK:
            assert (row["ci_low"], row["ci_high"], row["p_value"]) == (
                *layer.fit.ci,
                layer.fit.p_value,
            )
        else:
            assert row["ci_low"] is row["p_value"] is None
    assert "ci_low" not in ps.analyze(state()).rows()[0]
    assert "ci_low" not in report.rows("weightwatcher")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bootstrap": -1}, "'bootstrap' must be an integer from 0"),
        ({"seed": -3}, r"'seed' must be an integer in \[0, 2\^64\), got -3"),
        ({"bootstrap": 5, "estimator": "farms(8)"}, "'bootstrap' must be 0 with estimator 'farms'"),
        ({"bootstrap": 5, "estimator": "tpl"}, "'bootstrap' must be 0 with estimator 'tpl'"),
        ({"estimator": "hill(0)"}, "'estimator' must have an integer from 1 to"),
        ({"estimator": "hill(9)", "fix_fingers": "clip_xmax"}, "'fix_fingers' must come with"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^analyze: {message}"):
        ps.analyze(state(), **options)


def test_a_seed_is_needed() -> None:
    with pytest.raises(TypeError, match=r"^analyze: 'seed' must be an integer .*, got None"):
        ps.analyze(state(), seed=None)  # type: ignore[arg-type]


def fitted() -> dict[str, np.ndarray]:
    return {name: W for name, W in state().items() if name[0] in "abc"}


@pytest.mark.parametrize("k", [1, 3])
def test_fits_leave_out_the_largest_or_what_lies_above(k: int) -> None:
    plain = ps.analyze(fitted())
    by_count = ps.analyze(fitted(), drop_largest=k)
    for layer, cut in zip(plain.layers, by_count.layers, strict=True):
        x = layer.esd.evals[layer.esd.evals > 1e-5]
        expected = ps.fit_powerlaw(x[:-k])
        assert (cut.alpha, cut.fit.xmax, cut.n_tail) == (
            expected.alpha, expected.xmax, expected.n_tail
        )  # fmt: skip
        by_value = ps.analyze(fitted(), layers=layer.layer_id, xmax=float(x[-k - 1])).layers[0]
        assert by_value.fit == cut.fit
        assert cut.esd.evals[-1] == layer.esd.evals[-1]  # the spectrum itself is whole
    assert '"drop_largest": ' in by_count.to_json()


@pytest.mark.parametrize("cut", [{"drop_largest": 10_000}, {"xmax": 1e-9}])
def test_a_cut_beyond_the_spectrum_leaves_nothing_to_fit(cut: dict[str, Any]) -> None:
    assert {x.status for x in ps.analyze(fitted(), **cut).layers} == {Status.TOO_FEW_POINTS}


def test_xmax_is_a_value_whatever_its_type() -> None:
    """It once left the ten largest out for 10, and what lies above 10.0 for 10.0."""
    whole, real = ps.analyze(fitted(), xmax=1000), ps.analyze(fitted(), xmax=1000.0)
    assert [x.fit for x in whole.layers] == [x.fit for x in real.layers]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"xmax": 0}, ValueError, "'xmax' must be positive and finite, got 0"),
        ({"xmax": math.inf}, ValueError, "'xmax' must be positive and finite, got inf"),
        ({"xmax": "force"}, TypeError, "'xmax' must be positive and finite, got 'force'"),
        ({"xmax": True}, TypeError, "'xmax' must be positive and finite, got True"),
        ({"xmax": 2, "fix_fingers": "clip_xmax"}, ValueError, "'xmax' must not come with 'fix_f"),
        ({"drop_largest": 2, "fix_fingers": "clip_xmax"}, ValueError, "'drop_largest' must not"),
        ({"xmax": 2, "estimator": "farms(8)"}, ValueError, "'xmax' must not come with estimator"),
    ],
)
def test_bad_xmax(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^analyze: {words}"):
        ps.analyze(state(), **options)
