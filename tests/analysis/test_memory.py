"""Peak memory of analysing a safetensors file, measured in a process of its own."""

import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
from safetensors.numpy import save_file

import pyspectra as ps
from pyspectra.analysis import work
from pyspectra.analysis.engine import PENDING_BYTES
from pyspectra.weights import Layer

MiB = 2**20
LAYERS, ROWS, COLS = 24, 4096, 512
TENSOR = ROWS * COLS * 4
GRAM = COLS * COLS * 8
# Packing slab, eigenvalue workspaces of each thread, the spectra, the allocator's slack.
SLACK = 32 * MiB

SCRIPT = """
import resource, sys
import numpy as np
import pyspectra as ps
ps.analyze({"warm.weight": np.random.default_rng(0).standard_normal((64, 64))})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = ps.analyze(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(report.layers), (after - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_peak_memory_is_one_tensor_and_the_waiting_gram_matrices(tmp_path):
    rng = np.random.default_rng(1)
    tensors = {
        f"layers.{i}.weight": rng.standard_normal((ROWS, COLS)).astype(np.float32)
        for i in range(LAYERS)
    }
    save_file(tensors, tmp_path / "model.safetensors")
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "model.safetensors"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout.split()
    layers, used = map(int, out)
    assert layers == LAYERS
    stated = TENSOR + min(LAYERS * GRAM, PENDING_BYTES) + SLACK
    assert used < stated
    # The statement says something: the file is more than twice as large.
    assert stated < LAYERS * TENSOR / 2


SQUARE, BROKEN = 2048, (4096, 1024)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("isa", ["baseline", "best"])
def test_peak_memory_of_a_large_square_layer_and_of_one_that_needs_an_svd(tmp_path, isa):
    rng = np.random.default_rng(2)
    square = rng.standard_normal((SQUARE, SQUARE)).astype(np.float32)
    broken = rng.standard_normal(BROKEN).astype(np.float32)
    broken[:, 1] = broken[:, 0]
    save_file({"a.weight": square, "b.weight": broken}, tmp_path / "model.safetensors")
    environment = {**os.environ, "PYSPECTRA_ISA": "baseline"} if isa == "baseline" else None
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "model.safetensors"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    ).stdout.split()
    layers, used = map(int, out)
    assert layers == 2
    gram = SQUARE * SQUARE * 8
    own = gram + max(square.nbytes, gram)  # the tensor is gone before the workspace comes
    svd = broken.nbytes + 2 * broken.size * 8  # as stored, the copy, LAPACK's QR workspace
    assert used < max(own, svd) + 2 * SLACK


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("small", [True, False])
def test_as_many_tensors_at_a_time_as_there_are_threads_where_layers_are_read_again_for_an_svd(
    tmp_path, monkeypatch, small, threads
):
    """Large layers come one at a time, small ones one a thread."""
    ps.set_num_threads(threads)
    if not small:
        monkeypatch.setattr(work, "SMALL", 1)
    rng = np.random.default_rng(3)
    low_rank = {f"{i}.weight": rng.standard_normal((20, 5)) @ np.eye(5, 30) for i in range(6)}
    save_file(low_rank, tmp_path / "model.safetensors")
    tensors = []
    real = Layer.load

    def load(layer, allocate=None):
        alive = sum(ref() is not None for ref in tensors)
        assert alive < (threads if small else 1)
        array = real(layer, allocate)
        tensors.append(weakref.ref(array.data))
        return array

    monkeypatch.setattr(Layer, "load", load)
    report = ps.analyze(tmp_path / "model.safetensors")
    assert [layer.esd.method for layer in report.layers] == ["svd"] * 6
    assert len(tensors) >= 12  # each once more, and some for the test for structure
