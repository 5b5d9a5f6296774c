"""Two processes: scores, masks, averages and fine-tuning under DDP and FSDP2 equal one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from finetune import finetuning_run as run  # noqa: E402
from processes import run_two  # noqa: E402

from pyspectra.finetune import child_mask, fisher_diag  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch was built without gloo",
)

WRAPPED = {"ddp": "module.", "compiled": "_orig_mod."}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of two processes found."""
    folder: Path = tmp_path_factory.mktemp("finetuning")
    run_two("finetune.finetuning_run", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def plain(found: dict[str, Any], layout: str) -> dict[str, Any]:
    prefix = WRAPPED.get(layout, "")
    assert all(name.startswith(prefix) for name in found)
    return {name.removeprefix(prefix): x for name, x in found.items()}


def close(found: dict[str, Any], want: dict[str, Any]) -> None:
    assert found.keys() == want.keys()
    for name, x in want.items():
        torch.testing.assert_close(found[name], x, rtol=2e-5, atol=1e-9, msg=name)


@pytest.mark.parametrize("layout", run.LAYOUTS)
@pytest.mark.parametrize("what", ["scores", "samples"])
def test_scores_are_those_of_one_process(results: Any, what: str, layout: str) -> None:
    options = {"per_sample": True} if what == "samples" else {}
    want = fisher_diag(run.built("plain"), run.data(), run.loss_fn, **options)
    assert any(x.any() for x in want.values())
    for own in results:
        close(plain(own[f"{what} {layout}"], layout), want)


@pytest.mark.parametrize("layout", run.LAYOUTS)
def test_masks_are_the_same_bits_everywhere(results: Any, layout: str) -> None:
    want = child_mask(fisher_diag(run.built("plain"), run.data(), run.loss_fn), 0.3)
    first, second = (plain(own[f"mask {layout}"], layout) for own in results)
    for name, mask in want.items():
        assert torch.equal(first[name], second[name])
        assert torch.equal(first[name], mask)


def test_copies_of_shards_score_too(results: Any) -> None:
    want = fisher_diag(run.built("plain"), run.data(), run.loss_fn)
    for own in results:
        close(own["scores hsdp"], want)


def test_one_process_alone_scores_its_own_data(results: Any) -> None:
    for rank, own in enumerate(results):
        batches = run.own(run.data(), rank, 2)
        close(own["alone"], fisher_diag(run.built("plain"), batches, run.loss_fn))


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_processes_may_have_different_numbers_of_batches(results: Any, layout: str) -> None:
    batches = run.data()[:5] + run.data()[:2]
    want = fisher_diag(run.built("plain"), batches, run.loss_fn)
    for own in results:
        close(plain(own[f"uneven {layout}"], layout), want)
        close(own["left whole"], want)


def test_a_process_without_data(results: Any) -> None:
    """Under DDP it has nothing to add; FSDP2 cannot pass anything without it."""
    assert [own["empty ddp"] for own in results] == ["nothing", "nothing"]
    for own in results:
        assert "'loader' must give at least one batch in every process" in own["empty fsdp"]


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_all_fail_where_one_does(results: Any, layout: str) -> None:
    assert "process 1 failed with ValueError" in results[0][f"broken {layout}"]
    assert "must be finite" in results[1][f"broken {layout}"]


@pytest.mark.parametrize("mode", ["D", "F"])
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_fine_tuning_and_averages_are_those_of_one_process(
    results: Any, layout: str, mode: str
) -> None:
    want = run.tuned("plain", mode, 0, 1, None)
    start = run.whole(run.built("plain").layers[0].fc1.weight)
    assert not torch.equal(want["layers.0.fc1.weight"], start)
    first, second = (own[f"tuned {layout} {mode}"] for own in results)
    assert first.keys() == want.keys()
    for name, x in want.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], x, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_rules_by_layer_and_masks_are_those_of_one_process(results: Any, layout: str) -> None:
    want = run.layered("plain", 0, 1, None)
    assert len({float(x) for name, x in want.items() if name.startswith("lr of")}) > 2
    zeros = {f"layers.{i}.fc1.weight": want[f"layers.{i}.fc1.weight"] == 0 for i in (0, 1)}
    first, second = (own[f"layered {layout}"] for own in results)
    assert first.keys() == want.keys()
    for name, x in want.items():
        assert torch.equal(first[name], second[name]), name
        if name.startswith("mask"):
            assert torch.equal(first[name], x), name
        else:
            torch.testing.assert_close(first[name], x, rtol=1e-3, atol=1e-4, msg=name)
    assert sum(int(zero.sum()) for zero in zeros.values()) == 35
    for name, zero in zeros.items():
        assert torch.equal(first[name] == 0, zero)


def test_scores_that_are_shards_select_as_whole_ones(results: Any) -> None:
    whole = {n: p.detach() for n, p in run.built("plain").named_parameters()}
    want = child_mask(whole, 0.3)
    for own in results:
        assert all(torch.equal(own["mask of shards"][n], m) for n, m in want.items())
