"""Layers as values: what travels with them when they are pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyspectra.errors import FormatError
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.deltas import deltas

Array = np.ndarray
OVERHEAD = 2000  # bytes of a layer besides its elements


def state() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {
        "big.weight": rng.standard_normal((300, 200)),
        "qkv.weight": rng.standard_normal((90, 30)),
        "x.lora_A.weight": rng.standard_normal((2, 40)),
        "x.lora_B.weight": rng.standard_normal((30, 2)),
    }


def check(layer: Layer, most: int) -> None:
    raw = pickle.dumps(layer)
    assert len(raw) < most + OVERHEAD
    again = pickle.loads(raw)
    assert again == layer
    np.testing.assert_array_equal(again.load().to_float64(), layer.load().to_float64())
    twice = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(twice.load().to_float64(), layer.load().to_float64())


def test_a_layer_in_memory_takes_its_own_tensor_along() -> None:
    torch = pytest.importorskip("torch")
    content = state()
    module = torch.nn.ModuleDict({"big": torch.nn.Linear(200, 300), "qkv": torch.nn.Linear(30, 90)})
    for source in (open_weights(content), open_weights(module)):
        for layer in source:
            elements = int(np.prod(layer.shape))
            if layer.kind == "lora":
                elements = 2 * (40 + 30)
            check(layer, elements * 8)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pt"])
def test_a_layer_of_a_file_is_an_address(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    if suffix == "npz":
        np.savez(path, **state())
    elif suffix == "safetensors":
        pytest.importorskip("safetensors.numpy").save_file(state(), path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({key: torch.from_numpy(W) for key, W in state().items()}, path)
    with open_weights(path) as source:
        assert len(source) == 6
        for layer in source:
            check(layer, 0)


def test_a_difference_takes_both_sides_along() -> None:
    a, b = state(), {key: 2 * W for key, W in state().items()}
    for layer in deltas(open_weights(a), open_weights(b)).layers:
        again = pickle.loads(pickle.dumps(layer))
        (x, change), (y, other) = layer.load_with_change(), again.load_with_change()
        np.testing.assert_array_equal(x.data, y.data)
        assert change == other
        assert change is not None


def test_a_tensor_that_cannot_be_read_fails_where_it_is_loaded() -> None:
    source: WeightSource = open_weights(state())
    layer = next(layer for layer in source if layer.name == "big")
    part = next(layer for layer in source if layer.part_of)
    source.close()
    for lost in (layer, part):
        again: Any = pickle.loads(pickle.dumps(lost))
        with pytest.raises(FormatError, match="its source has been closed"):
            again.load()


def test_a_weight_has_no_floor() -> None:
    layer = open_weights(state()).layers[0]
    array, change = layer.load_with_change()
    assert change is None
    np.testing.assert_array_equal(array.data, layer.load().data)
