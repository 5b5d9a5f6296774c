"""The experiment behind `docs/enough-data.md`: it runs, and the page says what was kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from examples.tutorials import tutorial

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "examples" / "results" / "enough_data.jsonl"


def test_it_trains_and_keeps_what_it_found(tmp_path: Path) -> None:
    script = tutorial("enough_data")
    if not script.DATA.is_dir():
        pytest.skip(f"Debian's package dataset-fashion-mnist is not installed ({script.DATA})")
    out = tmp_path / "rows.jsonl"
    options = ["--shares", "0.01", "--seeds", "7", "--steps", "2", "9", "--out", str(out)]
    for more in ([], ["--network", "cnn", "--noise", "0.5"]):
        script.main([*options, *more])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    kept = json.loads(KEPT.read_text().splitlines()[0])
    assert [(row["network"], row["noise"], row["step"]) for row in rows] == [
        ("dense", 0.0, 2), ("dense", 0.0, 9), ("cnn", 0.5, 2), ("cnn", 0.5, 9),
    ]  # fmt: skip
    assert all(row.keys() == kept.keys() for row in rows)
    assert rows[0]["train_accuracy"] < rows[1]["train_accuracy"]


def test_the_page_has_the_tables_and_the_picture_of_what_was_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    tutorial("enough_data").main(["--show", str(KEPT), "--plot", str(picture)])
    page = (ROOT / "docs" / "enough-data.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page
    assert picture.read_bytes().startswith(b"\x89PNG")
