"""Averaged files: what is the same stays the same, a full disk, a signal, Lightning's own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyspectra.training import average_checkpoints

numpy_io = pytest.importorskip("safetensors.numpy")
torch = pytest.importorskip("torch")

HOSTILE = [0.1, -0.0, 0.0, 1 / 3, 5e-324, -1.7e308, 1.7976931348623157e308, np.inf, -np.inf]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_the_mean_of_the_same_files_is_the_file(
    tmp_path: Path, count: int, weighted: bool, dtype: Any
) -> None:
    own = np.concatenate([HOSTILE, np.random.default_rng(0).standard_normal(500)]).astype(dtype)
    for k in range(count):
        numpy_io.save_file({"w": own}, tmp_path / f"step_{k}.safetensors")
    weights = [0.1 * (k + 1) for k in range(count)] if weighted else None
    average_checkpoints(tmp_path, tmp_path / "mean.safetensors", weights=weights)
    got = numpy_io.load_file(tmp_path / "mean.safetensors")["w"]
    assert got.tobytes() == own.tobytes()


def test_zeros_of_both_signs(tmp_path: Path) -> None:
    for k, values in enumerate([[-0.0, -0.0, 1.0], [-0.0, 0.0, 3.0]]):
        numpy_io.save_file({"w": np.array(values)}, tmp_path / f"step_{k}.safetensors")
    average_checkpoints(tmp_path, tmp_path / "mean.safetensors")
    got = numpy_io.load_file(tmp_path / "mean.safetensors")["w"]
    assert got.tolist() == [0.0, 0.0, 2.0]
    assert np.signbit(got).tolist() == [True, False, False]


def checkpoints(folder: Path, size: int = 200_000) -> None:
    for k in range(2):
        torch.save(
            {"a": torch.full((size,), float(k)), "b": torch.ones(3)}, folder / f"step_{k}.pt"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("out", ["mean.pt", "mean.safetensors"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, out: str) -> None:
    checkpoints(tmp_path)
    program = f"""
        import resource, signal
        import torch
        from pyspectra.training import average_checkpoints
        from pyspectra.cli.main import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            average_checkpoints({str(tmp_path)!r}, {str(tmp_path / out)!r})
        except OSError as error:
            print(error.errno, error.filename)
        print(main(["average", {str(tmp_path)!r}, "-o", {str(tmp_path / out)!r}]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{errno.EFBIG} {tmp_path / out}", "2"]
    assert done.stderr.strip() == f"pyspectra: error: {str(tmp_path / out)!r}: File too large."
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_0.pt", "step_1.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
@pytest.mark.parametrize("out", ["mean.pt", "mean.safetensors", "folder"])
def test_a_process_that_is_terminated_leaves_nothing(tmp_path: Path, out: str) -> None:
    checkpoints(tmp_path)
    if out == "folder":
        for k in range(2):
            value = {"a": np.full(200_000, float(k))}
            numpy_io.save_file(value, tmp_path / f"step_{k}.safetensors")
            (tmp_path / f"step_{k}.pt").unlink()
    before = sorted(tmp_path.iterdir())
    program = f"""
        import os, signal
        from pyspectra.training import averaging, average_checkpoints
        mean = averaging.Mean._mean
        def slow(self, values):
            print(sorted(os.listdir({str(tmp_path)!r})), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            return mean(self, values)
        averaging.Mean._mean = slow
        average_checkpoints({str(tmp_path)!r}, {str(tmp_path / out)!r})
        print("not reached")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert "not reached" not in done.stdout
    assert ".tmp" in done.stdout or out == "mean.pt"  # which is in memory until all is known
    assert sorted(tmp_path.iterdir()) == before


def test_who_handles_the_signal_goes_on_to(tmp_path: Path) -> None:
    checkpoints(tmp_path, size=10)
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        average_checkpoints(tmp_path, tmp_path / "mean.pt")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
    average_checkpoints(tmp_path, tmp_path / "mean.safetensors", overwrite=True)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_averages_of_lightning_load_from_checkpoint(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, name: str = "a") -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(width, 1)

    module = Module(3, name="b")
    trainer = pl.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
    trainer.strategy.connect(module)
    for k in range(2):
        torch.nn.init.constant_(module.net.weight, float(k))
        trainer.save_checkpoint(tmp_path / f"step={k}.ckpt", weights_only=bool(k))
    average_checkpoints(tmp_path, tmp_path / "mean.ckpt")
    loaded = Module.load_from_checkpoint(tmp_path / "mean.ckpt")
    assert torch.all(loaded.net.weight == 0.5)
    assert loaded.hparams == {"width": 3, "name": "b"}
    average_checkpoints([tmp_path / f"step={k}.ckpt" for k in range(2)], tmp_path / "mean.pt")
    state = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert [*state] == ["net.weight", "net.bias"]  # a state dict as before
