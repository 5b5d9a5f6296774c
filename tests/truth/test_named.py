"""Structures with a name are recognised in many shapes, types and sizes, and in nothing else."""

from __future__ import annotations

import pytest
import real_models

import pyspectra as ps
from truth import named

FRESH = 100
# A matrix that is orthogonal but for noise is known by its singular values, which the pieces of a
# convolution do not show; means and scales of rows of 16 entries may be too small to be told.
MAY_BE_MISSED = {"nearly orthogonal": 0.4, "mean direction": 0.1, "mixed scales": 0.1}


@pytest.mark.parametrize("name", named.CASES)
def test_structures_are_recognised(name: str) -> None:
    functions = named.CASES[name][::2]
    layers = ps.analyze(named.drawn(functions, FRESH), min_evals=1, goodness=False).layers
    good = {name, *named.ALSO.get(name, ())}
    missed = [
        function.args
        for function, layer in zip(functions, layers, strict=True)
        if not good & set(layer.structures)
    ]
    assert len(missed) <= MAY_BE_MISSED.get(name, 0.0) * len(layers), missed
    if name in ("orthogonal", "sinusoidal table"):
        assert all(layer.null is not None and layer.null.p_value > 0.01 for layer in layers)


def test_plain_random_layers_have_no_name() -> None:
    layers = ps.analyze(named.drawn(named.PLAIN * 3, FRESH), min_evals=1, goodness=False).layers
    assert [layer.structures for layer in layers] == [()] * len(layers)


@pytest.mark.parametrize("model", ["minilm_l6", "hed_v1", "hed_v2", "efficientnet_lite0"])
def test_trained_layers_have_no_name_that_is_wrong(model: str) -> None:
    layers = ps.analyze(getattr(real_models, model)(), goodness=False).layers
    found = {name for layer in layers for name in layer.structures}
    assert found <= {"mixed scales", "mean direction", "zero rows or columns"}
