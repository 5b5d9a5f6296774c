"""``pyspectra diagnose``: its streams, its files, its exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyspectra.cli.main import main
from pyspectra.training import History

OVERFITTING = [(1.0, 1.1), (0.6, 0.8), (0.4, 0.7), (0.3, 0.9), (0.2, 1.0), (0.1, 1.2)]


def run_of(path: Path, losses: list[tuple[float, float]]) -> str:
    with History(path) as history:
        for epoch, (train, val) in enumerate(losses, 1):
            history.log(step=10 * epoch, epoch=epoch, train_loss=train, val_loss=val)
    return str(path)


def test_findings_and_reading_go_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run.jsonl", OVERFITTING)
    assert main(["diagnose", run]) == 0
    out, err = capsys.readouterr()
    assert "warning: overfitting" in out
    assert "    - " in out
    assert "the weights of epoch 3 are the ones to keep" in out
    assert err == ""


def test_the_exit_status_says_how_grave_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run.jsonl", OVERFITTING)
    assert main(["diagnose", run, "--fail-on", "warning"]) == 1
    assert main(["diagnose", run, "--fail-on", "info"]) == 1
    assert main(["diagnose", run, "--fail-on", "error"]) == 0
    capsys.readouterr()
    assert main(["diagnose", run, "--fail-on", "errors"]) == 2
    assert "--fail-on must be error, warning, info" in capsys.readouterr().err


def test_json_stands_alone_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run.jsonl", OVERFITTING)
    assert main(["diagnose", run, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in found["findings"]] == ["overfitting"]
    assert any("diverge" in line for line in found["reading"])
    assert main(["diagnose", run, "--json", str(tmp_path / "out.json"), "-q"]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == found


def test_the_plot_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    run = run_of(tmp_path / "run.jsonl", OVERFITTING)
    target = tmp_path / "curves.png"
    assert main(["diagnose", run, "--plot", str(target)]) == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    assert "wrote" in capsys.readouterr().err
    assert main(["diagnose", run, "--plot", "-"]) == 2
    assert main(["diagnose", run, "--plot", run]) == 2
    assert len(History.load(run)) == 12


def test_a_state_of_hugging_face_is_diagnosed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = []
    for epoch, (train, val) in enumerate(OVERFITTING, 1):
        log.append({"epoch": epoch, "step": 10 * epoch, "loss": train})
        log.append({"epoch": epoch, "step": 10 * epoch, "eval_loss": val})
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    assert main(["diagnose", str(tmp_path), "--fail-on", "warning"]) == 1
    assert "overfitting" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}\n", '{"schema":"pyspectra.history/1"}\n'])
def test_what_is_no_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "run.jsonl").write_text(text)
    assert main(["diagnose", str(tmp_path / "run.jsonl")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "run.jsonl" in err


def test_a_path_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "nothing.jsonl"]) == 2
    assert "RUN: no such file or folder: 'nothing.jsonl'" in capsys.readouterr().err


def test_a_run_of_single_steps_needs_no_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with History(tmp_path / "run.jsonl") as history:
        for step in range(1, 6):
            history.log(step=step, loss=1 / step)
    assert main(["diagnose", str(tmp_path / "run.jsonl")]) == 0
    assert "Nothing was found in 5 steps" in capsys.readouterr().out
