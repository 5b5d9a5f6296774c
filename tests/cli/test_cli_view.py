"""What the table of ``pyspectra analyze`` shows, and the same as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pyspectra.cli.main import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    names = ("self_attn.q_proj", "mlp.up_proj")
    tensors = {
        f"layers.{i}.{name}.weight": rng.standard_normal((20, 16)).astype(np.float32)
        for i in range(22)
        for name in names
    }
    save_file(tensors, path)
    return path


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if "20x16" in line]


@pytest.mark.parametrize(
    ("flags", "count"),
    [([], 12), (["--all"], 44), (["--top", "3"], 3), (["--by", "role"], 0),
     (["--sort", "alpha", "--reverse", "--top", "5"], 5)],
)  # fmt: skip
def test_the_rows_of_the_table(model: Path, capsys: Any, flags: list[str], count: int) -> None:
    assert main(["analyze", str(model), "--no-goodness", *flags]) == 0
    out = capsys.readouterr().out
    assert len(rows(out)) == count
    assert out.index("verdict  ") < 200
    assert out.splitlines()[-1].startswith("verdict  ")
    assert ("--all lists all" in out) == (0 < count < 44)


def test_markdown_has_the_same_rows(model: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "r.md"
    flags = ["--no-goodness", "--top", "4"]
    assert main(["analyze", str(model), "--md", str(target), *flags]) == 0
    assert f"wrote {target}" in capsys.readouterr().err
    assert len(rows(target.read_text(encoding="utf-8"))) == 4
    assert main(["analyze", str(model), "--md", "-", *flags]) == 0
    assert capsys.readouterr().out == target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sort", "alpa"], "--sort must be one of"),
        (["--sort", "alpa"], "did you mean 'alpha'?"),
        (["--top", "0"], "--top must be a positive integer, got 0"),
        (["--top", "few"], "--top must be"),
        (["--by", "rol"], "did you mean 'role'?"),
        (["--reverse"], "--reverse goes with --sort"),
        (["--md", "{model}"], "would overwrite the model"),
    ],
)
def test_it_is_refused_before_the_work(
    model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str
) -> None:
    monkeypatch.setattr("pyspectra.analyze", lambda *_, **__: pytest.fail("analysed"))
    assert main(["analyze", str(model), *(flag.format(model=model) for flag in flags)]) == 2
    assert words in capsys.readouterr().err
