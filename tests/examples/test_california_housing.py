"""The tutorial runs as it stands in the source tree, with few epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from examples.tutorials import tutorial

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_tutorial_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, plot = tmp_path / "run.jsonl", tmp_path / "curves.png"
    options = ["--epochs", "6", "--history", str(run), "--plot", str(plot)]
    history = tutorial("california_housing").main(options)
    rows = history.epochs
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for row in rows:
        for name in ("train_rmse", "val_rmse", "train_mae", "val_mae"):
            assert row[name] > 0
        assert row["train_rmse"] == pytest.approx(np.sqrt(row["train_mse"]))
        assert row["val_rmse"] > row["val_mae"]
    # With dropout, and while the model still learns, validation is the better one.
    assert rows[0]["val_rmse"] < rows[0]["train_rmse"]
    assert rows[-1]["val_rmse"] < rows[0]["val_rmse"]
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if line.startswith(("error", "warning"))]
    assert "rmse: training falls by" in out
    assert "best validation mae" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run.read_text().count("\n") > 6 * 20
