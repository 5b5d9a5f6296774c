"""A run that is killed without notice and resumed ends like one that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from optim import resumable_run  # noqa: E402

from pyspectra.optim import EMA, ChildAdamW  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Like the killed run: torch's own sums depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def killed_run(folder: Path, mode: str, at: int) -> None:
    """Start a run in a process of its own, and kill it after its step number `at`."""
    process = subprocess.Popen(
        [sys.executable, resumable_run.__file__, str(folder), mode],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == at:
                time.sleep(random.random() * 0.005)  # anywhere in a step, or in a file
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL


def same(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


@pytest.mark.parametrize("mode", ["F", "D"])
def test_kill_and_resume_gives_the_same_bits(tmp_path: Path, mode: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    at = random.randrange(resumable_run.SAVE_EVERY, resumable_run.STEPS - 8)
    killed_run(killed, mode, at)
    saved = torch.load(killed / "checkpoint.pt", weights_only=True)["step"]
    assert at - resumable_run.SAVE_EVERY < saved < resumable_run.STEPS, f"killed after {at}"

    model, optimizer, schedule = resumable_run.train(whole, mode)
    model2, optimizer2, schedule2 = resumable_run.train(killed, mode)
    assert same(model.state_dict(), model2.state_dict()), f"killed after {at}"
    assert same(optimizer.ema_state_dict(model), optimizer2.ema_state_dict(model2))
    state, state2 = optimizer.state_dict(), optimizer2.state_dict()
    assert state["state"].keys() == state2["state"].keys()
    assert all(same(s, state2["state"][k]) for k, s in state["state"].items())
    assert ("mask" in state["state"][1]) == (mode == "D")
    assert state["param_groups"] == state2["param_groups"]
    assert schedule.state_dict() == schedule2.state_dict()


def test_one_average_per_optimizer_step_under_accumulation() -> None:
    """Fused and attached alike: the average counts steps, not backward passes."""
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    opt = ChildAdamW([p], lr=0.3, ema_decay=0.9)
    ema = EMA([p], 0.9).attach(opt)
    want = p.detach().clone()
    for n in range(4):
        opt.zero_grad()
        for _ in range(5):
            p.square().sum().backward()
        opt.step()
        want = want - (1 - min(0.9, (1 + n) / (10 + n))) * (want - p.detach())
    torch.testing.assert_close(opt.state[p]["ema"], want, rtol=1e-13, atol=0)
    torch.testing.assert_close(ema.state_dict()["shadow"]["0"], want, rtol=1e-13, atol=0)
