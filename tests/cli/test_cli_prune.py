"""``pyspectra prune``: what it writes, says and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.cli.main import main

numpy_io = pytest.importorskip("safetensors.numpy")

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        f"layers.{i}.fc.weight": rng.standard_t(2 + 4 * i, (60, 50)).astype(np.float32)
        for i in range(2)
    }
    tensors["embed.weight"] = rng.standard_normal((40, 20)).astype(np.float32)
    numpy_io.save_file(tensors, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def zeros(path: Path) -> dict[str, int]:
    return {key: int((x == 0).sum()) for key, x in numpy_io.load_file(path).items()}


def test_each_layer_loses_the_same(model: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["prune", str(model), "-o", str(out), "--sparsity", "0.5"]) == 0
    assert zeros(out) == {"layers.0.fc.weight": 1500, "layers.1.fc.weight": 1500, "embed.weight": 0}
    stdout, stderr = capsys.readouterr()
    assert stdout.splitlines() == [
        "layers.0.fc.weight  50.0 %  1500 of 60 x 50",
        "layers.1.fc.weight  50.0 %  1500 of 60 x 50",
    ]
    assert stderr.splitlines() == [
        "pyspectra: pruned 2 tensors: 3000 of 6000 weights are zero (50.0 %)",
        f"pyspectra: wrote {out}",
    ]


def test_the_ways_to_share_are_those_of_the_functions(
    model: Path, tmp_path: Path, capsys: Captured
) -> None:
    def run(*options: str) -> dict[str, int]:
        out = tmp_path / "out.safetensors"
        given = ["prune", str(model), "-o", str(out), "--sparsity", "0.6", "--overwrite", "-q"]
        assert main([*given, *options]) == 0
        return zeros(out)

    state = numpy_io.load_file(model)
    shares = ps.allocate_sparsity(
        ps.analyze(state, estimator="fix_finger", goodness=False), 0.6, epsilon=0.2
    )
    assert len(set(shares.values())) == 2
    for options, expected in (
        (["--by", "global"], ps.prune(state, 0.6, scope="global")),
        (["--by", "alpha", "--epsilon", "0.2"], ps.prune(state, shares)),
        (["--layers", "layers.1"], ps.prune(state, 0.6, layers="layers.1")),
    ):
        assert run(*options) == {key: int((x == 0).sum()) for key, x in expected.items()}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", "2"], "--sparsity must be in [0, 1), got 2.0"),
        (["--sparsity", "half"], "--sparsity must be in [0, 1), got 'half'"),
        (["--sparsity", "0.5", "--by", "layer"], "--by must be one of uniform, global, alpha"),
        (["--sparsity", "0.5", "--epsilon", "0.1"], "--epsilon goes with --by alpha"),
        (["--sparsity", "0.5", "--estimator", "ww"], "--estimator goes with --by alpha"),
        (["--sparsity", "0.5", "--by", "alpha", "--epsilon", "2"], "--epsilon must be in [0, 1)"),
        (["--sparsity", "0.5", "--layers", "x"], "--layers must hold what the model has"),
    ],
)
def test_refusals(
    model: Path, tmp_path: Path, capsys: Captured, options: list[str], words: str
) -> None:
    out = tmp_path / "out.safetensors"
    assert main(["prune", str(model), "-o", str(out), *options]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_what_exists_is_refused_before_the_analysis(
    model: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ps, "analyze", None)
    out = model.with_name("out.safetensors")
    out.write_bytes(b"precious")
    options = ["--sparsity", "0.5", "--by", "alpha"]
    assert main(["prune", str(model), "-o", str(out), *options]) == 2
    assert "which exists" in capsys.readouterr().err
    assert main(["prune", str(model), "-o", str(model), "--overwrite", *options]) == 2
    assert "one of the inputs" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    assert zeros(model)["embed.weight"] == 0
