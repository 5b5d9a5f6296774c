"""The second tutorial runs as it stands in the source tree, with fewer images."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples.tutorials import tutorial

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_tutorial_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tutorial("fashion_mnist")
    if not script.DATA.is_dir():
        pytest.skip(f"Debian's package dataset-fashion-mnist is not installed ({script.DATA})")
    page, plot = tmp_path / "run.html", tmp_path / "curves.png"
    options = ["--images", "3200", "--epochs", "3", "--repeats", "2"]
    good, bad, subsets, history, report = script.main(
        [*options, "--html", str(page), "--plot", str(plot)]
    )
    assert good.verdict == "fits"
    assert bad.verdict != "fits"
    assert bad.findings[0].code == "loss_input"
    # Ten times the images are better by far more than the spread of the subsets.
    best = history.best("val_accuracy").value
    assert 0.55 < min(subsets) < max(subsets) < best
    assert best > 0.7
    assert [x.code for x in report if x.severity != "info"] == []
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert [line["step"] for line in history.spectra] == [0, 100]
    out = capsys.readouterr().out
    for words in ("1. one batch: fits", "softmax", "2. 2 subsets of 300", "3. all 3200"):
        assert words in out
    assert "Training run" in page.read_text(encoding="utf-8")
    assert plot.read_bytes().startswith(b"\x89PNG")
