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
