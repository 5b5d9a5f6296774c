"""`analyze` end to end: what is reported, what is skipped and why, every way out of a report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tolerances as tol
from reference import powerlaw as ref_powerlaw

import pyspectra as ps
from pyspectra import LayerReport, Report, Status, WeightSource, ops
from pyspectra._arrays import HostArray
from pyspectra._support import progress as progress_module
from pyspectra._support.files import write_text
from pyspectra._support.progress import Work
from pyspectra.analysis import analyze as analyze_module
from pyspectra.analysis import engine as engines
from pyspectra.metrics import METRICS
from pyspectra.weights.catalogue import Contents, TensorEntry

Array = np.ndarray


def heavy(rows: int, cols: int, seed: int = 0) -> Array:
    """A matrix with a heavy-tailed spectrum."""
    return np.random.default_rng([rows, cols, seed]).standard_t(2.5, (rows, cols)) * 0.1


def learned(rows: int, cols: int, seed: int = 0) -> Array:
    """A heavy-tailed spectrum whose columns depend on each other, as those of a trained layer."""
    rng = np.random.default_rng([rows, cols, seed, 1])
    turn = np.linalg.qr(rng.standard_normal((cols, cols)))[0]
    scales = np.abs(rng.standard_t(2.0, cols)) ** 0.7
    return (rng.standard_normal((rows, cols)) * scales) @ turn


def random(rows: int, cols: int, seed: int = 0) -> Array:
    return np.random.default_rng([rows, cols, seed]).standard_normal((rows, cols)) / rows**0.5


def weights() -> dict[str, Array]:
    """A small model of every kind that a state dict can tell: ids 1 to 5, norm included."""
    rng = np.random.default_rng(8)
    return {
        "embed_tokens.weight": heavy(60, 24).astype(np.float32),
        "conv.weight": rng.standard_normal((16, 12, 3, 2)).astype(np.float32),
        "conv.bias": np.zeros(16, np.float32),
        "norm.weight": np.ones(16, np.float32),
        "fc.weight": heavy(40, 30).astype(np.float32),
        "fc.bias": np.ones(40, np.float32),
        "head.weight": random(10, 40).astype(np.float32),
    }


def by_name(report: Report) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in report.layers}


def reasons(report: Report) -> dict[str, str]:
    return {s.name: s.reason for s in report.skipped}


def numbers(report: Report) -> list[tuple[Any, ...]]:
    """All that was computed, exactly (repr tells NaN from NaN no more than it should)."""
    return [
        (x.name, x.slice_id, x.esd.evals.tobytes(), repr(x.fit), repr(dict(x.metrics)), x.status)
        for x in report.layers
    ]


def expected_evals(W: Array) -> Array:
    return np.linalg.svd(W.astype(np.float64), compute_uv=False)[::-1] ** 2


# --- the same model, however it comes -----------------------------------------------------------


def test_a_state_dict() -> None:
    state = weights()
    kept = {k: v.copy() for k, v in state.items()}
    report = ps.analyze(state)
    assert [(x.layer_id, x.name, x.kind) for x in report.layers] == [
        (1, "embed_tokens", "embedding"),
        (2, "conv", "conv2d"),
        (4, "fc", "linear"),
        (5, "head", "linear"),
    ]
    assert set(reasons(report)) == {"conv.bias", "norm", "fc.bias"}
    assert reasons(report)["norm"] == "1-D tensor: no spectrum"
    for layer in report.layers:
        W = state[f"{layer.name}.weight"]
        assert layer.shape == W.shape
        assert layer.dtype == "float32"
        assert layer.status is Status.OK
        assert layer.alpha == layer.fit.alpha
        if W.ndim == 2:
            np.testing.assert_allclose(
                layer.esd.evals, expected_evals(W), rtol=0.0, atol=tol.ESD_GRAM_RTOL * W.size
            )
            assert sorted(W.shape) == [layer.esd.M, layer.esd.N]
        want = ref_powerlaw.fit_ww(layer.esd.evals)
        assert (layer.fit.index, layer.n_tail) == (want.index, want.n_tail)
        assert layer.alpha == pytest.approx(want.alpha, rel=tol.ALPHA_RTOL)
        assert set(layer.metrics) == {m.name for m in METRICS.values() if m.group == "default"}
    for name, value in state.items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_module_and_every_file_format_give_the_same_numbers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.numpy")
    nn = torch.nn
    state = weights()

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed_tokens = nn.Embedding(60, 24)
            self.conv = nn.Conv2d(12, 16, (3, 2))
            self.norm = nn.BatchNorm2d(16, track_running_stats=False)
            self.fc = nn.Linear(30, 40)
            self.head = nn.Linear(40, 10, bias=False)

    model = Model()
    tensors = {k: torch.tensor(v) for k, v in state.items()}
    model.load_state_dict(tensors, strict=False)
    safetensors.save_file(state, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "model.pt")
    np.savez(tmp_path / "model.npz", **state)

    want = numbers(ps.analyze(state))
    assert numbers(ps.analyze(model)) == want
    assert numbers(ps.analyze(tensors)) == want
    with ps.open_weights(state) as source:
        assert numbers(ps.analyze(source)) == want
        assert numbers(ps.analyze(source)) == want  # a source of the caller's stays open
    for name in ("model.safetensors", "model.pt", "model.npz"):
        report = ps.analyze(tmp_path / name)
        assert sorted(numbers(report)) == sorted(want), name
        assert report.source.endswith(name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_half_precision_weights_are_read_exactly(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    half = torch.tensor(heavy(40, 30)).to(getattr(torch, dtype))
    exact = half.to(torch.float64).numpy()
    a, b = (ps.analyze({"fc.weight": w}).layers[0] for w in (half, exact))
    assert a.dtype == dtype
    np.testing.assert_array_equal(a.esd.evals, b.esd.evals)
    assert repr(a.fit) == repr(b.fit)


def test_the_report_does_not_depend_on_threads() -> None:
    state = weights() | {"low.weight": np.outer(np.arange(30.0), np.arange(20.0))}
    want = numbers(ps.analyze(state))
    for threads in (1, 3):
        ps.set_num_threads(threads)
        assert numbers(ps.analyze(state)) == want


@pytest.mark.parametrize("doubles", [0, 700, 2000])  # every layer alone; some together
def test_the_report_does_not_depend_on_what_is_solved_together(
    doubles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the last bits of eigenvalues, which may depend on how many matrices are in a batch."""
    state = weights() | {"low.weight": np.outer(np.arange(30.0), np.arange(20.0))}
    want = ps.analyze(state)
    monkeypatch.setattr(engines, "PENDING_BYTES", 8 * doubles)
    got = ps.analyze(state)
    assert len(got.layers) == 5
    for a, b in zip(got.layers, want.layers, strict=True):
        assert (a.name, a.status, a.esd.method) == (b.name, b.status, b.esd.method)
        assert (a.fit.index, a.n_tail) == (b.fit.index, b.n_tail)
        atol = tol.eigvals_atol(b.esd.M, float(b.esd.evals[-1]))
        np.testing.assert_allclose(a.esd.evals, b.esd.evals, rtol=0.0, atol=atol)


