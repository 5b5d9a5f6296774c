"""Marchenko-Pastur fits, the Tracy-Widom law, and the level and power of the randomness test."""

import math

import numpy as np
import pytest
import real_models
import tolerances
from reference import marchenko_pastur as reference
from scipy import stats

import pyspectra as ps
from pyspectra.spectra import marchenko_pastur_ww, random_null, tracy_widom
from pyspectra.spectra.marchenko_pastur import SPIKE_LEVEL, law_distance

SEEDS = 500


def evals_of(W):
    return np.linalg.eigvalsh(W.T @ W if W.shape[0] >= W.shape[1] else W @ W.T)


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [-5.0, -3.1808, -1.2685, 0.0, 0.9793, 2.0234, 3.2724])
def test_tracy_widom_is_the_determinant(s):
    assert tracy_widom.survival(s) == pytest.approx(1 - reference.tracy_widom_cdf(s), rel=1e-9)


@pytest.mark.parametrize(
    ("tail", "published"),  # Bejan, "Largest eigenvalues and sample covariance matrices" (2005)
    [(0.10, 0.4501), (0.05, 0.9793), (0.01, 2.0234), (0.95, -3.1808), (0.50, -1.2685)],
)
def test_tracy_widom_quantiles_are_the_published_ones(tail, published):
    assert tracy_widom.quantile(tail) == pytest.approx(published, abs=6e-4)


def test_tracy_widom_tails():
    assert tracy_widom.survival(-50.0) == 1.0
    assert 0.0 < tracy_widom.survival(100.0) < 1e-280
    grid = np.linspace(-9, 12, 200)
    values = [tracy_widom.survival(s) for s in grid]
    assert np.all(np.diff(values) <= 0.0)
    # Mean and variance of the law, from the survival function.
    fine = np.linspace(-8, 12, 801)
    sf = np.array([tracy_widom.survival(s) for s in fine])
    mean = -8 + np.trapezoid(sf, fine) if hasattr(np, "trapezoid") else -8 + np.trapz(sf, fine)
    assert mean == pytest.approx(tracy_widom.MEAN, abs=1e-4)


@pytest.mark.parametrize(("N", "M"), [(300, 300), (300, 200), (400, 7)])
def test_distance_from_the_law(N, M):
    x = np.sort(np.random.default_rng(0).uniform(0.0, 3.0, 40))
    model = np.array([reference.law(v / x.mean(), M / N) for v in x])
    steps = np.arange(41) / 40
    expected = max((model - steps[:-1]).max(), (steps[1:] - model).max())
    assert law_distance(x, float(x.mean()), N, M) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("N", "M", "count"), [(9, 4, 1), (4, 4, 2), (7, 2, 3), (30, 1, 5)])
def test_moments_of_the_spread_are_exact(N, M, count):
    """Against simulation: mean, standard deviation and skewness within five standard errors."""
    rng = np.random.default_rng(N * M)
    n = 40_000
    W = rng.standard_normal((n, count, N, M))
    S = np.swapaxes(W, 2, 3) @ W
    T = np.sum(S * S, axis=(1, 2, 3)) / np.sum(W * W, axis=(1, 2, 3)) ** 2
    mean, variance, skewness = random_null.spread_moments(N, M, count)
    z = (T - mean) / math.sqrt(variance)
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert z.std() == pytest.approx(1.0, abs=5 * math.sqrt((stats.kurtosis(z) + 2) / 4 / n))
    assert stats.skew(z) == pytest.approx(skewness, abs=0.15)


# --- WeightWatcher's fit --------------------------------------------------------------------------


@pytest.mark.parametrize("Q", [1.0, 1.5, 4.0, 0.5])
def test_ww_scale_is_a_minimum_of_the_plain_cost(Q):
    rng = np.random.default_rng(1)
    M = 60
    e = np.sort(evals_of(rng.standard_normal((int(M * max(Q, 1)), M))))
    e *= len(e) / e.sum()
    s = marchenko_pastur_ww.fit_scale(e, Q)
    cost = reference.ww_cost(s, e, Q)
    guess = math.sqrt(e[-1]) / (1 + Q**-0.5)
    others = [reference.ww_cost(v, e, Q) for v in np.arange(0.05, 2.0, 0.05) * guess]
    assert cost <= min(others)


def test_ww_needs_no_particular_order_and_takes_either_side_first():
    x = evals_of(np.random.default_rng(2).standard_normal((80, 40)))
    fit = ps.marchenko_pastur(x[::-1], 80, 40, mp="ww")
    assert fit == ps.marchenko_pastur(x, 80, 40, mp="ww")
    assert math.isnan(fit.p_value)
    assert ps.marchenko_pastur(x, 40, 80, mp="ww").status is ps.Status.OK


# --- level ----------------------------------------------------------------------------------------

SHAPES = [(16, 16, 1), (48, 48, 1), (64, 16, 1), (128, 32, 1), (300, 16, 1), (24, 16, 9)]


def gaussian(rng, shape):
    return rng.standard_normal(shape)


