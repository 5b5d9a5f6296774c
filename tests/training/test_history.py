"""The record of a run: what is written, what a kill leaves, what a resumption keeps, the tables."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra
from pyspectra.errors import FormatError
from pyspectra.report.findings import Finding
from pyspectra.training import History


def filled(path: Path | None = None, epochs: int = 3, **options: Any) -> History:
    """Return a history of 4 batches an epoch, the last one smaller, and an evaluation."""
    history = History(path, steps_per_epoch=4, **options)
    for step in range(1, 4 * epochs + 1):
        n = 8 if step % 4 == 0 else 32
        history.log(step=step, n=n, loss=1 / step, mse=float(step), lr=1e-3)
        if step % 4 == 0:
            history.log(split="val", n=100, loss=2 / step, accuracy=0.5)
    return history


def steps_in(path: Path) -> list[int]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [line["step"] for line in lines if line.get("split") == "train"]


# --- the file -----------------------------------------------------------------------------------


def test_the_file_is_a_header_and_one_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.jsonl"
    config = types.SimpleNamespace(lr=1e-3, layers=[1, 2], where=tmp_path)
    with History(path, config, seed=7) as history:
        history.log(step=120, epoch=2.4, split="train", n=64, loss=0.31, lr=1e-3)
    header, line = map(json.loads, path.read_text().splitlines())
    assert header["schema"] == "pyspectra.history/1"
    assert header["config"] == {"lr": 1e-3, "layers": [1, 2], "where": str(tmp_path)}
    assert header["seed"] == 7
    assert header["versions"]["pyspectra"] == pyspectra.__version__
    assert header.keys() >= {"run", "started"}
    assert list(line) == ["step", "epoch", "split", "n", "loss", "lr", "t"]
    del line["t"]
    assert line == {"step": 120, "epoch": 2.4, "split": "train", "n": 64, "loss": 0.31, "lr": 1e-3}


def test_nan_is_null_under_its_name_and_nan_again_when_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with History(path) as history:
        history.log(step=1, loss=math.nan, grad_norm=math.inf, lr=0.1)
    line = json.loads(path.read_text().splitlines()[1])
    assert line["loss"] is None
    assert line["grad_norm"] is None
    assert line["nonfinite"] == ["grad_norm", "loss"]
    (record,) = History.load(path).steps
    assert math.isnan(record["loss"])
    assert math.isnan(record["grad_norm"])
    assert record["lr"] == 0.1
    assert "nonfinite" not in record


def test_the_file_is_never_more_than_so_many_records_behind(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = History(path, flush_records=10, flush_seconds=3600)
    for step in range(1, 10):
        history.log(step=step, loss=1.0)
    assert not path.exists()
    history.log(step=10, loss=1.0)
    assert len(steps_in(path)) == 10
    history.log(step=11, loss=1.0)
    assert len(steps_in(path)) == 10
    history.flush()
    assert len(steps_in(path)) == 11


def test_the_file_is_never_longer_behind_than_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = History(path, flush_seconds=0.05)
    time.sleep(0.1)
    history.log(step=1, loss=1.0)
    assert steps_in(path) == [1]


def test_what_is_waiting_is_written_when_nobody_holds_the_history(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = History(path, flush_seconds=3600)
    history.log(step=1, loss=1.0)
    del history
    assert steps_in(path) == [1]


def test_the_file_of_another_run_moves_aside(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    for loss in (1.0, 2.0, 3.0):
        with History(path) as history:
            history.log(step=1, loss=loss)
    losses = [
        History.load(tmp_path / f"run.jsonl{end}").steps[0]["loss"] for end in ("", ".1", ".2")
    ]
    assert losses == [3.0, 1.0, 2.0]


def test_looking_at_a_file_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    filled(path).close()
    before = path.read_bytes()
    history = History.load(path)
    history.log(step=99, loss=1.0)
    history.close()
    del history
    History(path).close()  # nothing was logged to it
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.jsonl"]


def test_a_process_that_does_not_write_leaves_no_file(tmp_path: Path) -> None:
    history = filled(tmp_path / "run.jsonl", write=False)
    history.close()
    assert len(history) == 15
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_no_half_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.jsonl"
    history = filled(path, epochs=1)
    history.flush()
    whole = history._store._file._file  # type: ignore[union-attr]

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def write(self, data: bytes) -> int:
            whole.write(data[:7])
            raise OSError(28, "No space left on device")

    history.log(step=5, loss=1.0)
    monkeypatch.setattr(history._store._file, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        history.flush()
    monkeypatch.undo()
    history.close()
    assert steps_in(path) == [1, 2, 3, 4, 5]


# --- killed, and resumed ------------------------------------------------------------------------

WRITER = """
import itertools, sys
from pyspectra.training import History
history = History.open(sys.argv[1], resume_step=int(sys.argv[2]), steps_per_epoch=50)
for step in itertools.count(int(sys.argv[2]) + 1):
    history.log(step=step, n=8, loss=1 / step)
    if step % 50 == 0:
        history.log(split="val", n=8, loss=2 / step)
    if step % 7 == 0:
        history.flush()
        print(step, flush=True)
