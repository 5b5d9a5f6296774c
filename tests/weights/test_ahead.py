"""Reading ahead: what a thread brings into the page cache, and what is let go of behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import pyspectra as ps
from pyspectra.weights import ahead
from pyspectra.weights.ahead import ReadAhead

pytestmark = pytest.mark.skipif(
    not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise"
)

SIDE = 256
BYTES = SIDE * SIDE * 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {f"h.{i}.weight": rng.random((SIDE, SIDE), np.float32) for i in range(6)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places of the file that were read ahead: the cache is empty at all times."""
    places: list[int] = []
    real = os.preadv

    def preadv(file: int, buffers: Any, place: int, *flags: int) -> int:
        places.append(place)
        return real(file, buffers, place)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(ahead, "_is_cached", lambda file, place: False)
    return places


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes from where the system was told to forget."""
    places: list[int] = []

    def posix_fadvise(file: int, begin: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        places.append(begin)

    monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
    return places


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 20.0
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "pyspectra-read"]


def test_no_more_is_read_ahead_than_the_window(
    path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "WINDOW", 2 * BYTES)
    layers = ps.open_weights(path).layers
    begins = [layer.extents[0].begin for layer in layers]
    with ReadAhead(layers) as reader:
        for k in range(3):
            until(lambda n=k + 3: len(read) >= n)
            time.sleep(0.02)
            assert read == begins[: k + 3]
            reader.loaded()
    assert threads() == []


def test_what_is_large_leaves_the_cache_but_for_what_was_in_it(
    path: Path, dropped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ps.open_weights(path).layers
    begins = [layer.extents[0].begin for layer in layers]
    monkeypatch.setattr(ahead, "_is_cached", lambda file, place: place == begins[1])
    with ReadAhead(layers, memory=8 * 6 * BYTES - 8) as reader:
        assert reader._thread is not None
        reader._thread.join()
        for _ in range(3):
            reader.loaded()
        assert dropped == []
        reader.done()
        assert dropped == [begins[0], begins[2]]
        for _ in range(3):
            reader.loaded()
    assert dropped == [begin for begin in begins if begin != begins[1]]
    dropped.clear()
    with ReadAhead(layers, memory=8 * 6 * BYTES) as reader:
        for _ in layers:
            reader.loaded()
    assert dropped == []


def test_a_tensor_that_several_layers_read_stays_until_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[int]
) -> None:
    monkeypatch.setattr(ahead, "_is_cached", lambda file, place: False)  # it has just been written
    fused = np.random.default_rng(1).random((96, 32), np.float32)
    save_file({"attn.c_attn.weight": fused.T.copy()}, tmp_path / "model.safetensors")
    layers = ps.open_weights(tmp_path / "model.safetensors").layers
    assert len(layers) == 4
    assert len({layer.extents for layer in layers}) == 1
    with ReadAhead(layers, memory=1) as reader:
        for k in range(4):
            assert dropped == []
            reader.loaded()
            reader.done()
            assert len(dropped) == (k == 3)


def test_models_in_memory_need_no_thread() -> None:
    layers = ps.open_weights({"a.weight": np.ones((9, 9))}).layers
    assert layers[0].extents == ()
    with ReadAhead(layers) as reader:
        assert threads() == []
        reader.loaded()


def test_differences_know_where_both_of_their_tensors_lie(path: Path, tmp_path: Path) -> None:
    from pyspectra.weights.deltas import deltas

    with ps.open_weights(path) as a, ps.open_weights(path) as b:
        (first, *_) = deltas(a, b).layers
        assert first.extents == (*a.layers[0].extents, *b.layers[0].extents)


def test_an_interrupt_leaves_no_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WINDOW", 0)

    def interrupted(*_: Any) -> None:
        assert threads() == ["pyspectra-read"]
        raise KeyboardInterrupt

    monkeypatch.setattr("pyspectra.ops.eigvals", interrupted)
    monkeypatch.setattr("pyspectra.analysis.engine.PENDING_BYTES", 8 * SIDE * SIDE)
    with pytest.raises(KeyboardInterrupt):
        ps.analyze(path)
    assert threads() == []


def test_a_file_that_is_gone_is_reported_where_it_is_loaded(path: Path) -> None:
    source = ps.open_weights(path)
    path.unlink()
    report = ps.analyze(source)
    assert len(report.layers) == 0
    assert {"cannot be read" in skipped.reason for skipped in report.skipped} == {True}
    assert threads() == []
