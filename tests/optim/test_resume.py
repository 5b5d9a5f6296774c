"""A run that is killed without notice and resumed ends like one that was left alone."""

from __future__ import annotations

import copy
import math
import pickle
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
from optim.optim_cases import parameters, same, set_grads  # noqa: E402

from pyspectra.errors import FormatError  # noqa: E402
from pyspectra.optim import (  # noqa: E402
    EMA,
    SGD,
    Adam,
    ChildAdamW,
    PowerFunctionEMA,
    reconstruct_ema,
)


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


def same_state(a: dict[Any, Any], b: dict[Any, Any]) -> bool:
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
    assert same_state(model.state_dict(), model2.state_dict()), f"killed after {at}"
    assert same_state(optimizer.ema_state_dict(model), optimizer2.ema_state_dict(model2))
    state, state2 = optimizer.state_dict(), optimizer2.state_dict()
    assert state["state"].keys() == state2["state"].keys()
    assert all(same_state(s, state2["state"][k]) for k, s in state["state"].items())
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


# --- states that must not load --------------------------------------------------------------------


def stepped(cls: Any, **options: Any) -> tuple[list[Any], Any]:
    params = parameters(shapes=[(4, 3), (4, 3)])
    opt = cls(list(zip("ab", params, strict=True)), **options)
    set_grads(params, 0)
    opt.step()
    return params, opt


def test_states_of_other_rules_do_not_load() -> None:
    _, adam = stepped(Adam, weight_decay=0.1)
    _, child = stepped(ChildAdamW)
    with pytest.raises(ValueError, match="got one of Adam with L2 decay"):
        child.load_state_dict(adam.state_dict())
    for theirs in (torch.optim.RMSprop, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax):
        for mine in (adam, child, stepped(SGD)[1]):
            with pytest.raises(ValueError, match="got one of another update rule"):
                mine.load_state_dict(stepped(theirs)[1].state_dict())
    with pytest.raises(ValueError, match="got one of another update rule"):
        stepped(SGD)[1].load_state_dict(stepped(torch.optim.Adam)[1].state_dict())
    adam.load_state_dict(stepped(torch.optim.Adam)[1].state_dict())
    stepped(torch.optim.AdamW)[1].load_state_dict(child.state_dict())


def test_names_in_another_order_do_not_load() -> None:
    params, opt = stepped(ChildAdamW)
    other = ChildAdamW([("b", params[1]), ("a", params[0])])
    with pytest.raises(ValueError, match="got 'a' in the place of 'b'"):
        other.load_state_dict(opt.state_dict())
    ChildAdamW([("c", params[1]), ("a", params[0])]).load_state_dict(opt.state_dict())


@pytest.mark.parametrize("bad", [None, "state.pt", {}, {"state": {}}, {"param_groups": []}])
def test_what_is_no_state_is_named(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="ChildAdamW: 'state_dict' must"):
        stepped(ChildAdamW)[1].load_state_dict(bad)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("step", value) for value in ("x", math.nan, -3, 1.5, math.inf, [1])),
        *(("exp_avg", value) for value in ([1.0], torch.zeros(4, 3, dtype=torch.int32))),
        ("mask", [1]),
    ],
)
def test_bad_entries_of_a_state_are_named(key: str, value: Any) -> None:
    _, opt = stepped(ChildAdamW)
    state = opt.state_dict()
    state["state"][0][key] = value
    with pytest.raises((TypeError, ValueError), match=f"'{key}'.* must be"):
        opt.load_state_dict(state)


def test_copies_and_new_groups_wait_until_the_weights_are_back() -> None:
    params, opt = stepped(ChildAdamW, ema_decay=0.9)
    ema = EMA(params)
    with opt.swap_ema(), ema.swap():
        for refused in (
            lambda: copy.deepcopy(opt),
            lambda: pickle.dumps(opt),
            lambda: opt.add_param_group({"params": [("c", torch.nn.Parameter(torch.ones(2)))]}),
            lambda: copy.copy(ema),
        ):
            with pytest.raises(RuntimeError, match="while the averaged weights are in place"):
                refused()
    copy.deepcopy(opt)


