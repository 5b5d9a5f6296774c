"""Spikes and traps come up in random layers of any entries as rarely as is said, and are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from truth import cases

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.spectra.outliers import own_tail

DRAWS = {
    **{name: cases.DRAWS[name] for name in ("gaussian", "laplace", "t5", "t3", "row_gains")},
    "sparse": lambda rng, shape: rng.standard_normal(shape) * (rng.random(shape) < 0.1),
}
N_LAYERS = 60


def layers(draw: Any, shape: tuple[int, ...], seed: int) -> list[Any]:
    state = {}
    for i in range(N_LAYERS):
        rng = np.random.default_rng([seed, i])
        state[f"{i}.weight"] = np.asarray(draw(rng, shape), np.float32)
    return list(ps.analyze(state, mp_fit=True, randomize=True, goodness=False).layers)


@pytest.mark.parametrize("entries", DRAWS)
@pytest.mark.parametrize("shape", [(48, 96), (16, 24, 3, 3), (64, 1, 3, 3)])
def test_random_layers_have_neither_spikes_nor_traps(entries: str, shape: tuple[int, ...]) -> None:
    found = layers(DRAWS[entries], shape, 31)
    # One in a hundred has: more than four of sixty happens once in 2500 tables.
    assert sum(layer.metrics["n_spikes"] > 0 for layer in found) <= 4
    assert sum(layer.metrics["n_traps"] > 0 for layer in found) <= 4
    for layer in found:
        fit = layer.mp
        assert fit.n_spikes == np.count_nonzero(layer.esd.evals > fit.spike_threshold)


@pytest.mark.parametrize("entries", ["gaussian", "laplace", "t5"])
def test_directions_in_random_layers_are_found(entries: str) -> None:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        W = np.asarray(DRAWS[entries](rng, shape), np.float64)
        u, v = rng.standard_normal(shape[0]), rng.standard_normal(shape[1])
        size = 3.0 * W.std() * (shape[0] * shape[1]) ** 0.25
        planted: np.ndarray = W + size * np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
        return planted

    found = layers(draw, (48, 96), 32)
    assert sum(layer.metrics["n_spikes"] == 1 for layer in found) >= 50


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_entries_beyond_the_tail_of_the_others_are_traps(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    plain = rng.standard_normal((60, 80))
    for n_outliers in (1, 3, 5):
        W = plain.copy()
        for i in range(n_outliers):
            W[7 * i, 11 * i] = 30.0 + i
        state = {"w.weight": torch.tensor(W).to(getattr(torch, dtype))}
        (layer,) = ps.analyze(state, randomize=True).layers
        assert layer.metrics["n_traps"] == n_outliers


def test_the_mean_of_the_entries_is_no_trap() -> None:
    rng = np.random.default_rng(4)
    W = rng.random((40, 60, 2, 1))
    W[5, 6, 0, 0] = 30.0
    (layer,) = ps.analyze({"w.weight": W}, randomize=True).layers
    assert layer.randomized.n_means == 2
    assert layer.metrics["n_traps"] == 1


def test_the_largest_entry_lies_within_the_reach_of_its_tail() -> None:
    beyond = 0
    for i in range(400):
        rng = np.random.default_rng([5, i])
        W = (rng.pareto(3.0, (40, 50)) + 1.0) * rng.choice([-1.0, 1.0], (40, 50))
        X = HostArray(W, "float64")
        beyond += np.max(np.abs(X.data)) > own_tail([X]).largest
    assert beyond <= 11  # of 4 that are expected: more once in 1000


@pytest.mark.parametrize("W", [np.zeros((5, 6)), np.ones((5, 6)), np.eye(30), np.full((1, 9), 3.0)])
def test_layers_without_a_tail(W: np.ndarray) -> None:
    tail = own_tail([HostArray(W.copy(), "float64")])
    assert tail.largest > 0.0
    assert 0.0 <= tail.reach <= 1.0
    assert np.isfinite(tail.kurtosis)
