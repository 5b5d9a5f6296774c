"""The progress bar: whatever the names of layers hold, it shows them and nothing more."""

from __future__ import annotations

import numpy as np
import pytest

import pyspectra as ps
from pyspectra._support import progress


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY_SECONDS", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("name", ["[/x]", "[bold]a", "]8;;http://x", "[/]"])
def test_names_are_no_markup(name: str, visible: None, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"{name}{i}.weight": np.random.default_rng(i).random((9, 9)) for i in range(3)}
    report = ps.analyze(state, progress=True)
    assert len(report.layers) == 3
    assert f"{name}2" in capsys.readouterr().err


def test_names_command_no_terminal(visible: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar(2, "analysing", True) as advance:
        advance("\r\n\x08")
        advance("\x1b]0;owned\x07\x9b2J\udce9")
    err = capsys.readouterr().err
    assert "owned" in err
    assert "\x1b]0;" not in err
    assert "\x07" not in err
    assert "\x9b" not in err
