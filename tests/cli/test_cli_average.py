"""``pyspectra average``: what it writes, says and refuses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pyspectra.cli.main import main

numpy_io = pytest.importorskip("safetensors.numpy")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for step in (5, 10, 20):
        tensors = {"w": np.full((2, 3), step, np.float32), "n": np.array(step)}
        numpy_io.save_file(tensors, folder / f"step_{step}.safetensors")
    return folder


def test_a_folder(run: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "mean.safetensors"
    assert main(["average", str(run), "-o", str(out), "--last", "2"]) == 0
    result = numpy_io.load_file(out)
    assert (result["w"] == 15).all()
    assert result["n"] == 20
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.splitlines() == [
        f"pyspectra: averaged 2 checkpoints ({run / 'step_10.safetensors'}, "
        f"{run / 'step_20.safetensors'}): 1 tensor, 1 more from the newest",
        f"pyspectra: wrote {out}",
    ]


def test_a_list_with_weights_quietly(run: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "mean.safetensors"
    paths = [str(run / f"step_{i}.safetensors") for i in (5, 20)]
    assert main(["average", *paths, "-o", str(out), "--weights", "1", "3", "-q"]) == 0
    assert (numpy_io.load_file(out)["w"] == 16.25).all()
    assert capsys.readouterr() == ("", "")


def test_an_existing_file_is_replaced_on_demand_only(
    run: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "mean.safetensors"
    out.write_bytes(b"precious")
    assert main(["average", str(run), "-o", str(out)]) == 2
    assert "Hint: " in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert main(["average", str(run), "-o", str(out), "--overwrite", "-q"]) == 0
    assert (numpy_io.load_file(out)["w"] == np.float32(35 / 3)).all()


def test_not_finite_is_said(run: Path, tmp_path: Path, capsys: Captured) -> None:
    tensors = {"w": np.full((2, 3), np.nan, np.float32), "n": np.array(30)}
    numpy_io.save_file(tensors, run / "step_30.safetensors")
    assert main(["average", str(run), "-o", str(tmp_path / "o.safetensors")]) == 0
    assert capsys.readouterr().err.endswith("pyspectra: warning: not finite: tensor 'w'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "the following arguments are required: -o/--out"),
        (["nowhere", "-o", "o.pt"], "CKPT: no such file or folder: 'nowhere'"),
        (["run", "-o", "no/o.pt"], "--out must be a file or a new folder"),
        (["run", "-o", "o.safetensors", "--last", "0"], "--last must be an integer of at least 2"),
        (["run", "-o", "o.safetensors", "--weights", "1"], "--weights must have one number for"),
        (["run", "-o", "o.safetensors", "--weights", "x"], "invalid float value: 'x'"),
        (["run/step_5.safetensors", "run/step_10.safetensors", "-o", "o.pt", "--last", "1"],
         "--last goes with one folder of checkpoints, got 2 paths"),
        (["run/step_5.safetensors", "run/step_10.safetensors", "-o", "run/step_5.safetensors"],
         "is one of the inputs"),
        (["run/broken.safetensors", "run/step_5.safetensors", "-o", "o.pt"],
         "broken.safetensors: the file is empty"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_status_2(
    run: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(run.parent)
    (run / "broken.safetensors").touch()
    before = sorted(os.listdir(run.parent))
    assert main(["average", *arguments]) == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("pyspectra: error: ")
    assert message in stderr
    assert sorted(os.listdir(run.parent)) == before