"""


def killed(path: Path, step: int) -> int:
    """Run a process that goes on from a step, kill it while it writes; return its last flush."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(step)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > step + 400:
            break
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split("\n")[:-1]
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else int(line)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_a_killed_run_loses_nothing_of_its_last_flush_and_two_resumptions_later_is_one_curve(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.jsonl"
    first = killed(path, 0)
    assert [r["step"] for r in History.load(path).steps if r["split"] == "train"][:first] == list(
        range(1, first + 1)
    )
    second = killed(path, first - 100)
    assert second > first
    with History.open(path, resume_step=second - 100, steps_per_epoch=50) as history:
        for step in range(second - 99, second + 1):
            history.log(step=step, n=8, loss=1 / step)
            if step % 50 == 0:
                history.log(split="val", n=8, loss=2 / step)
    whole = History.load(path)
    x, y = whole.curve("loss", "steps")
    assert x.tolist() == list(range(1, second + 1))
    assert y == pytest.approx(1 / x)
    x, y = whole["val_loss"]
    assert x.tolist() == list(range(1, second // 50 + 1))
    assert y == pytest.approx(2 / (50 * x))
    assert [s["segment"] for s in (whole.steps[0], whole.steps[-1])] == [1, 3]
    # Nothing is deleted: what was done again is in the files beside it.
    for name, last in (("run.jsonl.1", first), ("run.jsonl.2", second)):
        moved = [r["step"] for r in History.load(tmp_path / name).steps]
        assert moved[0] == last - 99
        assert last in moved


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_passed_over_and_kept_aside(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.jsonl"
    filled(path, epochs=1).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    # Without the end of the line the line is whole; with less it is torn.
    expected = 5 if cut == 1 else 4
    assert len(History.load(path)) == expected
    with History.open(path) as history:
        history.log(step=5, loss=9.0)
    again = History.load(path)
    assert len(again) == expected + 1
    assert [line["step"] for line in again.steps][-1] == 5
    moved = tmp_path / "run.jsonl.1"
    assert moved.exists() == (cut != 1)
    if cut != 1:
        assert whole[:-cut].endswith(moved.read_bytes().splitlines()[-1])


def test_a_broken_line_before_the_last_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    filled(path, epochs=1).close()
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:10]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(FormatError, match="line 3 is no JSON object"):
        History.load(path)
    path.write_text('{"step":1}\n')
    with pytest.raises(FormatError, match="is no history"):
        History.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError):
        History.open(path)


def test_findings_and_spectra_of_steps_that_are_done_again_move_too(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = filled(path, epochs=1)
    history.log_finding(Finding(code="spike", severity="info", step=2, message="It rose."))
    history.log_finding(Finding(code="late", severity="info", step=4, message="It rose."))
    history.log_spectra(3, [{"name": "fc", "alpha": np.float64(2.5), "evals": np.ones(2)}])
    history.close()
    history = History.open(path, resume_step=3)
    assert [finding["code"] for finding in history.findings] == ["spike"]
    assert history.spectra == [
        {"step": 3, "layers": [{"name": "fc", "alpha": 2.5, "evals": [1.0, 1.0]}]}
    ]
    assert [record["step"] for record in history.steps] == [1, 2, 3]


def test_a_checkpoint_finds_its_history_again(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = filled(path, epochs=1)
    state = history.state_dict()
    json.dumps(state)
    history.log(step=5, loss=9.0)
    history.close()
    resumed = History(path, steps_per_epoch=4)
    resumed.load_state_dict(state)
    resumed.log(step=5, loss=5.0)
    resumed.close()
    assert resumed.header["run"] == history.header["run"]
    x, y = History.load(path).curve("loss", "steps")
    assert x.tolist() == [1, 2, 3, 4, 5]
    assert y[-1] == 5.0
    with pytest.raises(ValueError, match="before anything is logged"):
        resumed.load_state_dict(state)
    with pytest.raises(ValueError, match="schema"):
        History().load_state_dict({})


def test_a_checkpoint_of_a_history_without_a_file_carries_the_records() -> None:
    history = filled(epochs=2)
    resumed = History(steps_per_epoch=4)
    resumed.load_state_dict(json.loads(json.dumps(history.state_dict())))
    resumed.log(step=9, loss=1.0)
    assert resumed.curve("loss", "steps")[0].tolist() == list(range(1, 10))
    assert resumed.steps[-1]["segment"] == 2
    assert resumed.steps[-1]["t"] >= history.steps[-1]["t"]


def test_a_checkpoint_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    history = filled(tmp_path / "run.jsonl")
    state = history.state_dict()
    moved = History(tmp_path / "other.jsonl")
    with pytest.warns(UserWarning, match="without what came before"):
        moved.load_state_dict(state)
    moved.log(loss=1.0)
    assert moved.steps[0]["step"] == 12


# --- values -------------------------------------------------------------------------------------


def test_values_of_any_library_become_floats() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    history = History()
    history.log(step=np.int64(1), n=np.int32(4), a=1, b=np.float32(0.5), c=torch.tensor(2.0))
    history.log(step=2, a=torch.tensor([3], dtype=torch.int64), b=np.asarray(4.0))
    first, second = history.steps
    assert (first["a"], first["b"], first["c"]) == (1.0, 0.5, 2.0)
    assert (second["a"], second["b"]) == (3.0, 4.0)
    types_of = {type(value) for r in history.steps for value in r.values()}
    assert types_of <= {float, int, str}


def test_a_value_that_holds_its_graph_is_detached_and_said_once() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    loss = (torch.ones(3, requires_grad=True) * 2).sum()
    history = History()
    with pytest.warns(UserWarning, match="holds the graph") as caught:
        history.log(step=1, loss=loss)
    history.log(step=2, loss=loss)
    assert caught[0].filename == __file__
    assert [record["loss"] for record in history.steps] == [6.0, 6.0]


class DeviceScalar:
    """A scalar that says it is on a device, and must not be waited for."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.grad_fn = None
        self.dtype = tensor.dtype
        self.device = types.SimpleNamespace(type="cuda")

    def detach(self) -> DeviceScalar:
        return self

    def clone(self) -> Any:
        return _OnDevice(self.tensor.clone())

    def numel(self) -> int:
        return 1

    def is_complex(self) -> bool:
        return False

    def item(self) -> float:
        raise AssertionError("a step must not wait for its device")

    __float__ = item


class _OnDevice:
    device = "cuda:0"

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def reshape(self, shape: tuple[int, ...]) -> Any:
        return self.tensor.reshape(shape)


def test_scalars_on_a_device_are_fetched_together_and_as_they_were() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    history = History()
    total = torch.tensor(0.0)
    for step in range(1, 5):
        total += step
        history.log(step=step, total=DeviceScalar(total))  # written over at the next step
    assert [record["total"] for record in history.steps] == [1, 3, 6, 10]


@pytest.mark.parametrize("value", ["0.3", None, [1.0], np.ones(2), 1 + 2j, True])
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"History\.log: 'loss' must be a real number"):
        History().log(step=1, loss=value)
    history = History()
    with pytest.raises(TypeError):
        history.log(step=1, loss=value)
    assert len(history) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"step": -1}, {"step": 1.5}, {"epoch": "1"}, {"epoch": -0.1}, {"n": 0}, {"kind": "mean"},
        {"split": ""}, {"split": 3}, {"t": 1.0}, {"segment": 1}, {"val_t": 3.0},
    ],
)  # fmt: skip
def test_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"History\.log"):
        History().log(**fields)


# --- the tables ---------------------------------------------------------------------------------


def test_epochs_are_means_weighted_by_the_size_of_batches() -> None:
    rows = filled().epochs
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    weights = np.array([32, 32, 32, 8])
    for e, row in enumerate(rows):
        step = np.arange(4 * e + 1, 4 * e + 5)
        assert row["train_loss"] == pytest.approx(np.average(1 / step, weights=weights))
        mse = np.average(step, weights=weights)
        assert row["train_mse"] == pytest.approx(mse)
        assert row["train_rmse"] == pytest.approx(math.sqrt(mse))
        assert (row["step"], row["n_train"], row["n_val"]) == (4 * e + 4, 104, 100)
        assert row["val_loss"] == 2 / (4 * e + 4)
        assert row["lr"] == 1e-3
        assert row["train_kind"] == "running"
        assert row["seconds"] >= 0
        assert row["segment"] == 1


def test_rmse_of_batches_is_the_root_of_the_mean_of_squares_and_max_error_the_max() -> None:
    history = History()
    history.log(step=1, epoch=0.5, n=1, rmse=3.0, max_error=2.0)
    history.log(step=2, epoch=1.0, n=3, rmse=1.0, max_error=5.0)
    (row,) = history.epochs
    assert row["train_rmse"] == pytest.approx(math.sqrt((9 + 3) / 4))
    assert row["train_max_error"] == 5.0


def test_standard_errors_are_those_of_the_mean_of_batches() -> None:
    history = History()
    values = np.random.default_rng(0).standard_normal(50)
    for step, value in enumerate(values, 1):
        history.log(step=step, epoch=step / 50, n=4, loss=value)
    (row,) = history.epochs
    assert row["train_loss_se"] == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_what_was_not_logged_stays_missing_and_is_never_carried_on() -> None:
    history = History()
    for epoch in (1, 2, 3):
        history.log(step=epoch, epoch=epoch, loss=1.0)
        if epoch != 2:
            history.log(epoch=epoch, split="val", accuracy=0.5)
    assert "val_accuracy" not in history.epochs[1]
    assert np.isnan(history.to_numpy()["val_accuracy"]).tolist() == [False, True, False]
    assert history["val_accuracy"][0].tolist() == [1, 3]
    frame = history.to_pandas()
    assert frame["val_accuracy"].isna().tolist() == [False, True, False]
    assert "NaN" not in history.to_jsonl()


def test_values_of_a_whole_epoch_go_before_those_of_its_batches() -> None:
    history = filled(epochs=1)
    history.log(split="train", kind="running", n=104, loss=0.7)
    assert history.epochs[0]["train_loss"] == 0.7
    assert "train_loss_se" not in history.epochs[0]
    assert history.epochs[0]["train_kind"] == "running"
    history.log(split="train", kind="post", n=104, loss=0.6)
    row = history.epochs[0]
    assert (row["train_loss"], row["train_kind"], row["n_train"]) == (0.6, "post", 104)
    assert row["lr"] == 1e-3


def test_of_several_evaluations_in_an_epoch_the_last_counts_and_all_are_evaluations() -> None:
    history = History(steps_per_epoch=100)
    for step in range(1, 201):
        history.log(step=step, loss=1 / step)
        if step % 25 == 0:
            for part in (1, 3):  # two batches of it
                history.log(split="val", n=part, loss=float(part * step))
    assert [row["val_loss"] for row in history.epochs] == [250.0, 500.0]
    rows = history.evaluations
    assert [row["step"] for row in rows] == list(range(25, 201, 25))
    assert [row["epoch"] for row in rows] == [step / 100 for step in range(25, 201, 25)]
    assert rows[1]["train_loss"] == pytest.approx(np.mean(1 / np.arange(26, 51)))


def test_prefixes_name_the_split() -> None:
    history = History()
    history.log(epoch=1, loss=3.0, val_loss=2.0, eval_acc=0.5, **{"test/loss": 1.0})
    (row,) = history.epochs
    assert {k: v for k, v in row.items() if "loss" in k or "acc" in k} == {
        "train_loss": 3.0, "val_loss": 2.0, "val_acc": 0.5, "test_loss": 1.0,
    }  # fmt: skip
    for alias in ("val_loss", "valid_loss", "eval_loss", "validation_loss"):
        assert history[alias][1].tolist() == [2.0]
    assert history["loss"][1].tolist() == [3.0]
    with pytest.raises(KeyError, match="did you mean 'val_loss'"):
        history["val_los"]


def test_best_goes_by_the_direction_of_the_metric() -> None:
    history = History()
    for epoch, (loss, accuracy) in enumerate([(3.0, 0.1), (1.0, 0.9), (math.nan, 0.9)], 1):
        history.log(
            step=10 * epoch, epoch=epoch, split="val", loss=loss, accuracy=accuracy, odd=1.0
        )
    assert history.best("val_loss") == (1.0, 2, 20)
    assert history.best("val_accuracy") == (0.9, 2, 20)
    assert history.best("val_odd", better="lower").epoch == 1
    with pytest.raises(ValueError, match="which way"):
        history.best("val_odd")
    with pytest.raises(KeyError):
        history.best("val_rmse")


def test_keras_dictionary_goes_both_ways() -> None:
    values = {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5], "accuracy": [0.1, 0.2]}
    history = History.from_keras(values)
    assert {k: v for k, v in history.history.items() if k in values} == values
    as_returned = types.SimpleNamespace(history=values, epoch=[0, 1], params={"epochs": 2})
    assert History.from_keras(as_returned).header["config"] == {"epochs": 2}
    with pytest.raises(FormatError):
        History.from_keras([1, 2])


def test_jsonl_to_data_frame_to_jsonl_is_identical(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    history = filled(path, config={"lr": 0.1})
    history.log(step=13, loss=math.nan, extra=0.1 + 0.2)
    history.log_finding(Finding(code="spike", severity="info", step=13, message="It rose."))
    history.log(step=14, kind="post", loss=1e-300)
    history.log_spectra(14, [{"name": "fc", "alpha": 2.5}])
    history.close()
    with History.open(path) as history:
        history.log(step=15, loss=3.0)
    loaded = History.load(path)
    text = path.read_text()
    assert loaded.to_jsonl() == text
    frame = loaded.to_pandas("steps")
    assert str(frame["step"].dtype) == "Int64"
    assert History.from_pandas(frame).to_jsonl() == text
    again = frame.copy()
    assert History.from_pandas(again).to_jsonl() == text
    with pytest.raises(ValueError, match="column 'split'"):
        History.from_pandas(loaded.to_pandas("epochs"))
    with pytest.raises(TypeError):
        History.from_pandas([1])  # type: ignore[arg-type]


def test_csv_has_every_column_from_the_start(tmp_path: Path) -> None:
    history = History()
    history.log(epoch=1, loss=1.0)
    history.log(epoch=2, loss=0.5, val_loss=2.0)
    history.to_csv(tmp_path / "epochs.csv")
    header, first, second = (tmp_path / "epochs.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["val_loss"] == ""
    assert row["train_loss"] == "1.0"
    assert dict(zip(header.split(","), second.split(","), strict=True))["val_loss"] == "2.0"


def test_every_value_goes_to_a_summary_writer() -> None:
    calls = []
    writer = types.SimpleNamespace(
        add_scalar=lambda *a: calls.append(a), add_text=lambda *a: calls.append(a),
        flush=lambda: calls.append("flush"),
    )  # fmt: skip
    history = History(config={"lr": 1})
    history.log(step=3, loss=1.0, val_loss=2.0)
    history.to_tensorboard(writer)
    assert calls == [("train/loss", 1.0, 3), ("val/loss", 2.0, 3), ("config", '{"lr": 1}'), "flush"]
    assert history.last() == history.steps[-1]


def test_an_empty_history_has_empty_tables() -> None:
    history = History()
    assert (history.steps, history.epochs, history.evaluations, history.last()) == ([], [], [], {})
    assert history.to_numpy() == {}
    assert len(history.to_pandas()) == 0
    assert history
    assert len(history) == 0


def test_what_records_and_reads_runs_needs_no_optional_package() -> None:
    code = (
        "import sys\n"
        "for name in "
        "('torch', 'pandas', 'matplotlib', 'tensorboard', 'optuna', 'yaml'): "
        "sys.modules[name] = None\n"
        "import pyspectra.training as T; T.search.read_config\n"
        "h = T.History(); h.log(step=1, epoch=1, loss=1.0, val_loss=2.0)\n"
        "print(h.epochs[0]['val_loss'], T.curves.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["2.0", "pyspectra.training.curves"], done.stderr
