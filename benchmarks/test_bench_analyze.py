"""The main job on a real model: all-MiniLM-L6-v2, 39 layers, from a state dict in memory."""

import baselines
import pytest
import real_models

import pyspectra as ps


@pytest.fixture(scope="module")
def weights():
    return real_models.minilm_l6()


@pytest.fixture(scope="module")
def expected(weights):
    return baselines.numpy_pipeline(weights)


def check(rows, expected):
    assert len(rows) == len(expected) == 39
    for name, row in expected.items():
        for column in ("alpha", "D", "xmin", "stable_rank", "log_alpha_norm"):
            assert rows[name][column] == pytest.approx(row[column], rel=1e-6), (name, column)


@pytest.mark.benchmark(group="analyze MiniLM")
def test_pyspectra(benchmark, weights, expected):
    report = benchmark.pedantic(ps.analyze, (weights,), rounds=11, warmup_rounds=2)
    check({row["name"]: row for row in report.rows()}, expected)


@pytest.mark.benchmark(group="analyze MiniLM")
def test_weightwatcher(benchmark, weights, expected):
    pytest.importorskip("weightwatcher")
    table = benchmark.pedantic(
        baselines.weightwatcher_analyze, (weights,), rounds=7, warmup_rounds=1
    )
    check({row["name"]: row for row in table.to_dict("records")}, expected)


@pytest.mark.benchmark(group="analyze MiniLM")
def test_numpy(benchmark, weights, expected):
    rows = benchmark.pedantic(baselines.numpy_pipeline, (weights,), rounds=5, warmup_rounds=1)
    check(rows, expected)


@pytest.mark.benchmark(group="analyze MiniLM")
def test_pyspectra_from_file(benchmark, expected):
    """From the safetensors file, page cache warm: reading included."""
    folder = real_models.minilm_dir()
    report = benchmark.pedantic(ps.analyze, (folder,), rounds=11, warmup_rounds=2)
    check({row["name"]: row for row in report.rows()}, expected)