# --- selection and gates ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (4, {"fc"}),
        ("fc", {"fc"}),
        ([1, "head"], {"embed_tokens", "head"}),
        ("*d", {"head"}),
        ("?c", {"fc"}),
        (["*o*", 5], {"embed_tokens", "conv", "head"}),
        (("fc", "fc", 4), {"fc"}),
        (None, {"embed_tokens", "conv", "fc", "head"}),
    ],
)
def test_layers_are_chosen_by_id_name_and_pattern(layers: Any, names: set[str]) -> None:
    report = ps.analyze(weights(), layers=layers)
    assert {x.name for x in report.layers} == names
    unchosen = {k for k, v in reasons(report).items() if v == "not selected by 'layers'"}
    assert unchosen == {"embed_tokens", "conv", "fc", "head"} - names


@pytest.mark.parametrize(
    ("layers", "unknown"), [(3, "3"), (99, "99"), ("fc.bias", "fc.bias"), (["fc", "x*"], "x")]
)
def test_layers_that_the_model_has_not_are_an_error(layers: Any, unknown: str) -> None:
    with pytest.raises(ValueError, match=rf"^analyze: 'layers' .*\['?{unknown}.*Hint: .*'embed"):
        ps.analyze(weights(), layers=layers)


def test_layers_with_too_few_or_too_many_eigenvalues_are_listed() -> None:
    report = ps.analyze(weights(), min_evals=24, max_evals=30)
    assert set(by_name(report)) == {"embed_tokens", "fc"}
    assert reasons(report)["head"] == "10 eigenvalues, fewer than min_evals = 24"
    assert reasons(report)["conv"] == "72 eigenvalues, more than max_evals = 30"
    # Unpooled, a slice of the convolution counts by itself.
    assert "conv" in by_name(ps.analyze(weights(), min_evals=12, max_evals=30, pool=False))
    assert "head" in by_name(ps.analyze(weights(), min_evals=10))
    assert "head" not in by_name(ps.analyze(weights(), min_evals=11))
    assert "fc" not in by_name(ps.analyze(weights(), max_evals=29))


def test_gates_may_leave_nothing() -> None:
    report = ps.analyze(weights(), min_evals=1000)
    assert report.layers == ()
    assert report.verdict.label == "cannot be judged"
    assert math.isnan(report.summary()["alpha"])
    assert len(report.to_csv().splitlines()) == 1
    json.loads(report.to_json())


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"estimator": "mle"}, ValueError, "estimator"),
    ({"method": "qr"}, ValueError, "method"),
    ({"fix_fingers": "clip"}, ValueError, "fix_fingers"),
    ({"fix_fingers": "clip_xmax", "estimator": "hill"}, ValueError, "fix_fingers"),
    ({"min_evals": 0}, ValueError, "min_evals"),
    ({"min_evals": 2.0}, TypeError, "min_evals"),
    ({"max_evals": -5}, ValueError, "max_evals"),
    ({"max_evals": True}, TypeError, "max_evals"),
    ({"drop_largest": -1}, ValueError, "drop_largest"),
    ({"drop_largest": 1.0}, TypeError, "drop_largest"),
    ({"progress": "yes"}, ValueError, "progress"),
    ({"detx": 1}, TypeError, "detx"),
    ({"mp_fit": "ww"}, TypeError, "mp_fit"),
    ({"randomize": 1}, TypeError, "randomize"),
    ({"vectors": None}, TypeError, "vectors"),
    ({"seed": 1.0}, TypeError, "seed"),
    ({"seed": True}, TypeError, "seed"),
    ({"pool": "no"}, TypeError, "pool"),
    ({"layers": [1.5]}, TypeError, "layers"),
    ({"layers": True}, TypeError, "layers"),
]


