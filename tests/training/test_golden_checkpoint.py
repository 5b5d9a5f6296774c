"""Averaged checkpoints of released versions go on being read, whole and as sources of averages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden.checkpoint import states

from pyspectra.training import average_checkpoints
from pyspectra.weights import open_weights

GOLDEN = Path(__file__).parents[1] / "golden"
MATRICES = ("embed.weight", "fc.weight")


def mean(key: str) -> np.ndarray:
    a, b, c = (state[key].astype(np.float64) for state in states())
    return np.asarray(a * 0.25 + b * 0.25 + c * 0.5).astype(states()[0][key].dtype)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_golden_checkpoint_is_a_model(suffix: str) -> None:
    source = open_weights(GOLDEN / f"checkpoint{suffix}")
    assert {layer.key: layer.dtype for layer in source} == {
        "embed.weight": "float32",
        "fc.weight": "float64",
    }
    for layer in source:
        np.testing.assert_array_equal(layer.load().data, mean(layer.key))
    assert {s.name: s.reason for s in source.skipped} == {
        "fc.bias": "bias: not a weight matrix",
        "steps": "not a weight: its name does not end in 'weight'",
        "mask": "not a weight: its name does not end in 'weight'",
    }


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_golden_checkpoints_can_be_averaged_again(tmp_path: Path, suffix: str) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes((GOLDEN / f"checkpoint{suffix}").read_bytes())
    average_checkpoints([GOLDEN / f"checkpoint{suffix}", copy], tmp_path / "again.safetensors")
    again = numpy_io.load_file(tmp_path / "again.safetensors")
    assert set(again) == set(states()[0])
    for key in (*MATRICES, "fc.bias"):
        assert again[key].dtype == states()[0][key].dtype
        np.testing.assert_array_equal(again[key], mean(key))
    assert again["steps"] == 3
    assert again["mask"].tolist() == [True, True]
