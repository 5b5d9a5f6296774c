"""Result files: whole or not at all, whatever they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import pyspectra as ps
from pyspectra._support.files import write_text

LONE = "a\ud800b"  # half a surrogate pair: Python has such names, UTF-8 does not


def test_what_utf8_does_not_have_is_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", f"{LONE} é\n")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "a\\ud800b é\n"


def test_a_layer_with_such_a_name_is_analysed_and_written(tmp_path: Path) -> None:
    state = {f"{LONE}.weight": np.random.default_rng(0).standard_t(2, (40, 30))}
    report = ps.analyze(state, bootstrap=10, randomize=True)
    assert report.layers[0].name == LONE
    assert np.isfinite(report.layers[0].fit.p_value)
    report.to_csv(tmp_path / "a.csv")
    report.to_json(tmp_path / "a.json")
    assert "a\\ud800b" in (tmp_path / "a.csv").read_text(encoding="utf-8")