def kaiming_uniform(rng, shape):
    bound = math.sqrt(6.0 / shape[-1])
    return rng.uniform(-bound, bound, shape).astype(np.float32).astype(float)


def p_values(draw, N, M, count, kurtosis, seed):
    rng = np.random.default_rng(seed)
    W = draw(rng, (SEEDS, count, N, M))
    x = np.linalg.eigvalsh(np.swapaxes(W, 2, 3) @ W).reshape(SEEDS, -1)
    return [ps.marchenko_pastur(v, N, M, kurtosis=kurtosis) for v in x]


def within_binomial(hits, level):
    """The count of `hits` lies in the central 99.9 % of a binomial with `level`."""
    low, high = stats.binom.interval(0.999, SEEDS, level)
    return low <= hits <= high


@pytest.mark.parametrize(("N", "M", "count"), SHAPES)
@pytest.mark.parametrize(
    ("draw", "kurtosis"), [(gaussian, 0.0), (kaiming_uniform, -1.2)], ids=["gauss", "uniform"]
)
def test_random_layers_are_called_random_at_the_stated_rate(draw, kurtosis, N, M, count):
    fits = p_values(draw, N, M, count, kurtosis, seed=N + M + count)
    p = np.array([f.p_value for f in fits])
    for level in (0.01, 0.05):
        assert within_binomial(np.count_nonzero(p < level), level), (level, np.mean(p < level))
    # Both statistics grow with lambda_max: where small matrices correlate them, taking the smaller
    # p-value costs less than it is corrected for, and the level is an upper bound.
    assert np.count_nonzero(p < 0.2) <= stats.binom.ppf(0.9995, SEEDS, 0.2)
    # Light tails push the largest eigenvalue inwards, so that the level is an upper bound there.
    spikes = np.count_nonzero([f.n_spikes > 0 for f in fits])
    assert spikes <= stats.binom.ppf(0.9995, SEEDS, SPIKE_LEVEL)
    if draw is gaussian:
        assert within_binomial(spikes, SPIKE_LEVEL)


@pytest.mark.parametrize(("N", "M"), [(200, 200), (400, 100), (256, 30)])
def test_a_random_layer_has_scale_one_and_exact_edges(N, M):
    W = 0.02 * np.random.default_rng(5).standard_normal((M, N))
    fit = ps.marchenko_pastur(evals_of(W), N, M)
    assert fit.n_spikes == 0
    assert fit.sigma_mp == pytest.approx(1.0, abs=1e-12)
    assert fit.lambda_plus == pytest.approx(
        np.mean(W**2) * (math.sqrt(N) + math.sqrt(M)) ** 2, rel=1e-9
    )
    assert fit.D < 3.0 / M
    assert fit.p_value > 1e-3


# --- power ----------------------------------------------------------------------------------------


def test_trained_layers_are_not_random():
    """Every layer of MiniLM but the pooler, which its training never touches (mean pooling)."""
    report = ps.analyze(real_models.minilm_l6(), mp_fit=True)
    p = {layer.name: layer.metrics["random_p_value"] for layer in report.layers}
    assert p.pop("pooler.dense") > 0.05
    assert max(p.values()) < 1e-20
    assert len(p) == 38


def test_planted_spikes_are_counted():
    rng = np.random.default_rng(6)
    N, M, k = 300, 150, 5
    W = rng.standard_normal((N, M))
    edge = math.sqrt(N) + math.sqrt(M)
    for i in range(k):
        u, v = rng.standard_normal(N), rng.standard_normal(M)
        scale = (1.3 + 0.3 * i) * edge / (np.linalg.norm(u) * np.linalg.norm(v))
        W += scale * np.outer(u, v)
    fit = ps.marchenko_pastur(evals_of(W), N, M)
    assert fit.n_spikes == k
    # The variance of the noise, not of the whole: the spikes hold a third of the norm.
    assert fit.lambda_plus == pytest.approx(edge**2, rel=0.03)
    assert fit.p_value < 1e-12
    assert fit.mp_soft_rank == pytest.approx(fit.lambda_plus / evals_of(W)[-1])


def test_rounding_of_a_zero_bulk_is_no_spike():
    rng = np.random.default_rng(3)
    for rank in (1, 16):
        W = rng.standard_normal((200, rank)) @ rng.standard_normal((rank, 150))
        by_gram = np.maximum(np.linalg.eigvalsh(W.T @ W), 0.0)
        for evals in (by_gram, np.linalg.svd(W, compute_uv=False) ** 2):
            assert ps.marchenko_pastur(evals, 200, 150).n_spikes == rank


def test_structure_without_spikes_is_found():
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((256, 64)) * np.linspace(0.5, 1.5, 256)[:, None]
    assert ps.marchenko_pastur(evals_of(rows), 256, 64).p_value < 1e-3
    orthogonal, _ = np.linalg.qr(rng.standard_normal((128, 64)))
    assert ps.marchenko_pastur(evals_of(orthogonal), 128, 64).p_value < 1e-6


# --- properties and hostile input -----------------------------------------------------------------


