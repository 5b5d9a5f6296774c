"""Bounds on squared cosines with eigenvectors, where these are known."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra.spectra.shares import SharesOfEigenvectors

n = 500
rng = np.random.default_rng(0)

SPECTRA = {
    "even": np.linspace(0.0, 1.0, n),
    "heavy": np.sort(rng.pareto(1.0, n) ** 2),
    "clustered": np.concatenate([np.zeros(n // 2), 1.0 + 1e-7 * rng.random(n - n // 2)]),
    "one far away": np.append(np.linspace(0.0, 1.0, n - 1), 1e4),
    "low rank": np.append(np.zeros(n - 5), [1.0, 2.0, 3.0, 5.0, 9.0]),
}
PLACES = (0, 3, n // 2, n - 3, n - 1)


def starts(share: float) -> np.ndarray:
    """A vector for each place, which has `share` of its square there."""
    out = rng.standard_normal((n, len(PLACES)))
    for i, place in enumerate(PLACES):
        out[place, i] = 0.0
        out[:, i] *= np.sqrt(1.0 - share) / np.linalg.norm(out[:, i])
        out[place, i] = np.sqrt(share)
    return out


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("noise", [0.0, 6e-8, 1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.26, 0.6])
def test_no_eigenvector_has_more_than_the_bound(kind: str, noise: float, share: float) -> None:
    """However wrong the products are, in the dense basis or in that of the eigenvectors."""
    evals, start = SPECTRA[kind], starts(share)
    noises = np.random.default_rng(1)

    def rough(X: np.ndarray) -> np.ndarray:
        exact = evals[:, None] * X
        size = np.linalg.norm(exact, axis=0) / np.sqrt(n)
        return np.asarray(exact + noise * size * noises.standard_normal(X.shape))

    found = SharesOfEigenvectors(rough, lambda X: evals[:, None] * X, start)
    true = np.max(start**2, axis=0)
    for _ in range(14):
        found.step(np.full(len(PLACES), 0.25))
        assert np.all(found.shares >= true * (1.0 - 1e-12))


def test_products_that_favour_one_eigenvector_are_seen_through() -> None:
    """An operator that hides its eigenvector of a large share must not pass for the true one."""
    evals = np.linspace(0.0, 1.0, n)
    start = starts(0.5)[:, 2:3]
    hidden = np.zeros(n)
    hidden[PLACES[2]] = 1.0

    def rough(X: np.ndarray) -> np.ndarray:
        # What belongs to the eigenvector is scattered over others.
        return np.asarray(evals[:, None] * X + 0.3 * np.roll(X, 7, axis=0) * hidden[:, None])

    found = SharesOfEigenvectors(rough, lambda X: evals[:, None] * X, start)
    for _ in range(20):
        found.step(np.array([0.45]))
    assert found.shares[0] >= 0.5 * (1.0 - 1e-12)


@pytest.mark.parametrize("single", [False, True])
def test_what_is_spread_is_soon_known_to_be(single: bool) -> None:
    evals = SPECTRA["even"]
    start = rng.standard_normal((n, 3))

    def rough(X: np.ndarray) -> np.ndarray:
        if not single:
            return evals[:, None] * X
        return (evals[:, None].astype(np.float32) * X.astype(np.float32)).astype(np.float64)

    found = SharesOfEigenvectors(rough, lambda X: evals[:, None] * X, start)
    goal = np.full(3, 0.25)
    steps = 0
    while np.any(found.shares >= goal) and steps < 8:
        weights = found.step(goal)
        steps += 1
    assert np.all(found.shares < goal)
    # It is a bound on the eigenvector that has most, and not on what a few have together.
    assert np.all(weights < found.shares * 1.05)


def test_a_vector_in_few_eigenvectors_ends_the_recurrence() -> None:
    evals = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    start = np.array([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]).T
    found = SharesOfEigenvectors(lambda X: evals[:, None] * X, lambda X: evals[:, None] * X, start)
    for _ in range(8):
        found.step(np.full(2, 0.3))
    assert 0.25 * (1.0 - 1e-12) <= found.shares[0] < 0.3
    assert found.shares[1] == 1.0
