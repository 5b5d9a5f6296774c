"""The test for structure: what it need not read again, it decides as if it had."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from truth import cases

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.spectra import null_test, sign_test
from pyspectra.spectra.margins import margins
from pyspectra.types import ESD


def shifted(strength: float, mean: float, seed: int) -> np.ndarray:
    """Noise, five directions beside it, and a mean of rows, of columns or of all entries."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((120, 80))
    W += strength * rng.standard_normal((120, 5)) @ rng.standard_normal((5, 80))
    rows, cols, whole = rng.standard_normal((120, 1)), rng.standard_normal((1, 80)), np.ones((1, 1))
    return W + mean * (rows, cols, whole)[seed % 3]


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("mean", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("pool", [True, False])
def test_means_that_cannot_matter_are_not_taken_away(
    strength: float, mean: float, pool: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {f"{seed}.weight": shifted(strength, mean, seed) for seed in range(3)}
    state["conv.weight"] = np.stack(list(state.values()), axis=-1)[..., None]
    short = ps.analyze(state, pool=pool)
    spared = []
    real = null_test._stands_without_means
    monkeypatch.setattr(
        null_test, "_stands_without_means", lambda e, m: bool(spared.append(real(e, m)))
    )
    whole = ps.analyze(state, pool=pool)
    for a, b in zip(short.layers, whole.layers, strict=True):
        assert a.measured["null"] == b.measured["null"]
        assert a.warning == b.warning
    if strength == 3.0 and mean == 2.0:
        assert any(spared)


def test_the_mean_over_all_signs_of_a_centred_matrix_is_exact() -> None:
    rng = np.random.default_rng(0)
    W = rng.standard_normal((3, 4)) * np.exp(rng.standard_normal((3, 1)))
    found = []
    for signs in itertools.product((-1.0, 1.0), repeat=W.size):
        flipped = W * np.reshape(signs, W.shape)
        flipped -= flipped.mean(1, keepdims=True)
        flipped -= flipped.mean(0)
        found.append(np.sum((flipped.T @ flipped) ** 2))
    squares = W * W
    expected = sign_test.expected_of_centred(squares.sum(1), squares.sum(0), np.sum(squares**2))
    left = (1.0 - 1.0 / 3.0) * (1.0 - 1.0 / 4.0)  # of the sum of the eigenvalues
    assert np.mean(found) / left**2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("entries", ["uncentred", "row_gains", "t3"])
def test_the_laws_of_large_matrices_keep_the_level(
    entries: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_test, "LARGE", 0.0)  # such that small ones take their path
    state = {}
    for i in range(150):
        rng = np.random.default_rng([21, i])
        state[f"{i}.weight"] = np.asarray(cases.DRAWS[entries](rng, (48, 96)), np.float32)
    layers = ps.analyze(state, goodness=False).layers
    p = np.array([layer.null.p_value for layer in layers if layer.null is not None])
    assert np.mean(p <= 0.01) <= 0.04  # 6 of 150: where one in 100 is true, this fails 1 in 400
    assert np.mean(p <= 0.1) <= 0.2


def test_rounding_beside_giants_is_no_excess() -> None:
    for seed in (2, 3, 36):
        W = np.random.default_rng(seed).standard_cauchy((300, 130))
        found = [sign_test._normal_p_value(X[None], False) for X in (W, np.asfortranarray(W), W.T)]
        assert found == [1.0] * 3


@pytest.mark.parametrize(("strength", "fewest", "most"), [(0.0, 50, 1000), (3.0, 16, 120)])
def test_drawing_stops_where_the_answer_is_clear(
    strength: float, fewest: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    W = rng.standard_normal((144, 24))
    u, v = rng.standard_normal(144), rng.standard_normal(24)
    bulk = (144 * 24) ** 0.25  # singular value at which a planted direction leaves the bulk
    W += strength * bulk * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    drawn = []
    draws = sign_test.ops.sign_draws

    def counted(stack, bits, count, **options):  # type: ignore[no-untyped-def]
        drawn.append(count)
        return draws(stack, bits, count, **options)

    own = sign_test.of_spectrum(np.square(np.linalg.svd(W, compute_uv=False)))
    monkeypatch.setattr(sign_test.ops, "sign_draws", counted)
    found = sign_test.signs(W[None], key=5, own=own)
    assert fewest <= sum(drawn) <= most
    assert found.p_value < 1e-8 if strength else found.p_value > 0.01


@pytest.mark.parametrize("conv", [False, True])
def test_the_scale_of_a_layer_does_not_matter(conv: bool) -> None:
    rng = np.random.default_rng(8)
    W = rng.standard_normal((60, 40)) * np.exp(rng.standard_normal((60, 1)))
    trained = W + rng.standard_normal((60, 1)) @ rng.standard_normal((1, 40))
    state = {"random.weight": W, "trained.weight": trained}
    if conv:
        state = {"c.weight": rng.standard_normal((40, 30, 2, 2)), "d.weight": W[:, None, :, None]}
    found = []
    for power in (0, 245, 330, 450, -250, -330, -450):
        scaled = {k: np.ldexp(w, power) for k, w in state.items()}
        layers = ps.analyze(scaled, min_evals=1, goodness=False).layers
        found.append([(x.null.method, x.null.p_value, x.null.structures) for x in layers if x.null])
    assert len(found[0]) == 2
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a[0] == b[0]
            assert a[1] == pytest.approx(b[1], rel=1e-6)
            assert [x for x, _ in a[2]] == [x for x, _ in b[2]]


@pytest.mark.parametrize("mean", [0.0, 0.3, 1e3, 1e6])
def test_centring_needs_no_gram_matrix(mean: float) -> None:
    rng = np.random.default_rng(12)
    matrices = [HostArray(rng.standard_normal((60, 40)) + mean, "float64") for _ in range(3)]
    evals = np.sort(np.concatenate([np.linalg.svd(X.data)[1] ** 2 for X in matrices]))
    esd = ESD(evals, 60, 40, n_matrices=3)
    m, square_sum = null_test._without_means(matrices, esd, margins(matrices))
    left = sign_test.without_means(np.stack([X.data for X in matrices]))
    assert square_sum == pytest.approx(sum(np.sum((w.T @ w) ** 2) for w in left), rel=1e-8)
    own = margins([HostArray(w, "float64") for w in left])
    assert (m.expected, m.cycles) == pytest.approx((own.expected, own.cycles), rel=1e-8)
