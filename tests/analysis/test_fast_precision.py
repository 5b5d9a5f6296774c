"""`analyze(precision="fast")`: what float32 serves, what it must not say, and who serves else."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
import real_models

import pyspectra as ps
from pyspectra.analysis import engine
from pyspectra.errors import ArgumentValueError
from pyspectra.report.layer import LayerReport

ORDER = 96


@pytest.fixture(autouse=True)
def of_small_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let float32 serve matrices that a test can afford."""
    monkeypatch.setattr(engine, "FAST_ORDER", ORDER)
    monkeypatch.setattr(engine, "FAST_ORDER_WIDE", ORDER)


def weights(N: int, M: int, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((N, M)) * np.exp(0.6 * rng.standard_normal(M))).astype(dtype)


def both(W: object, **options: object) -> tuple[LayerReport, LayerReport]:
    exact, fast = (
        ps.analyze({"a.weight": W}, precision=p, goodness=False, **options).layers[0]  # type: ignore[arg-type]
        for p in ("float64", "fast")
    )
    return exact, fast


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(128, 128), (300, 140), (120, 260)])
def test_alpha_and_eigenvalues_stay_within_their_bounds(shape: tuple[int, int], dtype: str) -> None:
    exact, fast = both(weights(*shape, dtype=dtype))
    assert exact.esd.method != "fast"
    assert fast.esd.method == "fast"
    assert exact.esd.bound == 0.0 < fast.esd.bound < 1e-5 * fast.metrics["lambda_max"]
    assert np.max(np.abs(exact.esd.evals - fast.esd.evals)) <= fast.esd.bound
    assert abs(exact.fit.alpha - fast.fit.alpha) <= 2.5e-3


def test_small_eigenvalues_are_not_reported_as_if_they_were_exact() -> None:
    exact, fast = both(weights(130, 130))
    assert fast.esd.method == "fast"
    for name in ("sv_min", "matrix_rank", "rank_loss", "weak_rank_loss"):
        assert math.isnan(fast.metrics[name]), name
        assert not math.isnan(exact.metrics[name]), name
    assert fast.metrics["entropy"] == pytest.approx(exact.metrics["entropy"], rel=1e-4)


def test_small_eigenvalues_that_are_resolved_are_reported() -> None:
    exact, fast = both(np.random.default_rng(0).standard_normal((400, 100)).astype(np.float16))
    assert fast.esd.method == "fast"
    assert fast.metrics["matrix_rank"] == exact.metrics["matrix_rank"] == 100
    assert fast.metrics["sv_min"] == pytest.approx(exact.metrics["sv_min"], rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "csn"}, {"fix_fingers": "clip_xmax"}, {"drop_largest": 1}, {"xmax": 9.0},
        {"method": "gram"}, {"randomize": True}, {"vectors": True},
    ],
    ids=str,
)  # fmt: skip
def test_float64_serves_what_has_no_bound(options: dict[str, object]) -> None:
    exact, fast = both(weights(130, 120), **options)
    assert fast.esd.method != "fast"
    assert fast == exact


def test_float64_serves_where_alpha_may_move(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspectra.analysis import layer_spectra

    monkeypatch.setattr(layer_spectra, "ALPHA_CHANGE", 1e-9)
    exact, fast = both(weights(130, 120))
    assert fast.esd.method != "fast"
    assert fast == exact


@pytest.mark.parametrize(
    "W",
    [
        weights(95, 300), weights(9, 9, dtype="float32"), np.full((100, 100), np.nan),
        np.zeros((120, 120)), np.eye(110), weights(120, 110).astype(np.float64) * 1e300,
    ],
    ids=["small", "tiny", "nan", "zero", "identity", "huge"],
)  # fmt: skip
def test_float64_serves_what_float32_cannot(W: np.ndarray) -> None:
    exact, fast = both(W)
    assert fast.esd.method != "fast"
    assert fast == exact


def test_slices_of_a_convolution_are_solved_in_float64() -> None:
    exact, fast = both(np.random.default_rng(0).standard_normal((100, 100, 2, 2)))
    assert fast.esd.method != "fast"
    assert fast == exact


def test_the_report_keeps_who_served(tmp_path: Path) -> None:
    report = ps.analyze({"a.weight": weights(130, 120)}, precision="fast")
    report.save(tmp_path / "fast.pyspectra")
    kept = ps.Report.load(tmp_path / "fast.pyspectra")
    assert kept.options.precision == "fast"
    assert kept.layers[0].esd.bound == report.layers[0].esd.bound > 0.0
    rows = csv.DictReader(io.StringIO(report.to_csv()))
    assert [(row["precision"], float(row["evals_bound"])) for row in rows] == [
        ("fast", report.layers[0].esd.bound)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_alpha_of_a_trained_model(dtype: str) -> None:
    weights = real_models.minilm_l6()
    model = {name: W.astype(dtype) for name, W in weights.items() if ".layer.2." in name}
    exact = ps.analyze(model, goodness=False)
    fast = ps.analyze(model, precision="fast", goodness=False)
    served = [layer for layer in fast.layers if layer.esd.method == "fast"]
    assert len(served) >= 5
    for layer in served:
        want = exact[layer.name]
        assert abs(layer.fit.alpha - want.fit.alpha) <= 2.5e-3, layer.name
        assert np.max(np.abs(layer.esd.evals - want.esd.evals)) <= layer.esd.bound, layer.name


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ArgumentValueError, match=r"'precision' must be one of 'float64', 'fast'"):
        ps.analyze({"a.weight": weights(9, 9)}, precision="half")