@pytest.mark.parametrize(("options", "error", "name"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(
    options: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=f"^analyze: '{name}' .*got "):
        ps.analyze(weights(), **options)


# --- convolutions, fingers, detx, methods -------------------------------------------------------


def test_slices_are_pooled_or_reported_one_by_one() -> None:
    state = weights()
    W = state["conv.weight"]
    slices = [expected_evals(W[:, :, i, j]) for i in range(3) for j in range(2)]
    pooled = by_name(ps.analyze(state))["conv"]
    assert (pooled.rf, pooled.slice_id, pooled.esd.n_matrices) == (6, None, 6)
    assert (pooled.esd.N, pooled.esd.M) == (16, 12)
    np.testing.assert_allclose(
        pooled.esd.evals, np.sort(np.concatenate(slices)), rtol=tol.ESD_SMALL_RTOL
    )
    assert len(pooled.esd.matrix_evals) == 6
    report = ps.analyze(state, pool=False)
    rows = [x for x in report.layers if x.name == "conv"]
    assert [x.slice_id for x in rows] == list(range(6))
    for row, evals in zip(rows, slices, strict=True):
        assert (row.rf, row.esd.n_matrices) == (6, 1)
        np.testing.assert_allclose(row.esd.evals, evals, rtol=tol.ESD_SMALL_RTOL)
    assert [x.name for x in report.layers] == ["embed_tokens", *["conv"] * 6, "fc", "head"]
    assert [row["slice_id"] for row in report.rows()][:3] == [None, 0, 1]


def test_slices_of_a_convolution_in_one_dimension_are_pooled() -> None:
    W = np.random.default_rng(0).standard_normal((16, 12, 3))
    pooled = ps.analyze({"conv.weight": W}).layers[0]
    assert (pooled.kind, pooled.rf) == ("conv1d", 3)
    want = np.sort(np.concatenate([expected_evals(W[:, :, i]) for i in range(3)]))
    np.testing.assert_allclose(pooled.esd.evals, want, rtol=tol.ESD_SMALL_RTOL)


def test_one_bad_slice_spoils_its_layer_or_its_row() -> None:
    state = {"conv.weight": np.random.default_rng(0).standard_normal((16, 12, 2, 2))}
    clean = ps.analyze(state, pool=False)
    state["conv.weight"][3, 4, 1, 0] = np.nan
    assert ps.analyze(state).layers[0].status is Status.NOT_FINITE
    rows = ps.analyze(state, pool=False).layers
    assert [x.status for x in rows] == [
        Status.OK, Status.OK, Status.NOT_FINITE, Status.OK
    ]  # fmt: skip
    for i in (0, 1, 3):
        np.testing.assert_array_equal(rows[i].esd.evals, clean.layers[i].esd.evals)


def test_a_slice_is_measured_by_itself() -> None:
    """A row of one slice is that of the slice as a layer, whatever the others hold."""
    rng = np.random.default_rng(0)
    slices = [rng.standard_normal((40, 30)), rng.standard_t(5, (40, 30)), np.eye(40, 30)]
    state = {"conv.weight": np.stack(slices, axis=2)}
    alone = ps.analyze({f"l{i}.weight": W for i, W in enumerate(slices)}).layers
    rows = ps.analyze(state, pool=False).layers
    assert rows[0].measured["kurtosis"] != rows[1].measured["kurtosis"]
    state["conv.weight"][:, :, 2] = np.nan
    broken = ps.analyze(state, pool=False).layers
    for i in (0, 1):
        assert rows[i].measured["kurtosis"] == alone[i].measured["kurtosis"]
        assert broken[i].measured["kurtosis"] == alone[i].measured["kurtosis"]


def test_fingers_are_clipped_and_counted() -> None:
    state = {f"l{i}.weight": random(60, 40, i) for i in range(30)}
    raw = ps.analyze(state, goodness=False)
    fixed = ps.analyze(state, fix_fingers="clip_xmax", goodness=False)
    counts = set()
    for a, b in zip(raw.layers, fixed.layers, strict=True):
        assert a.raw_fit is None
        assert a.n_fingers is None
        assert repr(b.raw_fit) == repr(a.fit)
        want, count = ref_powerlaw.clip_xmax(a.esd.evals)
        assert b.n_fingers == count
        assert b.alpha == pytest.approx(want.alpha, rel=tol.ALPHA_RTOL)
        assert b.n_tail == np.count_nonzero(b.esd.evals >= want.xmin)
        assert b.metrics["alpha_weighted"] == pytest.approx(
            want.alpha * math.log10(a.esd.evals[-1]), rel=tol.METRIC_RTOL, abs=tol.METRIC_ATOL
        )
        counts.add(count)
    assert 0 in counts
    assert len(counts) > 1
    assert {"n_fingers", "raw_alpha"} <= set(fixed.rows()[0])
    assert not {"n_fingers", "raw_alpha"} & set(raw.rows()[0])


def test_detx_is_evaluated_on_demand() -> None:
    detx = {m.name for m in METRICS.values() if m.group == "detx"}
    assert not detx & set(ps.analyze(weights()).layers[0].metrics)
    for layer in ps.analyze(weights(), detx=True).layers:
        assert detx <= set(layer.metrics)
        assert layer.metrics["ERG_gap"] == layer.metrics["detX_num"] - layer.n_tail


def test_detx_of_a_model_with_a_zero_layer() -> None:
    report = ps.analyze(weights() | {"zero.weight": np.zeros((20, 10))}, detx=True)
    assert by_name(report)["zero"].metrics["detX_num"] == 0


def test_the_estimator_is_passed_on() -> None:
    for layer in ps.analyze(weights(), estimator="hill").layers:
        want = ref_powerlaw.fit_hill(layer.esd.evals)
        assert layer.fit.estimator == "hill"
        assert layer.alpha == pytest.approx(want.alpha, rel=tol.ALPHA_RTOL)


def test_the_method_that_served_is_recorded() -> None:
    low = random(30, 20)
    low[:, 7] = low[:, 3]
    state = {"full.weight": random(30, 20, 1), "low.weight": low}
    for method, want in (("auto", ["gram", "svd"]), ("gram", ["gram"] * 2), ("svd", ["svd"] * 2)):
        report = ps.analyze(state, method=method)
        assert [x.esd.method for x in report.layers] == want
        assert [row["method"] for row in report.rows()] == want
    auto = by_name(ps.analyze(state))
    assert auto["low"].metrics["matrix_rank"] == 19
    assert auto["low"].metrics["rank_loss"] == 1
    assert auto["full"].metrics["matrix_rank"] == 20


@pytest.mark.parametrize("pool", [True, False])
def test_matrices_of_which_a_decomposition_is_foreseen_are_solved_beside_the_others(
    pool: bool,
) -> None:
    conv = random(2 * 384 * 384, 1).reshape(384, 384, 2, 1)
    conv[:, :, 1, 0] = random(384, 90, 1) @ random(90, 384, 2)
    state = {"conv.weight": conv, "low.weight": random(384, 99, 3) @ random(99, 384, 4)}
    report = ps.analyze(state, pool=pool, goodness=False, randomize=True)
    slices = [ps.esd(conv[:, :, i, 0]) for i in range(2)]
    assert [one.method for one in slices] == ["gram", "svd"]
    for layer in report.layers:
        assert layer.esd.method == "svd"
        if layer.name == "low":
            want = ps.esd(state["low.weight"]).evals
        elif pool:
            want = np.sort(np.concatenate([one.evals for one in slices]))
        else:
            want = slices[layer.slice_id or 0].evals
        np.testing.assert_array_equal(layer.esd.evals, want)
        assert math.isfinite(layer.metrics["rand_distance"])


# --- hostile layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["auto", "gram", "svd"])
def test_a_layer_that_is_not_finite_spoils_nothing_else(poison: float, method: str) -> None:
    state = weights()
    clean = ps.analyze(state, method=method)
    bad = heavy(40, 30, 5)
    bad[3, 2] = poison
    report = ps.analyze(state | {"bad.weight": bad}, method=method)
    layer = by_name(report)["bad"]
    assert layer.status is layer.fit.status is Status.NOT_FINITE
    assert math.isnan(layer.alpha)
    assert layer.metrics == {}
    assert layer.warning == ""
    assert [x for x in numbers(report) if x[0] != "bad"] == numbers(clean)
    assert report.summary()["n_failed"] == 1
    np.testing.assert_equal(report.summary()["alpha"], clean.summary()["alpha"])
    assert "not finite" in report.verdict.text
    assert {row["name"]: row["status"] for row in report.rows()}["bad"] == "not_finite"


def test_layers_without_a_tail_have_a_status_and_their_other_metrics() -> None:
    u, v = np.arange(1.0, 21.0), np.arange(1.0, 13.0)
    state = {
        "zero.weight": np.zeros((20, 12)),
        "one.weight": np.outer(u, v),
        "flat.weight": 2.0 * np.eye(16),
        "ok.weight": heavy(40, 30),
    }
    got = by_name(ps.analyze(state))
    assert {k: x.status for k, x in got.items()} == {
        "zero": Status.TOO_FEW_POINTS,
        "one": Status.TOO_FEW_POINTS,
        "flat": Status.DEGENERATE,
        "ok": Status.OK,
    }
    for name in ("zero", "one", "flat"):
        assert math.isnan(got[name].alpha)
        assert got[name].esd.status is Status.OK
        assert math.isnan(got[name].metrics["log_alpha_norm"])
    assert got["zero"].metrics["log_norm"] == -math.inf
    assert got["one"].metrics["matrix_rank"] == 1
    assert got["one"].metrics["norm"] == pytest.approx(float((u @ u) * (v @ v)))
    assert got["one"].metrics["stable_rank"] == pytest.approx(1.0)
    assert got["flat"].metrics["entropy"] == pytest.approx(1.0, abs=tol.FLAT_ENTROPY_ATOL)


def test_a_row_vector_is_skipped_by_its_size_or_analysed_on_demand() -> None:
    state = {"row.weight": np.ones((1, 9)), "ok.weight": heavy(20, 10)}
    assert "1 eigenvalues, fewer" in reasons(ps.analyze(state))["row"]
    row = by_name(ps.analyze(state, min_evals=1))["row"]
    assert row.status is Status.TOO_FEW_POINTS
    np.testing.assert_allclose(row.esd.evals, [9.0])
    assert (row.esd.N, row.esd.M, row.esd.Q) == (9, 1, 9.0)


def test_a_layer_whose_squares_overflow_has_a_status_and_no_fit() -> None:
    state = {"huge.weight": random(20, 12) * 1e160, "ok.weight": heavy(40, 30)}
    report = ps.analyze(state, detx=True)
    assert [x.status for x in report.layers] == [Status.NOT_FINITE, Status.OK]
    assert math.isnan(report.layers[0].alpha)
    json.loads(report.to_json(), parse_constant=refuse)


def test_an_empty_model_is_an_error_with_its_reason() -> None:
    with pytest.raises(ValueError, match=r"^analyze: 'model_or_path' must .* which is empty"):
        ps.analyze({})


def test_a_model_of_biases_is_an_error_with_its_reasons() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(5))
    with pytest.raises(
        ValueError,
        match=r"must hold a weight matrix, got .* none among its .*2 x bias: not a",
    ):
        ps.analyze(model)


def source_of(
    *loaders: tuple[str, tuple[int, ...], Callable[[], HostArray]],
) -> WeightSource:
    entries = [TensorEntry(f"{n}.weight", shape, "float64", load) for n, shape, load in loaders]
    return WeightSource("mine", Contents("made up", entries))


def good(W: Array) -> Callable[[], HostArray]:
    return lambda: HostArray(W, "float64")


@pytest.mark.parametrize(
    "error", [OSError, MemoryError, RuntimeError, KeyError, ValueError, ps.FormatError]
)
@pytest.mark.parametrize("method", ["auto", "svd"])
def test_a_layer_that_cannot_be_read_is_listed_and_the_rest_goes_on(
    error: type[Exception], method: str
) -> None:
    def fails() -> HostArray:
        raise error("the disk is gone")

    W = heavy(40, 30)
    report = ps.analyze(
        source_of(("a", (40, 30), good(W)), ("b", (50, 20), fails), ("c", (40, 30), good(W))),
        method=method,
        goodness=False,  # whose random numbers follow names
    )
    assert [x.name for x in report.layers] == ["a", "c"]
    assert "could not be read: " in reasons(report)["b"]
    assert "the disk is gone" in reasons(report)["b"]
    assert numbers(report)[0][2:] == numbers(report)[1][2:]


def test_a_layer_that_cannot_be_read_again_for_its_svd_is_listed() -> None:
    low = np.outer(np.ones(40), np.arange(1.0, 31.0))
    calls: list[int] = []

    def once() -> HostArray:
        calls.append(1)
        if len(calls) > 1:
            raise OSError("unplugged")
        return HostArray(low, "float64")

    W = heavy(40, 30)
    report = ps.analyze(source_of(("a", (40, 30), once), ("b", (40, 30), good(W))))
    assert [x.name for x in report.layers] == ["b"]
    assert "unplugged" in reasons(report)["a"]
    assert len(calls) == 2


def test_a_layer_that_changed_its_shape_is_listed() -> None:
    W = heavy(40, 30)
    report = ps.analyze(source_of(("a", (30, 40), good(W)), ("b", (40, 30), good(W))))
    assert [x.name for x in report.layers] == ["b"]
    assert "changed since the source was opened" in reasons(report)["a"]


def test_an_error_that_is_no_reading_error_is_not_swallowed() -> None:
    def interrupted() -> HostArray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ps.analyze(source_of(("a", (40, 30), interrupted)))


# --- progress -----------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [True, False, "auto"])
def test_progress_changes_no_number_and_stays_off_standard_output(
    progress: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    want = numbers(ps.analyze(weights(), progress=False))
    assert numbers(ps.analyze(weights(), progress=progress)) == want
    captured = capsys.readouterr()
    assert captured.out == ""
    if progress is not True:  # standard error is no terminal here
        assert captured.err == ""


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor(1)])
@pytest.mark.parametrize("bootstrap", [0, 7])
def test_the_bar_hears_of_all_work_of_every_layer(
    bootstrap: int, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    seen: list[str] = []
    done: dict[str, float] = {}
    totals: dict[str, float] = {}

    def spent(work: Mapping[str, float], label: str = "") -> None:
        seen.extend([label] if label else [])
        for kind, amount in work.items():
            done[kind] = done.get(kind, 0.0) + amount

    @contextlib.contextmanager
    def bar(work: Work, description: str, progress: bool | str) -> Iterator[Any]:
        totals.update(work.totals)
        yield spent

    monkeypatch.setattr(analyze_module, "work_bar", bar)
    report = ps.analyze(weights(), min_evals=12, bootstrap=bootstrap, executor=executor)
    assert sorted(seen) == sorted(["embed_tokens", "conv", "fc"])
    assert {kind: done.get(kind, 0.0) for kind in totals} == pytest.approx(totals)
    sizes = [(layer.esd.N, layer.esd.M, layer.esd.n_matrices) for layer in report.layers]
    assert totals["gram"] == sum(n * N * M**2 for N, M, n in sizes)
    assert totals["bytes"] == 4 * sum(N * M * n for N, M, n in sizes)
    assert (totals["draws"] > 0) == (bootstrap > 0)


def test_the_bar_appears_once_the_work_has_lasted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "DELAY_SECONDS", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress_module.progress_bar(2, "analysing", True) as advance:
        advance("first")
        advance("second")
    assert "analysing" in capsys.readouterr().err
    with progress_module.progress_bar(2, "analysing", False) as advance:
        advance("first")
    assert capsys.readouterr().err == ""


# --- ways out -----------------------------------------------------------------------------------


def mixed_report(**options: Any) -> Report:
    state = weights() | {
        "zero.weight": np.zeros((20, 12)),
        "bad.weight": np.full((9, 9), np.nan),
        "flat.weight": 2.0 * np.eye(16),
    }
    return ps.analyze(state, **options)


def plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@pytest.mark.parametrize("dialect", ["pyspectra", "weightwatcher"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": False},
        {"fix_fingers": "clip_xmax"},
        {"layers": "fc", "detx": True},
        {"bootstrap": 20},
        {"estimator": "tpl"},
    ],
)
def test_csv_round_trip(dialect: str, options: dict[str, Any], tmp_path: Path) -> None:
    report = mixed_report(**options)
    text = report.to_csv(tmp_path / "report.csv", dialect)
    assert (tmp_path / "report.csv").read_text(encoding="utf-8") == text
    found = list(csv.DictReader(io.StringIO(text)))
    rows = report.rows(dialect)
    assert len(found) == len(rows) == len(report.layers)
    for got, want in zip(found, rows, strict=True):
        assert list(got) == list(want)
        for column, value in want.items():
            if isinstance(value, float):
                np.testing.assert_equal(float(got[column]), float(value))
            else:
                assert got[column] == ("" if value is None else str(value))


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": False, "layers": ["conv", "zero"]},
        {"layers": [1, 2], "detx": True},
        {"bootstrap": 20, "estimator": "csn(8)"},
    ],
)
def test_json_round_trip(options: dict[str, Any], tmp_path: Path) -> None:
    report = mixed_report(**options)
    text = report.to_json(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == text
    found = json.loads(text, parse_constant=refuse)
    assert found == report.to_dict()
    assert found["schema"] == "pyspectra.report/1"
    assert found["options"]["pool"] is options.get("pool", True)
    assert found["layers"] == [{k: plain(v) for k, v in row.items()} for row in report.rows()]
    assert [s["name"] for s in found["skipped"]] == [s.name for s in report.skipped]
    assert all(s["reason"] for s in found["skipped"])
    assert found["verdict"]["label"] == report.verdict.label
    assert found["summary"]["n_layers"] == len(report.layers)


@pytest.mark.parametrize("dialect", ["pyspectra", "weightwatcher"])
def test_pandas_holds_the_same_rows(dialect: str) -> None:
    pytest.importorskip("pandas")
    report = mixed_report()
    frame = report.to_pandas(dialect)
    rows = report.rows(dialect)
    assert list(frame.columns) == list(rows[0])
    assert len(frame) == len(rows)
    for column in ("alpha", "log_norm", "stable_rank", "xmin"):
        np.testing.assert_array_equal(
            frame[column].to_numpy(dtype=float), [float(row[column]) for row in rows]
        )
    assert list(frame["name"]) == [row["name"] for row in rows]


def test_unknown_dialects_are_refused() -> None:
    report = ps.analyze(weights())
    for call in (report.rows, report.summary, report.to_pandas):
        with pytest.raises(ValueError, match=r"'dialect' must be one of .* got 'latin'"):
            call("latin")
    with pytest.raises(ValueError, match="'dialect' must be one of"):
        report.to_csv(dialect="latin")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = ps.analyze(weights())
    path = tmp_path / "report.json"
    report.to_json(path)
    old = path.read_text(encoding="utf-8")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        for write in (report.to_json, report.to_csv):
            with pytest.raises(OSError, match="No space left"):
                write(path)
    assert path.read_text(encoding="utf-8") == old
    assert os.listdir(tmp_path) == ["report.json"]


def test_half_a_surrogate_pair_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x\ud800")
    assert (tmp_path / "a").read_text(encoding="utf-8") == r"x\ud800"


def test_a_write_replaces_and_names_a_missing_folder(tmp_path: Path) -> None:
    report = ps.analyze(weights())
    path = tmp_path / "report.csv"
    path.write_text("old", encoding="utf-8")
    report.to_csv(str(path))
    assert path.read_text(encoding="utf-8").startswith("layer_id,name,")
    assert os.listdir(tmp_path) == ["report.csv"]
    with pytest.raises(FileNotFoundError):
        report.to_csv(tmp_path / "none" / "report.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    plain_file = tmp_path / "plain"
    plain_file.write_text("", encoding="utf-8")
    ps.analyze(weights()).to_json(path)
    assert path.stat().st_mode == plain_file.stat().st_mode


def test_summary_leaves_failed_fits_out_and_the_other_dialect_averages_them_in() -> None:
    state = {
        "a.weight": learned(60, 40), "b.weight": learned(50, 50), "flat.weight": 2.0 * np.eye(16)
    }  # fmt: skip
    report = ps.analyze(state)
    a, b, flat = report.layers
    assert flat.status is Status.DEGENERATE
    own = report.summary()
    assert (own["n_layers"], own["n_failed"]) == (3, 1)
    assert own["alpha"] == pytest.approx((a.alpha + b.alpha) / 2.0)
    log_norm = [float(x.metrics["log_norm"]) for x in report.layers]
    assert own["log_norm"] == pytest.approx(sum(log_norm) / 3.0)
    ww = report.summary("weightwatcher")
    assert ww["alpha"] == pytest.approx((a.alpha + b.alpha - 1.0) / 3.0)
    assert ww["log_norm"] == pytest.approx(own["log_norm"])
    weighted = [float(x.metrics["alpha_weighted"]) for x in (a, b)]
    assert own["alpha_weighted"] == pytest.approx(sum(weighted) / 2.0)
    assert ww["alpha_weighted"] == pytest.approx((sum(weighted) - math.log10(4.0)) / 3.0)
    assert ww["log_spectral_norm"] == pytest.approx(2.0 * own["log_spectral_norm"])


def test_the_dialect_of_weightwatcher() -> None:
    report = mixed_report()
    own = {row["name"]: row for row in report.rows()}
    ww = {row["name"]: row for row in report.rows("weightwatcher")}
    for name, row in ww.items():
        layer = by_name(report)[name]
        if layer.status is Status.OK:
            assert row["alpha"] == own[name]["alpha"]
            assert row["sigma"] == own[name]["alpha_stderr"]
            assert row["status"] == "success"
            assert row["num_pl_spikes"] == layer.n_tail
        else:
            assert row["alpha"] == row["D"] == row["sigma"] == row["xmin"] == -1.0
            assert row["num_pl_spikes"] == -1
            assert (row["status"], row["warning"]) == ("failed", "over-trained")
        if layer.esd.status is Status.OK:
            halved = 0.5 if layer.kind == "conv2d" else 1.0
            assert row["spectral_norm"] == halved * own[name]["lambda_max"]
            assert row["has_esd"] is True
    assert ww["bad"]["has_esd"] is False
    assert ww["conv"]["layer_type"] == "conv2d"
    assert ww["fc"]["layer_type"] == "dense"


def test_the_other_dialect_swaps_the_sides_of_a_convolution_with_an_even_field() -> None:
    rng = np.random.default_rng(0)
    shapes = {"even": (12, 16, 2, 2), "odd": (12, 16, 3, 3), "wide": (16, 12, 2, 2)}
    report = ps.analyze({f"{k}.weight": rng.standard_normal(s) for k, s in shapes.items()})
    sides = {row["name"]: (row["N"], row["M"]) for row in report.rows("weightwatcher")}
    assert sides == {"even": (12, 16), "odd": (16, 12), "wide": (16, 12)}
    assert all((row["N"], row["M"]) == (16, 12) for row in report.rows())


def test_the_other_dialect_knows_the_embeddings_of_a_module() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Embedding(30, 12), torch.nn.Linear(20, 10))
    rows = ps.analyze(model).rows("weightwatcher")
    assert [row["layer_type"] for row in rows] == ["embedding", "dense"]


def test_the_verdict_counts_what_it_says() -> None:
    # Columns of different scales are no structure until they are turned.
    factor = np.random.default_rng(9).standard_t(2.0, (50, 1))
    turn = np.linalg.qr(random(50, 50, 99))[0]
    trained = {
        f"fc{i}.weight": (random(60, 50, i) * np.abs(factor.T) ** 0.7) @ turn for i in range(6)
    }
    noise = {f"noise{i}.weight": random(60, 50, 20 + i) for i in range(2)}
    report = ps.analyze(trained | noise)
    verdict = report.verdict
    rows = [layer for layer in report.layers if layer.name.startswith("fc")]
    light, heavy_ones = sum(x.alpha > 6.0 for x in rows), sum(x.alpha < 2.0 for x in rows)
    assert (verdict.n_light_tail, verdict.n_heavy_tail) == (light, heavy_ones)
    assert (verdict.n_no_structure, verdict.n_failed, verdict.n_no_power_law) == (2, 0, 0)
    assert verdict.n_typical == 6 - light - heavy_ones
    assert verdict.mean_alpha == pytest.approx(sum(x.alpha for x in rows) / 6.0)
    assert report.summary()["alpha"] == pytest.approx(verdict.mean_alpha)
    assert report.summary()["n_judged"] == 6
    assert "2 layers show no structure (p > 0.01)" in verdict.text
    assert verdict.text.endswith("this is not accuracy.")
    for layer in report.layers:
        low, high = layer.alpha < 2.0, layer.alpha > 6.0
        own = "heavy tail" if low else "light tail" if high else ""
        assert layer.warning == ("no structure detected" if layer.name.startswith("noise") else own)
        # WeightWatcher's dialect knows alpha alone, and its own words.
        row = next(r for r in report.rows("weightwatcher") if r["name"] == layer.name)
        assert row["warning"] == ("over-trained" if low else "under-trained" if high else "")


def test_a_random_model_shows_no_structure_whatever_its_alphas() -> None:
    model = {f"l{i}.weight": random(200, 100, i) for i in range(12)}
    report = ps.analyze(model)
    verdict = report.verdict
    assert verdict.label == "no structure"
    assert verdict.n_no_structure >= 10
    assert verdict.structure_p > 1e-3
    assert "No structure detected in any of 12 layers" in verdict.text
    # Some of them have a typical alpha.
    assert any(2.0 <= layer.alpha <= 6.0 for layer in report.layers)


def test_a_law_that_its_p_value_rules_out_is_no_power_law() -> None:
    two = np.concatenate([np.full(60, 1.0), np.linspace(30.0, 31.0, 60)])
    rng = np.random.default_rng(5)
    q1, q2 = (
        np.linalg.qr(rng.standard_normal((150, 120)))[0],
        np.linalg.qr(rng.standard_normal((120, 120)))[0],
    )
    W = (q1 * np.sqrt(two * (1 + 0.01 * rng.random(120)))) @ q2
    report = ps.analyze({"fc.weight": W}, bootstrap=200)
    layer = report.layers[0]
    assert layer.fit.p_value <= 0.1
    assert layer.warning == "no power law"
    assert report.verdict.n_no_power_law == 1


def test_values_are_frozen() -> None:
    report = ps.analyze(weights())
    values = (report, report.layers[0], report.verdict, report.options, report.skipped[0])
    for value in values:
        assert dataclasses.is_dataclass(value)
        field = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    assert isinstance(report.layers, tuple)
    assert isinstance(report.skipped, tuple)
    assert "4 layers" in repr(report)


# --- threads and processes ----------------------------------------------------------------------


def long_calls() -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    X = HostArray(rng.standard_normal((1500, 700)), "float64")
    A = [(B := rng.standard_normal((600, 600))) + B.T for _ in range(16)]
    tail = np.sort(rng.pareto(2.0, 450_000) + 1.0)
    options = ops.fit_options(estimator="ww", threshold=1e-5, xmin=math.nan, xmax=math.inf)
    return {
        "gram": lambda: ops.gram([X] * 4),
        "eigvals": lambda: ops.eigvals(A),
        "svdvals": lambda: ops.svdvals([HostArray(a, "float64") for a in A[:4]]),
        "fit": lambda: ops.fit_powerlaw([tail] * 8, options, estimator="ww"),
    }


@pytest.mark.parametrize("kernel", ["gram", "eigvals", "svdvals", "fit"])
def test_python_runs_on_while_a_kernel_computes(kernel: str) -> None:
    """No thread is made to give the lock up (its interval is a thousand seconds): the counter can
    advance far only where the kernel has released it. (Setting BLAS threads around a kernel goes
    through ctypes, which releases the lock a few times, for one step of the counter each.)"""
    call = long_calls()[kernel]
    ps.set_num_threads(1)
    call()
    stop = threading.Event()
    started = threading.Event()
    count = 0

    def counter() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            started.set()
            time.sleep(0)  # gives the lock up: the caller is never kept from it

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=counter)
    sys.setswitchinterval(1000.0)
    try:
        thread.start()
        started.wait()
        before = count
        call()
        after = count
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after - before > 50


