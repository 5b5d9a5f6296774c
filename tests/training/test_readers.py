"""Runs that others wrote: every format becomes the same history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyspectra.errors import FormatError, MissingPathError
from pyspectra.training import History

DATA = Path(__file__).parents[1] / "data"

STATE = {
    "epoch": 2.0, "global_step": 20, "max_steps": 20, "num_train_epochs": 2,
    "log_history": [
        {"epoch": 0.5, "step": 5, "loss": 2.0, "grad_norm": 1.5, "learning_rate": 1e-4},
        {"epoch": 1.0, "step": 10, "loss": 1.0, "grad_norm": 1.0, "learning_rate": 5e-5},
        {"epoch": 1.0, "step": 10, "eval_loss": 1.2, "eval_accuracy": 0.7, "eval_runtime": 3.0,
         "eval_samples_per_second": 9.0},
        {"epoch": 1.5, "step": 15, "loss": 0.5, "grad_norm": None, "learning_rate": 1e-5},
        {"epoch": 2.0, "step": 20, "eval_loss": 1.1, "eval_accuracy": 0.8},
        {"epoch": 2.0, "step": 20, "train_loss": 1.17, "train_runtime": 60.0, "total_flos": 1e9},
    ],
}  # fmt: skip


def test_a_state_of_hugging_face(tmp_path: Path) -> None:
    for folder, log in (("checkpoint-9", STATE["log_history"][:2]), ("checkpoint-20", None)):  # type: ignore[index]
        (tmp_path / folder).mkdir()
        state = STATE | ({} if log is None else {"log_history": log})
        (tmp_path / folder / "trainer_state.json").write_text(json.dumps(state))
    for path in (
        tmp_path,
        tmp_path / "checkpoint-20",
        tmp_path / "checkpoint-20/trainer_state.json",
    ):
        history = History.load(path)
        assert history["val_loss"][1].tolist() == [1.2, 1.1]
        assert history["val_accuracy"][1].tolist() == [0.7, 0.8]
        assert history["train_loss"][1].tolist() == [1.5, 0.5]
        assert history.curve("grad_norm", "steps")[1].tolist() == [1.5, 1.0]
        assert history["lr"][1].tolist() == [5e-5, 1e-5]
        assert [row["step"] for row in history.evaluations] == [10, 20]
        assert not any("runtime" in name or "flos" in name for row in history.steps for name in row)
        assert history.header["config"]["max_steps"] == 20
        assert history.header["source"] == "transformers"


def test_metrics_of_lightning(tmp_path: Path) -> None:
    folder = tmp_path / "version_0"
    folder.mkdir()
    (folder / "metrics.csv").write_text(
        "epoch,lr-AdamW,step,train_loss_epoch,train_loss_step,val_loss\n"
        ",0.001,0,,,\n"
        "0,,4,,3.0,\n"
        "0,,9,,2.0,\n"
        "0,,9,,,2.5\n"
        "0,,9,2.4,,\n"
        "1,,14,,1.0,\n"
        "1,,19,,,1.5\n"
        "1,,19,1.1,,\n"
    )
    history = History.load(tmp_path)
    assert history["val_loss"][0].tolist() == [1, 2]
    assert history["val_loss"][1].tolist() == [2.5, 1.5]
    assert history["train_loss"][1].tolist() == [2.4, 1.1]
    assert history.curve("loss", "steps")[0].tolist() == [5, 10, 15]
    assert history.steps[0]["lr"] == 0.001
    assert History.from_csv(folder / "metrics.csv").epochs == history.epochs


def test_histories_of_keras(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.1,3.0,NA,NA\n1,0.2,2.0,0.3,2.5\n"
    )
    history = History.load(tmp_path / "log.csv")
    assert history["loss"][0].tolist() == [1, 2]
    assert history["val_loss"][0].tolist() == [2]
    assert history.epochs[1]["train_kind"] == "running"
    path = tmp_path / "history.json"
    path.write_text(
        json.dumps({"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "learning_rate": [1, 1]})
    )
    history = History.load(path)
    assert history["val_loss"][1].tolist() == [3.5, 2.5]
    assert history["lr"][1].tolist() == [1, 1]


def test_epochs_that_count_from_one_stay(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        " epoch,  train/loss, val/loss\n 1, 3.0, 2.0\n 2, 2.0, 1.0\n"
    )
    history = History.load(tmp_path)
    assert history["val_loss"][0].tolist() == [1, 2]
    assert history["loss"][1].tolist() == [3, 2]


def test_events_of_tensorboard() -> None:
    history = History.from_tensorboard(DATA / "events.out.tfevents.runs")
    x, y = history.curve("loss", "steps")
    assert x.tolist() == [1, 2, 300]
    assert y == pytest.approx([1, 1 / 2, 1 / 300])
    x, y = history.curve("val_accuracy", "steps")
    assert y == pytest.approx([1 / 300, 2 / 300, 1])
    assert history.curve("lr", "steps")[1].tolist() == [0.25, 0.5, 75.0]
    assert "note" not in {name for record in history.steps for name in record}


def test_an_unfinished_event_is_passed_over(tmp_path: Path) -> None:
    data = (DATA / "events.out.tfevents.runs").read_bytes()
    path = tmp_path / "events.out.tfevents.torn"
    for cut in range(0, len(data), 13):
        path.write_bytes(data[:cut])
        assert len(History.load(path)) <= 9


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.jsonl", "{}\n"), ("run.jsonl", ""), ("trainer_state.json", "[1]"),
        ("trainer_state.json", '{"log_history": 3}'), ("trainer_state.json", "{"),
        ("metrics.csv", "a,b\n1,2\n"), ("metrics.csv", ""), ("x.json", '{"a": 1}'), ("x.txt", "a"),
    ],
)  # fmt: skip
def test_what_is_no_run_is_said_to_be_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        History.load(tmp_path / name)


def test_broken_events_are_said_to_be_broken(tmp_path: Path) -> None:
    data = bytearray((DATA / "events.out.tfevents.runs").read_bytes())
    path = tmp_path / "events.out.tfevents.broken"
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            History.load(path)
        except FormatError:
            refused += 1
    assert refused


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"History\.load: 'path'"):
        History.load(tmp_path / "nothing.jsonl")
    with pytest.raises(FormatError, match=r"Hint: known are \*\.jsonl"):
        History.load(tmp_path)
