"""The smallest change that the test for structure mostly finds."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps


def test_the_smallest_change_that_is_mostly_found() -> None:
    rng = np.random.default_rng(0)
    (layer,) = ps.analyze({"w.weight": rng.standard_normal((64, 32))}).layers
    size = layer.metrics["detectable_change"]
    assert size == pytest.approx(2.0 / (64 * 32) ** 0.25)
    found = 0
    for i in range(20):
        rng = np.random.default_rng([3, i])
        W = rng.standard_normal((64, 32))
        u, v = rng.standard_normal(64), rng.standard_normal(32)
        change = size * np.linalg.norm(W) * np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
        found += ps.analyze({"w.weight": W + change}).layers[0].warning != "no structure detected"
    assert found >= 16
    (conv,) = ps.analyze({"c.weight": rng.standard_normal((16, 8, 3, 3))}).layers
    assert conv.metrics["detectable_change"] == pytest.approx(2.0 / (128**0.25 * 3.0))
