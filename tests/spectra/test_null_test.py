"""The test for structure: what it need not read again, it decides as if it had."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.spectra import null_test


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
