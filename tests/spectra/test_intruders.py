"""Intruder dimensions against their definition: singular vectors, one cosine at a time."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra.spectra import intruders as module
from pyspectra.spectra.intruders import intruders


def by_definition(base: np.ndarray, tuned: np.ndarray, k: int) -> list[float]:
    """Algorithm 1 of arXiv 2410.21228."""
    known, sizes, _ = np.linalg.svd(base, full_matrices=False)
    known = known[:, sizes > 1e-7 * sizes[0]]
    found = np.linalg.svd(tuned, full_matrices=False)[0]
    most = []
    for j in range(min(k, found.shape[1])):
        most.append(max(abs(float(u @ found[:, j])) for u in known.T))
    return most


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40), (7, 60)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e120])
def test_similarities_are_those_of_the_definition(shape: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal(shape) * rng.pareto(1.5, shape[1])
    tuned = base + 3.0 * np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    found = intruders(scale * base, scale * tuned, k=10)
    assert found is not None
    np.testing.assert_allclose(found.similarities, by_definition(base, tuned, 10), atol=1e-6)
    values = np.linalg.svd(tuned, compute_uv=False)[:10]
    np.testing.assert_allclose(np.array(found.singular_values) / scale, values, rtol=1e-9)
    assert found.k == min(10, *shape)
    assert found.n == sum(x < 0.5 for x in found.similarities)


def test_a_base_of_low_rank_has_no_more_directions_than_its_rank() -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30))
    update = 5.0 * np.outer(rng.standard_normal(40), rng.standard_normal(30))
    found = intruders(base, base + update)
    assert found is not None
    assert found.k == 4  # rounding is no direction of the tuned one either
    np.testing.assert_allclose(found.similarities, by_definition(base, base + update, 4), atol=1e-6)


def test_what_has_no_intruders_to_speak_of() -> None:
    W = np.random.default_rng(2).standard_normal((30, 20))
    same = intruders(W, W)
    assert same is not None
    assert same.n == 0
    assert min(same.similarities) == pytest.approx(1.0)
    assert intruders(W, np.full_like(W, np.nan)) is None
    assert intruders(np.zeros_like(W), W) is None
    assert intruders(W[:, :4], W[:, :4]) is None  # some cosine is always at least a half


# --- large matrices, without all singular vectors of the base -----------------------------------


def matrix(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    W = rng.standard_t(3.0, shape) if kind == "heavy" else rng.standard_normal(shape)
    if kind == "power":
        W = W * np.arange(1, shape[1] + 1) ** -0.5
    return np.asarray(W / np.sqrt(shape[0]))


@pytest.mark.parametrize("amplitude", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["heavy", "normal", "power"])
@pytest.mark.parametrize("shape", [(200, 260), (230, 230)])
def test_leading_vectors_decide_as_all_do(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], kind: str, amplitude: float
) -> None:
    monkeypatch.setattr(module, "LARGE", 16)
    refused = []
    exact = module._by_all
    monkeypatch.setattr(module, "_by_all", lambda *a: refused.append(a) or exact(*a))
    rng = np.random.default_rng(5)
    base = matrix(kind, shape, rng)
    B, A = rng.standard_normal((shape[0], 6)), rng.standard_normal((6, shape[1]))
    B *= amplitude * 2.0 / np.sqrt(shape[0] * shape[1])
    for tuned in ((B, A), base + B @ A):
        found = intruders(base, tuned, k=8)
        assert found is not None
        expected = np.array(by_definition(base, base + B @ A, 8))
        assert found.indices == tuple(np.flatnonzero(expected < 0.5))
        assert np.all(np.array(found.similarities) <= expected + 1e-3)
        assert np.all(np.array(found.upper) >= expected - 1e-9)
    # Two singular values that nearly agree leave their vectors open, and all are asked for.
    assert not refused or kind == "heavy"


def test_what_is_spread_over_the_base_asks_for_fewer_of_its_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LARGE", 16)
    asked = []
    found_by = module.leading_triplets
    monkeypatch.setattr(
        module, "leading_triplets", lambda p, k, *rest: asked.append(k) or found_by(p, k, *rest)
    )
    rng = np.random.default_rng(7)
    base = matrix("heavy", (230, 230), rng)
    B, A = rng.standard_normal((230, 6)), 0.1 * rng.standard_normal((6, 230))
    found = intruders(base, (B, A), k=6)
    assert found is not None
    assert found.indices == tuple(range(6))
    assert asked[0] == 7
    assert asked[1] < 6 + module.MORE
    assert len(asked) == 2
    asked.clear()
    same = intruders(base, base, k=6)
    assert same is not None
    assert same.n == 0
    assert asked == [7, 6 + module.MORE]


def test_a_direction_from_deep_in_the_base_asks_for_all_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no intruder, though none of the leading vectors of the base resembles it."""
    monkeypatch.setattr(module, "LARGE", 16)
    rng = np.random.default_rng(6)
    base = matrix("normal", (150, 150), rng)
    u, _, vt = np.linalg.svd(base)
    found = intruders(base, (6.0 * u[:, 90:91], vt[90:91]), k=3)
    assert found is not None
    assert found.indices == ()
    assert found.similarities[0] == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("deep", [7, 60, 140])
@pytest.mark.parametrize("cosine", [0.45, 0.498, 0.502, 0.6])
def test_a_direction_that_holds_about_half_of_a_vector_of_the_base(
    monkeypatch: pytest.MonkeyPatch, dtype: type, deep: int, cosine: float
) -> None:
    """Single precision, and what is found without all vectors, do not move the limit."""
    monkeypatch.setattr(module, "LARGE", 16)
    rng = np.random.default_rng(8)
    base = matrix("heavy", (150, 180), rng).astype(dtype)
    u, _, vt = np.linalg.svd(base.astype(np.float64), full_matrices=False)
    sides = []
    for vectors in (u[:, deep], vt[deep]):
        other = rng.standard_normal(len(vectors))
        other -= vectors * (vectors @ other)
        other *= np.sqrt(1.0 - cosine**2) / np.linalg.norm(other)
        sides.append(cosine * vectors + other)
    B, A = 300.0 * sides[0][:, None], sides[1][None]
    expected = np.array(by_definition(base.astype(np.float64), base.astype(np.float64) + B @ A, 3))
    assert abs(expected[0] - cosine) < 1e-2
    found = intruders(base, (B, A), k=3)
    assert found is not None
    assert found.indices == tuple(np.flatnonzero(expected < 0.5))
    assert np.all(np.array(found.upper) >= expected - 1e-6)


def test_shapes_that_disagree() -> None:
    with pytest.raises(ValueError, match="'tuned' must be"):
        intruders(np.ones((20, 20)), (np.ones((20, 2)), np.ones((3, 20))))
