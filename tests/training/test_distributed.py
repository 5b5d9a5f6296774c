"""A watch in two processes: the first writes, and its numbers are of all samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from processes import run_two  # noqa: E402
from training import distributed_run  # noqa: E402

from pyspectra.errors import ArgumentTypeError  # noqa: E402
from pyspectra.training import History, Watch  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch was built without gloo",
)
HEALTHY = [case for case in distributed_run.CASES if "nan" not in case]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder: Path = tmp_path_factory.mktemp("distributed")
    run_two("training.distributed_run", folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"results{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, History]:
    """The same run in one process, with whole batches."""
    path = tmp_path_factory.mktemp("single") / "run.jsonl"
    return distributed_run.run("single", 0, 1, path), History.load(path)


@pytest.mark.parametrize("case", HEALTHY)
def test_weights_are_the_same_to_the_last_bit(results: Any, case: str) -> None:
    for own in results:
        pairs = zip(own[case]["weights"], own[f"{case} alone"]["weights"], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("case", HEALTHY)
def test_the_first_process_alone_writes_each_step_once(folder: Path, case: str) -> None:
    assert not list(folder.glob(f"{case}.jsonl.*"))
    history = History.load(folder / f"{case}.jsonl")
    train = [row for row in history.steps if row["split"] == "train"]
    assert [row["step"] for row in train] == list(range(1, 13))
    assert {row["n"] for row in train} == {distributed_run.BATCH}
    assert [row["n"] for row in history.steps if row["split"] == "val"] == [24, 24]
    assert [row["epoch"] for row in history.epochs] == [1, 2]


def test_losses_are_means_over_the_samples_of_all(folder: Path, single: Any) -> None:
    # DDP takes the mean of the gradients, not weighted: the runs agree as long as no step is made.
    found, want = History.load(folder / "ddp.jsonl").steps[0], single[1].steps[0]
    for name in ("loss", "accuracy", "twice"):
        assert found[name] == pytest.approx(want[name], rel=1e-6)


def test_evaluations_are_of_the_samples_of_all(folder: Path, results: Any) -> None:
    history = History.load(folder / "ddp.jsonl")
    model = distributed_run.network()
    with torch.no_grad():
        for p, value in zip(model.parameters(), results[0]["ddp"]["weights"], strict=True):
            p.copy_(value)
        rows = slice(0, distributed_run.BATCH)
        out, y = model(distributed_run.X[rows]), distributed_run.Y[rows]
    last = history.epochs[-1]
    loss = torch.nn.functional.cross_entropy(out, y)
    assert last["val_loss"] == pytest.approx(float(loss), rel=1e-6)
    assert last["val_accuracy"] == pytest.approx(float((out.argmax(1) == y).float().mean()))


def test_statistics_of_shards_are_those_of_the_whole(results: Any) -> None:
    for own in results:
        sharded, whole = own["fsdp"]["steps"], own["ddp"]["steps"]
        assert len(sharded) == len(whole) > 3
        for a, b in zip(sharded, whole, strict=True):
            assert a.keys() == b.keys()
            for name in a:
                assert a[name] == pytest.approx(b[name], rel=1e-3)


@pytest.mark.parametrize("case", ["ddp", "fsdp"])
def test_spectra_are_those_of_the_whole_weights(folder: Path, case: str, single: Any) -> None:
    history = History.load(folder / f"{case}.jsonl")
    assert [line["step"] for line in history.spectra] == [0, 6, 12]
    for found, want in zip(
        history.spectra[0]["layers"], single[1].spectra[0]["layers"], strict=True
    ):
        assert found["name"].removesuffix(".weight") == want["name"]
        assert found["alpha"] == pytest.approx(want["alpha"], rel=1e-9)
        assert found["stable_rank"] == pytest.approx(want["stable_rank"], rel=1e-9)


def test_a_budget_is_agreed_upon(folder: Path) -> None:
    spectra = History.load(folder / "fsdp budget.jsonl").spectra
    assert [line["step"] for line in spectra] == [10]


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy_runs_have_no_findings(results: Any, case: str) -> None:
    for own in results:
        assert [x for x in own[case]["findings"] if x[1] != "info"] == []


def test_what_another_process_found_is_told(folder: Path, results: Any) -> None:
    errors = [x for x in results[0]["ddp nan"]["findings"] if x[1] == "error"]
    assert ("nonfinite", "error", 1) in errors  # the inputs of the other process
    told = History.load(folder / "ddp nan.jsonl").findings
    assert {x["code"] for x in told} == {"nonfinite"}


def test_a_group_that_is_none() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentTypeError, match="process_group"):
        Watch(model, optimizer, process_group="world")
