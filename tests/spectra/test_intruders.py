"""Intruder dimensions against their definition: singular vectors, one cosine at a time."""

from __future__ import annotations

import numpy as np
import pytest

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
