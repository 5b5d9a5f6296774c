"""What is asked of every file format that holds a whole model, on a small file of each."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from weights_checks import by_name, nothing_is_read, sigma

import pyspectra as ps
from pyspectra.errors import FormatError
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.matricize import matricize, matrix_shape

FILES = Path(__file__).parents[1] / "data" / "containers"


def spectrum(layer: Layer) -> np.ndarray:
    """Singular values of all matrices of a layer, in ascending order."""
    found = matricize(layer, layer.load())
    assert matrix_shape(layer) == (found.N, found.M, found.rf)
    return np.sort([s for part in found.slices for s in sigma(part.to_float64())])


def torch_spectrum(weight: np.ndarray) -> np.ndarray:
    """The same of a weight as PyTorch has it: (out, in), (out, in, *kernel)."""
    matrices = weight.reshape(*weight.shape[:2], -1).transpose(2, 0, 1)
    return np.sort([s for matrix in matrices for s in sigma(matrix.astype(np.float64))])


def open_files() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return found


def wholes(source: WeightSource) -> dict[str, Layer]:
    return {name: la for name, la in by_name(source).items() if la.part_of is None}


def load_all(path: Path) -> None:
    for layer in open_weights(path):
        layer.load()


def check_container(path: Path, expected: Mapping[str, np.ndarray], tmp_path: Path) -> WeightSource:
    """Compare a file with the weights that it holds, as PyTorch has them.

    Parameters
    ----------
    path : Path
        The file or folder.
    expected : Mapping
        Name of every layer -> its weight.
    tmp_path : Path
        An empty folder.
    """
    copy = tmp_path / path.name
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copy(path, copy)
    files = [p for p in copy.rglob("*") if p.is_file()] if copy.is_dir() else [copy]
    with nothing_is_read():
        source = open_weights(copy)
    layers = wholes(source)
    assert set(layers) == set(expected)
    for name, weight in expected.items():
        np.testing.assert_allclose(
            spectrum(layers[name]), torch_spectrum(weight), rtol=1e-5, atol=1e-6
        )
        assert not layers[name].in_memory
        again = pickle.loads(pickle.dumps(layers[name])).load()
        np.testing.assert_array_equal(again.data, layers[name].load().data)
        given = layers[name].load(lambda shape, dtype: np.full(shape, 7, dtype))
        np.testing.assert_array_equal(given.data, again.data)
    assert not {str(p) for p in files} & open_files()
    arrays: dict[str, Any] = {
        f"{name}.weight" if w.ndim == 2 else f"{name}.conv.weight": w
        for name, w in expected.items()
    }
    np.savez(tmp_path / "same.npz", **arrays)
    same = wholes(open_weights(tmp_path / "same.npz"))
    assert sorted(map(matrix_shape, layers.values())) == sorted(map(matrix_shape, same.values()))
    report = ps.analyze(copy, min_evals=2)
    assert {row.name for row in report.layers if row.part_of is None} <= set(expected)
    for p in files:
        os.utime(p, ns=(1, 1))
    with pytest.raises(FormatError, match="changed since it was opened"):
        next(iter(layers.values())).load()
    return source


def check_truncated(path: Path, tmp_path: Path, ends: Iterable[int], suffix: str = "") -> None:
    """A file that was cut off is refused, or what is missing is."""
    raw = path.read_bytes()
    broken = tmp_path / f"broken{suffix or path.suffix}"
    for end in ends:
        broken.write_bytes(raw[:end])
        with pytest.raises(FormatError):
            load_all(broken)