def test_scale_and_order_do_not_matter():
    x = evals_of(np.random.default_rng(8).standard_normal((90, 60)) ** 3)
    a, b = ps.marchenko_pastur(x, 90, 60), ps.marchenko_pastur(x[::-1] * 1e-6, 90, 60)
    for name in ("sigma_mp", "mp_soft_rank", "D", "p_value"):
        assert getattr(b, name) == pytest.approx(
            getattr(a, name), rel=tolerances.SCALE_RTOL, abs=1e-300
        )
    assert a.n_spikes == b.n_spikes
    assert b.lambda_plus == pytest.approx(1e-6 * a.lambda_plus)


@pytest.mark.parametrize("mp", ["ww", "robust"])
@pytest.mark.parametrize(
    ("evals", "status"),
    [
        ([], ps.Status.TOO_FEW_POINTS),
        ([0.0] * 4, ps.Status.DEGENERATE),
        ([1.0, 2.0, math.nan, 3.0], ps.Status.NOT_FINITE),
        ([1.0, 2.0, math.inf, 3.0], ps.Status.NOT_FINITE),
        ([-1.0, 2.0, 4.0, 3.0], ps.Status.DEGENERATE),
    ],
)
def test_failures_say_why(mp, evals, status):
    fit = ps.marchenko_pastur(np.array(evals, dtype=float), 8, 4, mp=mp)
    assert fit.status is status
    assert fit.n_spikes == -1
    assert math.isnan(fit.sigma_mp)
    assert math.isnan(fit.p_value)


@pytest.mark.parametrize("mp", ["ww", "robust"])
def test_extreme_spectra(mp):
    for x, N, M in (
        (np.ones(20), 40, 20),
        (np.r_[np.zeros(19), 5.0], 40, 20),
        (np.r_[np.full(19, 1e-300), 1e300], 20, 20),
        (np.arange(1.0, 10.0), 32, 1),
    ):
        fit = ps.marchenko_pastur(x, N, M, mp=mp)
        assert fit.status is ps.Status.OK
        assert fit.n_spikes >= 0
        assert math.isfinite(fit.sigma_mp)


def test_one_vector_says_nothing():
    fit = ps.marchenko_pastur(np.array([3.0, 4.0]), 5, 2)
    assert 0.0 <= fit.p_value <= 1.0
    assert ps.marchenko_pastur(np.array([3.0]), 5, 1).status is ps.Status.TOO_FEW_POINTS


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones((2, 2)), 4, 2), {}, "'evals' must be 1-D"),
        ((np.ones(4), 0, 2), {}, "'N' must be an integer from 1 to"),
        ((np.ones(4), 2, 4), {}, "'N' must be the longer side"),
        ((np.ones(5), 4, 2), {}, "'evals' must hold M = 2 eigenvalues of each matrix, got 5"),
        ((np.ones(4), 4, 2), {"mp": "x"}, "'mp' must be one of"),
        ((np.ones(4), 4, 2), {"kurtosis": -3.0}, "'kurtosis' must be in "),
        (
            (np.ones(4), 4, 2),
            {"mp": "ww", "kurtosis": 1.0},
            "'kurtosis' must be 0 with mp='ww'",
        ),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ps.marchenko_pastur(*arguments, **options)
    with pytest.raises(TypeError, match=r"'M' must be an integer from 1 to .*, got 2.0"):
        ps.marchenko_pastur(np.ones(4), 4, 2.0)
    with pytest.raises(TypeError, match=r"'kurtosis' must be in .* got None"):
        ps.marchenko_pastur(np.ones(4), 4, 2, kurtosis=None)


@pytest.mark.parametrize("mp", ["robust", "ww"])
def test_eigenvalues_below_the_range_are_degenerate(mp: str) -> None:
    evals = np.linspace(1.0, 2.0, 20) * 1e-312
    assert ps.marchenko_pastur(evals, 30, 20, mp=mp).status is ps.Status.DEGENERATE


def test_arguments_beyond_any_matrix_are_refused() -> None:
    evals = np.linspace(1.0, 2.0, 20)
    with pytest.raises(ValueError, match="'N' must be an integer from 1 to 2147483647, got 1000"):
        ps.marchenko_pastur(evals, 10**30, 20)
    for kurtosis in (1e300, 10**400):
        with pytest.raises(ValueError, match=r"'kurtosis' must be in \[-2, 4\.6.*e\+18\]"):
            ps.marchenko_pastur(evals, 30, 20, kurtosis=kurtosis)


def test_the_table_of_the_law_is_its_determinant() -> None:
    for s in np.concatenate([np.linspace(-7.99, 15.99, 60), [-4.0, -1.0, 4.0]]):
        exact = tracy_widom._by_determinant(float(s))
        assert tracy_widom.survival(float(s)) == pytest.approx(exact, rel=1e-9)
    with_a_gap = [tracy_widom.survival(s) for s in (np.nextafter(16.0, 0.0), 16.0)]
    assert with_a_gap[0] == pytest.approx(with_a_gap[1], rel=1e-9)