@pytest.mark.parametrize("key", ["mask", "max_grad_norm", "statistics"])
def test_what_no_group_can_have_is_refused(key: str) -> None:
    p = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=f"'{key}' must be given to the optimizer, not to a group"):
        ChildAdamW([{"params": [p], key: None}])
    with pytest.raises(ValueError, match="'compact' must come with mode='D'"):
        ChildAdamW([p], mode="F", compact=True)


def test_averages_of_another_model_are_refused() -> None:
    net = torch.nn.Linear(3, 2)
    opt, ema = ChildAdamW(net.parameters(), ema_decay=0.9), EMA(net)
    assert opt.ema_state_dict(net).keys() == net.state_dict().keys()  # before the first step
    set_grads([*net.parameters()], 0)
    opt.step()
    for averages in (opt, ema):
        with pytest.raises(ValueError, match="a Linear none of whose parameters has an average"):
            averages.ema_state_dict(copy.deepcopy(net))
        with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got .*Dict"):
            averages.ema_state_dict(net.state_dict())


@pytest.mark.parametrize("cls", [EMA, PowerFunctionEMA])
@pytest.mark.parametrize(
    "change",
    [
        None,
        {"steps": "a"},
        {"steps": -20},
        {"shadow": [1]},
        {"shadow": {"0": [1.0]}},
        {"extra": 1},
    ],
    ids=str,
)
def test_bad_states_of_averages_are_named(cls: Any, change: Any) -> None:
    ema = cls([torch.nn.Parameter(torch.ones(2))])
    state = None if change is None else {**ema.state_dict(), **change}
    with pytest.raises(
        (TypeError, ValueError), match=r"EMA.load_state_dict: .* must (be|have|map)"
    ):
        ema.load_state_dict(state)


def test_a_broken_file_of_averages_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ema_state.pt"
    for content in (b"", b"not a pickle", b"PK\x03\x04 broken", b"\x80\x02cos\nsystem\n."):
        file.write_bytes(content)
        with pytest.raises(FormatError, match=r"ema_state\.pt: is not a readable"):
            reconstruct_ema([file], 0.1)


def test_masks_do_not_depend_on_wrappers() -> None:
    names = ("encoder.w", "head.w")

    def run(rename: Any) -> list[Any]:
        params = parameters(shapes=[(40, 3), (40, 3)])
        opt = ChildAdamW([(rename(n), p) for n, p in zip(names, params, strict=True)], mode="F")
        set_grads(params, 0)
        opt.step()
        return params

    plain = run(str)
    for prefix in ("_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."):
        assert same(run(lambda n, before=prefix: before + n), plain)
    assert same(run(lambda n: n.replace(".", "._orig_mod.")), plain)
    assert not same(run(lambda n: n.replace("encoder", "module")), plain)  # a module of that name


def test_masks_by_plain_and_wrapped_names() -> None:
    for key in ("w", "_orig_mod.w"):
        p = torch.nn.Parameter(torch.ones(4))
        ChildAdamW([("_orig_mod.w", p)], mode="D", mask={key: torch.ones(4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="'mask' must have at least one entry"):
        ChildAdamW([p], mode="D", mask={})
    with pytest.raises(TypeError, match=r"'mask' must be a mapping .* type list"):
        ChildAdamW([p], mode="D", mask=[1])  # type: ignore[arg-type]


def test_parameters_that_share_memory_are_named() -> None:
    whole = torch.zeros(6)
    pairs = [(n, torch.nn.Parameter(whole[i : i + 4])) for i, n in enumerate("ab")]
    opt = ChildAdamW(pairs)
    set_grads([p for _, p in pairs], 0)
    with pytest.raises(ValueError, match="'param' overlaps 'param' of 'a'"):
        opt.step()
