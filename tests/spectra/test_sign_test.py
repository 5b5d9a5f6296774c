"""How random signs are drawn: the bits of numpy, and batches that are drawn together."""

from __future__ import annotations

import numpy as np
import pytest

from pyspectra import ops
from pyspectra.spectra import sign_test
from pyspectra.spectra.sign_bits import SignBits


@pytest.mark.parametrize("counts", [[8, 64, 100], [31, 33, 1, 1000, 7], [32, 32, 64]], ids=str)
def test_bits_are_those_of_numpy(counts: list[int]) -> None:
    rng, bits = np.random.Generator(np.random.Philox(key=7)), SignBits(7)
    for count in counts:
        assert bits.take(count).tobytes() == rng.bytes(-(-count // 8))


def stack(shape: tuple[int, int, int], correlation: float) -> np.ndarray:
    rng = np.random.default_rng(shape)
    return rng.standard_normal(shape) + correlation * rng.standard_normal((*shape[:2], 1))


# Tests that end at once, early, late and never; batches of fifty and of eight draws, and one whose
# bits do not end with a word.
@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.3, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(3, 8, 12), (8, 90, 88), (1, 23, 17)], ids=str)
def test_batches_drawn_together_are_those_drawn_one_by_one(
    shape: tuple[int, int, int], correlation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = stack(shape, correlation)
    together = sign_test.signs(W, key=3)
    batches = sign_test._batches
    monkeypatch.setattr(sign_test, "_batches", lambda *args: batches(*args)[:1])
    assert sign_test.signs(W, key=3) == together


def test_statistics_of_a_spectrum_are_those_of_its_matrices() -> None:
    W = stack((3, 8, 12), 0.3)
    evals = np.sort(np.square(np.linalg.svd(W, compute_uv=False)).ravel())
    (own,) = ops.sign_draws(W, np.zeros(W.size // 8, np.uint8), 1, centred=False)
    found = sign_test.of_spectrum(evals)
    np.testing.assert_allclose(found, own, rtol=1e-12)
    given, computed = sign_test.signs(W, key=3, own=found), sign_test.signs(W, key=3)
    assert given.p_value == pytest.approx(computed.p_value, rel=1e-9)
    assert given.reach == pytest.approx(computed.reach, rel=1e-9)
