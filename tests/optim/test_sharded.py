"""DTensor and FSDP2: two processes move the weights to the bits of one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from optim import sharded_run  # noqa: E402
from processes import run_two  # noqa: E402

from pyspectra.optim._fused import sharded as _sharded  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch was built without gloo",
)


@pytest.mark.parametrize("shape", [(7,), (6, 5), (4, 3, 5), (3, 4, 2, 3)])
def test_stretch_is_where_the_elements_stand(shape: tuple[int, ...]) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape)
    ranges = [[(0, n), (0, n - 1), (1, n), (n, n)] for n in shape]
    refused = 0
    for box in itertools.product(*ranges):
        want = whole[tuple(slice(a, b) for a, b in box)].reshape(-1)
        found = _sharded.stretch(shape, [a for a, _ in box], [b - a for a, b in box])
        if found is None:
            refused += 1
            continue
        offset, run, pitch = found
        i = np.arange(want.size)
        np.testing.assert_array_equal(offset + i // run * pitch + i % run, want)
        assert run >= 1
        assert pitch >= run
    assert (refused > 0) == (len(shape) > 2)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes made of the cases, gathered by the first."""
    folder: Path = tmp_path_factory.mktemp("sharded")
    run_two("optim.sharded_run", folder)
    results: dict[str, Any] = torch.load(folder / "results.pt", weights_only=True)
    return results


def assert_same(got: dict[str, Any], want: dict[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert torch.equal(got[name], x), name


@pytest.mark.parametrize("case", sharded_run.CASES)
@pytest.mark.parametrize("layout", sharded_run.LAYOUTS)
def test_shards_have_the_bits_of_the_whole(sharded: Any, layout: str, case: str) -> None:
    # Compact moments have no layout over processes: their states are shown whole.
    same_bits = "D" if case == "D compact" else case
    assert_same(sharded[f"{layout} {case}"], sharded_run.steps(same_bits, None))


@pytest.mark.parametrize(("layout", "case"), sharded_run.LOADED)
def test_states_of_one_process_load_into_shards(sharded: Any, layout: str, case: str) -> None:
    want = sharded_run.steps(case, None)
    got = sharded[f"{layout} {case} loaded"]
    assert_same(got, {k: want[k] for k in got})


@pytest.mark.parametrize("layout", sharded_run.LAYOUTS)
def test_the_clip_norm_is_that_of_the_whole(sharded: Any, layout: str) -> None:
    """Within rounding: float64 sums over shards are added in another order."""
    want = sharded_run.steps("F", None, max_grad_norm=0.5)
    for name, x in sharded[f"{layout} clipped"].items():
        torch.testing.assert_close(x, want[name], rtol=1e-6, atol=1e-7)


def test_training_under_fsdp(sharded: Any) -> None:
    want = sharded_run.train(None)
    for name, x in sharded["fsdp train"].items():
        torch.testing.assert_close(x, want[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", sharded_run.RESUMED)
def test_distributed_checkpoints_resume_to_the_same_bits(sharded: Any, mode: str) -> None:
    assert_same(sharded[f"dcp {mode} resumed"], sharded[f"dcp {mode} whole"])


def test_checkpoints_of_a_fresh_optimizer_do_not_count_a_step(sharded: Any) -> None:
    """Distributed checkpointing calls step() with zero gradients and rates to make the state."""
    assert_same(sharded["fresh saved"], sharded["fresh left alone"])
