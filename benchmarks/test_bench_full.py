"""Every statistic at once: analyze(mp_fit, detx, randomize), rows in WeightWatcher's columns.

WeightWatcher takes seconds a layer, most of them in a density estimate: it gets six layers of
MiniLM (both shapes of a block) and one round. pyspectra does the same six, and all 39.
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
def block(weights):
    return {k: W for k, W in weights.items() if k.startswith("encoder.layer.0.")}


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


@pytest.mark.benchmark(group="full analysis, one block of MiniLM")
def test_pyspectra(benchmark, block, expected):
    rows = benchmark.pedantic(run, (block,), rounds=7, warmup_rounds=2)
    assert len(rows) == 6
    agree(rows, expected)


@pytest.mark.benchmark(group="full analysis, one block of MiniLM")
def test_weightwatcher(benchmark, block, expected):
    pytest.importorskip("weightwatcher")
    options = {"detX": True, **OPTIONS}
    table = benchmark.pedantic(baselines.weightwatcher_analyze, (block,), options, rounds=1)
    rows = table.to_dict("records")
    assert len(rows) == 6
    agree(rows, expected)


@pytest.mark.benchmark(group="full analysis, all of MiniLM")
def test_pyspectra_all(benchmark, weights, expected):
    rows = benchmark.pedantic(run, (weights,), rounds=5, warmup_rounds=1)
    assert len(rows) == 39
    agree([row for row in rows if row["name"] in expected], expected)


@pytest.mark.benchmark(group="full analysis, all of MiniLM")
def test_pyspectra_default(benchmark, weights):
    """For comparison: the analysis without these options."""
    report = benchmark.pedantic(ps.analyze, (weights,), rounds=5, warmup_rounds=1)
    assert len(report.layers) == 39
