"""The laws of random signs: they follow the draws where they are believed, and find directions."""

from __future__ import annotations

import numpy as np
import pytest
from truth import cases

import pyspectra as ps
from pyspectra._arrays import HostArray
from pyspectra.spectra import sign_laws
from pyspectra.spectra.margins import margins
from pyspectra.spectra.sign_bits import SignBits


def of(W: np.ndarray) -> tuple[float, float]:
    esd, m = ps.esd(W), margins([HostArray(W, "float64")])
    surplus = float(esd.evals @ esd.evals) - m.expected
    return sign_laws.excess_p_value(surplus, m), sign_laws.largest_p_value(esd, m)


@pytest.mark.parametrize("entries", ["gaussian", "uniform", "row_gains", "t3"])
def test_p_values_are_not_too_small_where_signs_are_random(entries: str) -> None:
    W = np.asarray(cases.DRAWS[entries](np.random.default_rng(1), (90, 60)), np.float64)
    rng = np.random.default_rng(2)
    p = np.array([of(W * rng.choice([-1.0, 1.0], W.shape)) for _ in range(150)])
    excess, largest = p[np.isfinite(p).all(1)].T
    assert len(excess) > 100 or entries == "t3"
    # 14 of 150 where one in 20 is true: this fails once in 100.
    for found in (excess, largest):
        assert np.mean(found <= 0.05) <= 0.1
    if entries in ("gaussian", "uniform"):
        assert 0.35 < np.mean(excess <= 0.5) < 0.65
        assert 0.3 < np.mean(largest <= 0.5) < 0.7


def test_the_excess_has_the_variance_of_draws() -> None:
    rng = np.random.default_rng(3)
    W = rng.standard_t(5, (70, 50)) * np.exp(0.5 * rng.standard_normal((70, 1)))
    m = margins([HostArray(W, "float64")])
    bits = SignBits(4)
    stack = [bits.flip(W[None])[0] for _ in range(400)]
    sums = np.array([np.sum(x**2) for x in (w.T @ w for w in stack)])
    z = abs(sums - m.expected) / np.std(sums)
    p = np.array([sign_laws.excess_p_value(x - m.expected, m) for x in sums])
    # The same p-values as those of the standard deviation that was observed.
    assert np.mean(p <= 0.05) == pytest.approx(np.mean(z > 1.96), abs=0.03)


@pytest.mark.parametrize("entries", ["gaussian", "t3"])
def test_a_direction_is_left_to_draws(entries: str) -> None:
    rng = np.random.default_rng(5)
    W = np.asarray(cases.DRAWS[entries](rng, (128, 64)), np.float64)
    W /= W.std()
    u, v = rng.standard_normal(128), rng.standard_normal(64)
    W += 2.0 * (128 * 64) ** 0.25 * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
    m = margins([HostArray(W, "float64")])
    assert sign_laws.believed(ps.esd(W), m) is None


def test_several_matrices_and_zeros() -> None:
    rng = np.random.default_rng(6)
    conv = rng.standard_normal((48, 40, 3, 3))
    conv[:, :, 0, 0] = 0.0
    found = ps.analyze({"conv.weight": conv * rng.standard_t(6, conv.shape)}, goodness=False)
    assert found.layers[0].null.p_value > 0.01
    empty = margins([HostArray(np.zeros((5, 4)), "float64")])
    assert np.isnan(sign_laws.excess_p_value(0.0, empty))
