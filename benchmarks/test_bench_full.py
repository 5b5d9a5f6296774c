"""Every statistic at once: analyze(mp_fit, detx, randomize), rows in WeightWatcher's columns.

WeightWatcher takes seconds a layer, most of them in a density estimate: it gets one round.
"""

import baselines
import pytest
import real_models

import pyspectra as ps

COLUMNS = (
    "alpha", "num_spikes", "sigma_mp", "mp_softrank", "W_scale", "bulk_max", "detX_num",
    "rand_W_scale",
)  # fmt: skip
OPTIONS = {"mp_fit": True, "randomize": True}


@pytest.fixture(scope="module")
def weights():
    return real_models.minilm_l6()


@pytest.fixture(scope="module")
def expected():
    """Rows by name: whoever runs first leaves them here."""
    return {}


def run(model):
    return ps.analyze(model, detx=True, **OPTIONS).rows("weightwatcher")


def agree(rows, found):
    """The first to finish leaves its numbers; the other must have the same."""
    for row in rows:
        kept = found.setdefault(row["name"], row)
        for column in COLUMNS:
            assert row[column] == pytest.approx(kept[column], rel=1e-6), (row["name"], column)


@pytest.mark.benchmark(group="full analysis of MiniLM")
def test_pyspectra(benchmark, weights, expected):
    rows = benchmark.pedantic(run, (weights,), rounds=5, warmup_rounds=1)
    assert len(rows) == 39
    agree(rows, expected)


@pytest.mark.benchmark(group="full analysis of MiniLM")
def test_weightwatcher(benchmark, weights, expected):
    pytest.importorskip("weightwatcher")
    options = {"detX": True, **OPTIONS}
    table = benchmark.pedantic(baselines.weightwatcher_analyze, (weights,), options, rounds=1)
    rows = table.to_dict("records")
    assert len(rows) == 39
    agree(rows, expected)


@pytest.mark.benchmark(group="full analysis of MiniLM")
def test_pyspectra_default(benchmark, weights):
    """For comparison: the analysis without these options."""
    report = benchmark.pedantic(ps.analyze, (weights,), rounds=5, warmup_rounds=1)
    assert len(report.layers) == 39


VECTOR_COLUMNS = ("alpha", "tail_mean_vec_entropy", "bulk_mean_loc_ratio", "tail_mean_part_ratio")


def agree_on_vectors(rows, found):
    # On which side of xmin its own vector falls, rounding decides: one of a few dozen in the tail.
    for row in rows:
        kept = found.setdefault(row["name"], row)
        for column in VECTOR_COLUMNS:
            assert row[column] == pytest.approx(kept[column], rel=1e-2), (row["name"], column)


@pytest.fixture(scope="module")
def expected_of_vectors():
    return {}


@pytest.mark.benchmark(group="vectors of MiniLM")
def test_vectors(benchmark, weights, expected_of_vectors):
    report = benchmark.pedantic(
        ps.analyze, (weights,), {"vectors": True}, rounds=5, warmup_rounds=1
    )
    agree_on_vectors(report.rows("weightwatcher"), expected_of_vectors)


@pytest.mark.benchmark(group="vectors of MiniLM")
def test_weightwatcher_vectors(benchmark, weights, expected_of_vectors):
    pytest.importorskip("weightwatcher")
    table = benchmark.pedantic(
        baselines.weightwatcher_analyze, (weights,), {"vectors": True}, rounds=3
    )
    agree_on_vectors(table.to_dict("records"), expected_of_vectors)
