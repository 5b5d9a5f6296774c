"""``pyspectra merge``: what it writes, says, prints and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.cli.main import main

numpy_io = pytest.importorskip("safetensors.numpy")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    base = {f"layers.{i}.fc.weight": rng.standard_t(3, (60, 40)) for i in range(2)}
    base["n"] = np.array(3)
    numpy_io.save_file(base, tmp_path / "base.safetensors")
    for name, size in (("a", 0.1), ("b", 0.2)):
        tuned = {k: W + size * rng.standard_normal(W.shape) if W.ndim else np.array(W + 1)
                 for k, W in base.items()}  # fmt: skip
        numpy_io.save_file(tuned, tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = ["base.safetensors", "a.safetensors", "b.safetensors"]


def test_it_writes_what_the_function_returns(folder: Path, capsys: Captured) -> None:
    options = ["--method", "dare_ties", "--weights", "1", "0.5", "--density", "0.3", "0.7",
               "--scale", "0.8", "--seed", "4", "--no-normalize"]  # fmt: skip
    assert main(["merge", *FILES, "-o", "out.safetensors", *options]) == 0
    states = [numpy_io.load_file(file) for file in FILES]
    expected = ps.merge(
        states[0], states[1:], method="dare_ties", weights=[1, 0.5], density=[0.3, 0.7],
        scale=0.8, seed=4, normalize=False,
    )  # fmt: skip
    got = numpy_io.load_file("out.safetensors")
    assert all(np.array_equal(got[key], value) for key, value in expected.items())
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.splitlines() == [
        "pyspectra: merged 2 models (a.safetensors, b.safetensors) into base.safetensors by "
        "dare_ties: 2 tensors, 1 more from the base",
        "pyspectra: wrote out.safetensors",
    ]


def test_the_table_of_spectra(folder: Path, capsys: Captured) -> None:
    assert main(["merge", *FILES, "-o", "out.safetensors", "-q", "--spectra"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stderr == ""
    head, *rows = stdout.partition("\n\n")[0].splitlines()
    assert head.split() == ["layer", "alpha", "merged", "d1", "d2", "d"]
    before, after = ps.analyze("base.safetensors"), ps.analyze("out.safetensors")
    states = [numpy_io.load_file(file) for file in (*FILES, "out.safetensors")]
    assert [row.split()[0] for row in rows] == ["layers.0.fc", "layers.1.fc"]
    for row, x, y in zip(rows, before, after, strict=True):
        W, *others = (state[x.key] for state in states)
        changes = [f"{100 * np.linalg.norm(V - W) / np.linalg.norm(W):.3g}" for V in others]
        cells = row.replace("%", "").split()
        assert cells[1:] == [f"{x.alpha:.2f}", f"{y.alpha:.2f}", *changes]
    assert "d2: norm of b.safetensors less the base" in stdout


def test_not_finite_is_said(folder: Path, capsys: Captured) -> None:
    broken = {k: np.full_like(W, np.nan) if W.ndim else W
              for k, W in numpy_io.load_file("a.safetensors").items()}  # fmt: skip
    numpy_io.save_file(broken, "a.safetensors")
    assert main(["merge", *FILES, "-o", "out.pt", "--method", "ties"]) == 0
    assert capsys.readouterr().err.endswith(
        "pyspectra: warning: not finite: tensor 'layers.0.fc.weight' and 1 more\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base.safetensors", "-o", "o.pt"], "the following arguments are required: MODEL"),
        (["no.pt", "a.safetensors", "-o", "o.pt"], "BASE: no such file or folder: 'no.pt'"),
        (["base.safetensors", "no.pt", "-o", "o.pt"], "MODEL 1: no such file or folder"),
        ([*FILES, "-o", "a.safetensors", "--overwrite"], "--out must be a file or a new folder"),
        ([*FILES, "-o", "o.pt", "--weights", "1"], "--weights must have one number for each of"),
        ([*FILES, "-o", "o.pt", "--density", "0.2"], "--density must go with method 'magnitude"),
        ([*FILES, "-o", "o.pt", "--method", "sum"], "invalid choice: 'sum'"),
        ([*FILES, "other.safetensors", "-o", "o.pt"],
         "MODEL 3 must have the names and shapes of the base"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_status_2(
    folder: Path, capsys: Captured, arguments: list[str], message: str
) -> None:
    numpy_io.save_file({"w": np.ones((3, 3))}, "other.safetensors")
    before = sorted(folder.iterdir())
    assert main(["merge", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