def test_four_threads_at_once_get_the_right_results() -> None:
    models = [{"a.weight": heavy(60, 40, i), "b.weight": random(50, 30, i)} for i in range(8)]
    spectra = [np.sort(np.random.default_rng(i).pareto(2.0, 3000) + 1.0) for i in range(8)]
    batches = [np.stack([heavy(40, 40, i) @ heavy(40, 40, i).T] * 3) for i in range(8)]

    def work(i: int) -> tuple[Any, ...]:
        return (
            numbers(ps.analyze(models[i])),
            repr(ps.fit_powerlaw_batch([spectra[i], spectra[i][::2]])),
            ps.eigvals(batches[i]).tobytes(),
        )

    want = [work(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(work, range(8))) == want


FORK = """
import os, signal
import numpy as np
import pyspectra as ps
ps.set_num_threads(3)
rng = np.random.default_rng(0)
xs = [rng.pareto(2.0, 2000) + 1.0 for _ in range(9)]
A = rng.standard_normal((9, 60, 60))
A = A + A.swapaxes(1, 2)
def work():
    return repr(ps.fit_powerlaw_batch(xs)), ps.eigvals(A).tobytes(), ps.esd(A[0]).evals.tobytes()
want = work()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(100)  # a deadlock ends as an error
        try:
            good = work() == want and ps.get_num_threads() == 3
            ps.set_num_threads(2)
            code = 0 if good and work() == want else 2
        finally:
            os._exit(code)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
print(codes, work() == want)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork with threads: Linux only")
def test_a_forked_child_can_run_kernels_after_its_parent_did() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORK],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(sys.executable),
        timeout=600,
        check=False,
    )
    assert result.stdout.strip() == "[0, 0, 0, 0] True", result.stderr


# --- parts --------------------------------------------------------------------------------------


def with_parts() -> dict[str, np.ndarray]:
    return {"attn.in_proj_weight": random(90, 30, 3), "fc.weight": random(40, 30, 4)}


def test_parts_have_rows_but_do_not_count_twice() -> None:
    report = ps.analyze(with_parts())
    part_of = {layer.name: layer.part_of for layer in report.layers}
    whole = "attn.in_proj_weight"
    assert part_of == {whole: None, **{f"{whole}[{c}]": whole for c in "qkv"}, "fc": None}
    assert [row["part_of"] for row in report.rows()] == list(part_of.values())
    assert [layer.name for layer in report.wholes] == [whole, "fc"]
    alone = ps.analyze({"a.weight": random(90, 30, 3), "fc.weight": random(40, 30, 4)})
    assert report.summary() == alone.summary()
    assert report.summary()["n_layers"] == 2
    verdict = report.verdict
    counts = (verdict.n_typical, verdict.n_light_tail, verdict.n_heavy_tail, verdict.n_too_small)
    assert sum(counts) + verdict.n_no_structure + verdict.n_failed == 2
    assert [row["name"] for row in report.rows("weightwatcher")] == [whole, "fc"]
    q = by_name(report)[f"{whole}[q]"]
    assert np.allclose(q.esd.evals, ps.esd(random(90, 30, 3)[:30]).evals, rtol=1e-9)


def test_a_part_alone_counts() -> None:
    report = ps.analyze(with_parts(), layers="*[[]q]")
    assert [layer.name for layer in report.layers] == ["attn.in_proj_weight[q]"]
    assert report.summary()["n_layers"] == 1


def test_layers_may_be_an_iterator_but_not_empty() -> None:
    report = ps.analyze(weights(), layers=(i for i in [1, 2]))
    assert {layer.layer_id for layer in report.layers} == {1, 2}
    for nothing in ([], (), iter([])):
        with pytest.raises(ValueError, match="'layers' must not be empty"):
            ps.analyze(weights(), layers=nothing)
    with pytest.raises(TypeError, match="'layers' must hold ids or names"):
        ps.analyze(weights(), layers=3.5)  # type: ignore[arg-type]


def test_writing_keeps_the_mode_of_an_existing_file(tmp_path: Path) -> None:
    target = tmp_path / "layers.csv"
    target.write_text("old")
    target.chmod(0o600)
    ps.analyze(weights()).to_csv(target)
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_text().startswith("layer_id,")
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    ps.analyze(weights(), detx=True).to_csv(link)
    assert link.is_symlink()
    assert "detX_num" in target.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["layers.csv", "link.csv"]


# --- what must not pass for a result --------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "n"), [("float32", 64), ("float32", 512), ("float16", 64)])
def test_the_rounding_of_an_orthogonal_matrix_is_not_a_tail(dtype: str, n: int) -> None:
    W = np.linalg.qr(random(n, n))[0].astype(np.float32).astype(dtype)
    other = learned(60, 50)
    report = ps.analyze({"orthogonal.weight": W, "fc.weight": other})
    layer = by_name(report)["orthogonal"]
    assert layer.structures == ("orthogonal",)
    assert layer.status is Status.DEGENERATE
    assert math.isnan(layer.alpha)
    assert report.summary()["alpha"] == by_name(report)["fc"].alpha


def test_the_rounding_of_bfloat16_is_not_a_tail() -> None:
    torch = pytest.importorskip("torch")
    W = torch.linalg.qr(torch.from_numpy(random(64, 64)))[0].to(torch.bfloat16)
    assert ps.analyze({"orthogonal.weight": W}).layers[0].status is Status.DEGENERATE


def test_a_narrow_spectrum_above_rounding_is_fitted() -> None:
    W = np.linalg.qr(random(64, 64))[0] * (1.0 + 1e-3 * np.arange(64))
    assert ps.analyze({"fc.weight": W.astype(np.float32)}).layers[0].status is Status.OK


@pytest.mark.parametrize(
    ("scale", "status"), [(1e-200, Status.DEGENERATE), (1e200, Status.NOT_FINITE), (1.0, Status.OK)]
)
def test_eigenvalues_beyond_float64_are_no_result(scale: float, status: Status) -> None:
    W = heavy(40, 30) * scale
    esd = ps.esd(W)
    assert esd.status is status
    assert np.isnan(esd.evals).all() == (status is not Status.OK)
    assert ps.analyze({"fc.weight": W}).layers[0].status is status


def test_a_zero_matrix_has_a_spectrum() -> None:
    esd = ps.esd(np.zeros((12, 9)))
    assert esd.status is Status.OK
    np.testing.assert_array_equal(esd.evals, np.zeros(9))


def test_a_model_most_of_whose_fits_failed_is_not_judged() -> None:
    bad = {f"bad{i}.weight": np.full((20, 20), np.nan) for i in range(3)}
    two = {f"fc{i}.weight": heavy(60, 50, i) for i in range(2)}
    verdict = ps.analyze(bad | two).verdict
    assert verdict.label == "cannot be judged"
    assert "3 of 5 layers have no spectrum that could be tested" in verdict.text
    three = two | {"fc2.weight": heavy(60, 50, 2)}
    assert ps.analyze(bad | three).verdict.label != "cannot be judged"


def test_rows_count_what_entered_the_fit() -> None:
    report = ps.analyze({"fc.weight": random(60, 20) @ random(20, 50)})
    assert report.rows()[0]["n_fit"] == report.layers[0].fit.n == 20


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 100.0])
def test_alpha_does_not_depend_on_the_unit_of_the_weights(scale: float) -> None:
    model = {"fc.weight": heavy(60, 50), "conv.weight": heavy(24, 160).reshape(24, 40, 2, 2)}
    plain = ps.analyze(model)
    scaled = ps.analyze({name: W * scale for name, W in model.items()})
    for a, b in zip(plain.layers, scaled.layers, strict=True):
        assert b.alpha == pytest.approx(a.alpha, rel=1e-9)
        assert b.n_tail == a.n_tail
        assert b.fit.xmin == pytest.approx(a.fit.xmin * scale**2, rel=1e-9)
        assert b.warning == a.warning
    # WeightWatcher's threshold is absolute, and stays so in its dialect.
    (row,) = (r for r in scaled.rows("weightwatcher") if r["name"] == "fc")
    theirs = ps.fit_powerlaw(scaled["fc"].esd.evals)
    assert row["alpha"] == pytest.approx(theirs.alpha if scale > 1e-4 else -1.0)


def test_limits_that_contradict_are_named() -> None:
    with pytest.raises(ValueError, match=r"^analyze: 'max_evals' must be at least 'min_evals' = 8"):
        ps.analyze({"fc.weight": heavy(60, 50)}, max_evals=4)


def test_layers_are_also_known_by_their_key() -> None:
    report = ps.analyze(
        {"fc.weight": heavy(60, 50), "rest.weight": heavy(60, 50)}, layers="fc.weight"
    )
    assert [layer.name for layer in report.layers] == ["fc"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'model_or_path' must not be empty"):
        ps.analyze("")
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(ps.FormatError, match="neither a file nor a folder"):
        ps.analyze(pipe)


def test_errors_name_the_path_that_was_given(tmp_path: Path) -> None:
    report = ps.analyze({"fc.weight": heavy(60, 50)})
    missing = tmp_path / "missing" / "out.csv"
    with pytest.raises(FileNotFoundError) as caught:
        report.to_csv(missing)
    assert caught.value.filename == str(missing)
    with pytest.raises(IsADirectoryError):
        report.to_json(tmp_path)
    for write in (report.to_csv, report.to_json, report.save):
        with pytest.raises(ValueError, match=rf"^Report.{write.__name__}: 'path' must not be emp"):
            write("")


def test_axes_are_checked() -> None:
    with pytest.raises(TypeError, match=r"^plot: 'ax' must be matplotlib Axes or None, got int"):
        ps.analyze({"fc.weight": heavy(60, 50)}).plot(ax=3)  # type: ignore[arg-type]


def test_the_repr_of_a_row_is_short() -> None:
    assert len(repr(ps.analyze({"fc.weight": heavy(600, 500)}).layers[0])) < 2500


def test_options_of_randomness_reach_json_and_csv() -> None:
    options = {"mp_fit": True, "randomize": True, "vectors": True, "seed": 4}
    report = ps.analyze(weights(), **options)
    kept = json.loads(report.to_json())
    assert {k: kept["options"][k] for k in options} == options
    header = report.to_csv().splitlines()[0].split(",")
    assert list(kept["layers"][0]) == header
    for name in ("random_p_value", "n_spikes", "n_traps", "rand_distance", "tail_mean_loc_ratio"):
        assert all(row[name] is not None for row in kept["layers"]), name
    ours = [row["mp_soft_rank"] for row in report.rows()]
    assert report.summary()["mp_soft_rank"] == pytest.approx(np.mean(ours))
    theirs = [row["mp_softrank"] for row in report.rows("weightwatcher")]
    assert report.summary("weightwatcher")["mp_softrank"] == pytest.approx(np.mean(theirs))


def test_numpy_numbers_are_options_like_any_other() -> None:
    W = {"w.weight": np.random.default_rng(0).standard_normal((60, 40))}
    plain = ps.analyze(W, drop_largest=5, min_evals=9, max_evals=50, seed=3, bootstrap=4, layers=1)
    other = ps.analyze(
        W,
        drop_largest=np.int64(5),
        min_evals=np.int64(9),
        max_evals=np.int32(50),
        seed=np.uint8(3),
        bootstrap=np.int64(4),
        layers=np.array([1]),
    )
    assert other.to_json() == plain.to_json()
    assert ps.analyze(W, xmax=np.float32(50.0)).layers[0].fit.xmax <= 50.0
    with pytest.raises(ValueError, match="'xmax' must be positive and finite"):
        ps.analyze(W, xmax=10**400)


def test_n_tail_of_hill_is_k() -> None:
    W = {"w.weight": np.random.default_rng(0).standard_normal((60, 40))}
    layer = ps.analyze(W, estimator="hill(5)").layers[0]
    assert layer.n_tail == layer.fit.n_tail == 5


def test_power_laws_that_are_ruled_out_do_not_make_a_model_typical() -> None:
    weights = {}
    for i in range(4):
        rng = np.random.default_rng(i)
        U, V = (np.linalg.qr(rng.standard_normal((n, 60)))[0] for n in (80, 60))
        s = np.sqrt(np.repeat([1.0, 2.0, 4.0], 20) * (1 + 1e-3 * rng.random(60)))
        weights[f"{i}.weight"] = (U * s) @ V.T
    report = ps.analyze(weights, estimator="tempbalance_median", bootstrap=100)
    assert {layer.warning for layer in report.layers} == {"no power law"}
    assert report.verdict.label == "cannot be judged"
    assert "estimator tempbalance_median has no calibrated bounds" in report.verdict.text
    assert "4 layers follow no power law" in report.verdict.text


def test_base_model_without_a_common_layer_is_named() -> None:
    W = np.ones((20, 10))
    with pytest.raises(ValueError, match="a weight matrix that 'base_model' has too"):
        ps.analyze({"a.weight": W}, base_model={"b.weight": W})


def test_a_caller_who_makes_numpy_raise_gets_the_same_report() -> None:
    W = np.random.default_rng(0).standard_normal((60, 40))
    weights = {"w.weight": W, "tiny.weight": W * 1e-200, "zero.weight": W * 0.0}
    asked = {"randomize": True, "mp_fit": True, "detx": True, "vectors": True}
    expected = ps.analyze(weights, **asked).to_csv(dialect="weightwatcher")
    with np.errstate(all="raise"):
        assert ps.analyze(weights, **asked).to_csv(dialect="weightwatcher") == expected
