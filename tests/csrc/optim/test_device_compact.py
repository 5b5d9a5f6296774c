"""Compact moments in the CUDA kernels against those of the CPU's step: the same bits."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from csrc.optim.device_cases import assert_same_state, give_grads, moved, named, on_host
from devices import ONE_ORDER
from optim.optim_cases import FLOATS, HYPER, parameters, set_grads

from pyspectra import ops
from pyspectra.optim import ChildAdamW
from pyspectra.optim._fused.device_plan import DevicePlan
from pyspectra.optim._fused.plan import Plan

SHAPES = ((), (1,), (0,), (7,), (33, 129), (4096,), (4096,), (9001,), (300,))
WITHOUT = 8  # the position of a parameter that has no mask


def masks(host: list[Any], seed: int = 3) -> dict[str, Any]:
    """Sparse, dense, empty and full ones, and one with its ends alone."""
    generator = torch.Generator().manual_seed(seed)
    shares = (1.0, 1.0, 0.5, 0.4, 0.1, 0.0, 1.0, 0.7, 0.0)
    out = {
        f"p{k}": torch.rand(p.shape, generator=generator) < share
        for k, (p, share) in enumerate(zip(host, shares, strict=True))
    }
    del out[f"p{WITHOUT}"]
    out["p7"][4000:8200] = False
    out["p7"][-1] = True
    return out


def pair(device: str, dtype: Any, **extra: Any) -> tuple[list[Any], list[Any], Any, Any]:
    host = parameters(dtype, shapes=SHAPES)
    copies = moved(host, device)
    settings: dict[str, Any] = {"mode": "D", "compact": True, "mask": masks(host), **HYPER, **extra}
    a, b = (ChildAdamW(named(p), **settings) for p in (host, copies))
    return host, copies, a, b


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "child decays": {"decay_masked": False},
    "no decay": {"weight_decay": 0.0},
    "alicemind": {"order": "alicemind"},
    "alicemind, child decays": {"order": "alicemind", "decay_masked": False},
    "average": {"ema_decay": 0.9, "ema_every": 2},
    "average, child decays": {"ema_decay": 0.9, "ema_warmup": "power", "decay_masked": False},
    "rounding": {"stochastic_rounding": True, "seed": 5, "ema_decay": 0.8},
    "master": {"master_weights": True, "ema_decay": 0.8},
    "master, child decays": {"master_weights": True, "decay_masked": False},
    "clipped": {"max_grad_norm": 0.3},
    "eps 0": {"eps": 0.0, "decay_masked": False},
}


@pytest.mark.filterwarnings("ignore:.*does nothing for float16")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_the_cpu(device: str, case: str, dtype: Any) -> None:
    host, copies, a, b = pair(device, dtype, **CASES[case])
    for t in range(3):
        give_grads(host, copies, t)
        if case == "eps 0":  # 0 / 0 elsewhere
            for p in (*host, *copies):
                p.grad[p.grad == 0] = 0.5
        on_host(a)
        b.step()
    assert type(a._plan) is Plan
    assert type(b._plan) is DevicePlan
    assert all(torch.isfinite(p).all() for p in host)
    assert_same_state(a, b, host, copies)
    for k, p in enumerate(copies):
        whole = k == WITHOUT
        held = p.numel() if whole else int(masks(host)[f"p{k}"].sum())
        assert b.state[p]["exp_avg"].numel() == held


@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
@pytest.mark.parametrize(
    "extra",
    [{}, {"decay_masked": False}, {"order": "alicemind"}, {"master_weights": True}],
    ids=str,
)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@ONE_ORDER
def test_statistics(device: str, dtype: Any, extra: Any, max_grad_norm: float | None) -> None:
    """They look at all gradients, those outside the child too."""
    host, copies, a, b = pair(device, dtype, statistics=True, max_grad_norm=max_grad_norm, **extra)
    for t in range(2):
        give_grads(host, copies, t)
        for p in (host, copies):
            p[4].grad.view(-1)[:30] = torch.tensor([torch.inf, torch.nan, 0.0]).repeat(10)
            p[5].data[:100] = 0  # neither moves nor decays
        on_host(a)
        b.step()
    # NaN is not equal to itself.
    assert repr(a.statistics()) == repr(b.statistics())
    assert a.statistics()["p5"].n_rounded_away == b.statistics()["p5"].n_rounded_away


def test_more_pieces_than_are_counted_at_a_time(device: str) -> None:
    host = parameters(shapes=((70_013,), (65_536,)))
    copies = moved(host, device)
    generator = torch.Generator().manual_seed(3)
    mask = {f"p{k}": torch.rand(p.shape, generator=generator) < 0.1 for k, p in enumerate(host)}
    a, b = (
        ChildAdamW(named(p), mode="D", mask=mask, compact=True, **HYPER) for p in (host, copies)
    )
    for t in range(2):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)


@ONE_ORDER
def test_all_types_and_several_groups(device: str) -> None:
    """Compact and whole moments of each type, in an order that the plan has to change."""
    shapes = ((700,), (5, 900), (129,), (4100,))
    host = [p for t in (3, 1, 0, 2) for p in parameters(FLOATS[t], seed=t, shapes=shapes)]
    copies = moved(host, device)
    generator = torch.Generator().manual_seed(9)
    mask = [torch.rand(p.shape, generator=generator) < 0.3 for p in host]

    def make(params: list[Any]) -> Any:
        compact = params[1::2]
        groups: list[dict[str, Any]] = [
            {"params": params[0:8:2], "mode": "F", "ema_decay": 0.9},
            {"params": compact[:4], "mode": "D", "compact": True, "lr": 0.02},
            {"params": params[8::2]},
            {"params": compact[4:], "mode": "D", "compact": True, "order": "alicemind"},
        ]
        given = dict(zip(compact, mask[1::2], strict=True))
        return ChildAdamW(groups, mask=given, max_grad_norm=0.5, statistics=True, **HYPER)

    a, b = make(host), make(copies)
    for t in range(3):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert repr(a.statistics()) == repr(b.statistics())


@ONE_ORDER
def test_masters_win_outside_the_child(device: str) -> None:
    """Parameters that were written to become the roundings of their masters again."""
    extra = {"master_weights": True, "decay_masked": False}
    host, copies, a, b = pair(device, torch.bfloat16, **extra)
    for t in range(2):
        give_grads(host, copies, t)
        for p in (*host, *copies) if t == 1 else ():
            p.data.zero_()
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert host[5].count_nonzero() == host[5].numel()  # of an empty child


@ONE_ORDER
def test_a_step_is_left_out_without_asking(device: str) -> None:
    host, copies, a, b = pair(device, torch.float32, max_grad_norm=0.3, ema_decay=0.9)
    for t, found in enumerate((0.0, 1.0, 0.0)):
        give_grads(host, copies, t)
        for opt in (a, b):
            opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(found)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert {int(s["step"]) for s in b.state.values()} == {2}


@ONE_ORDER
def test_parameters_without_a_gradient_take_no_step(device: str) -> None:
    host, copies, a, b = pair(device, torch.float32)
    for t in range(3):
        give_grads(host, copies, t)
        if t == 1:
            host[4].grad = copies[4].grad = None
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert int(b.state[copies[4]]["step"]) == 2


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@ONE_ORDER
def test_states_exchange_with_the_cpu_and_resume(device: str, dtype: Any) -> None:
    """The device goes on from the CPU's state, and the CPU from the device's."""
    extra = {"ema_decay": 0.9, "master_weights": True}
    host, copies, a, b = pair(device, dtype, **extra)
    for t in range(4):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
        saved = [through_a_file(opt.state_dict()) for opt in (a, b)]
        for k in range(len(host)):
            for key, x in saved[0]["state"][k].items():
                assert torch.equal(x, saved[1]["state"][k][key].cpu()), key
        # The masks come with the states.
        a, b = (
            ChildAdamW(named(p), mode="D", compact=True, **extra, **HYPER) for p in (host, copies)
        )
        a.load_state_dict(saved[1])
        b.load_state_dict(saved[0])
    assert_same_state(a, b, host, copies)


@ONE_ORDER
def test_whole_moments_load_into_compact_ones(device: str) -> None:
    host = parameters(shapes=SHAPES)
    source = torch.optim.AdamW(host, **HYPER)
    set_grads(host, 0)
    source.step()
    copies = moved(host, device)
    a, b = (
        ChildAdamW(named(p), mode="D", mask=masks(host), compact=True, **HYPER)
        for p in (host, copies)
    )
    for opt in (a, b):
        opt.load_state_dict(copy.deepcopy(source.state_dict()))
    give_grads(host, copies, 1)
    on_host(a)
    b.step()
    assert_same_state(a, b, host, copies)


@ONE_ORDER
def test_changed_masks(device: str) -> None:
    """Other elements of the same number take over the moments in order, as on the CPU."""
    host, copies, a, b = pair(device, torch.float32)
    for t in range(4):
        give_grads(host, copies, t)
        for params, opt in ((host, a), (copies, b)):
            for k in (4, 7):
                if t == 0:
                    continue
                mask = opt.state[params[k]]["mask"]
                if t == 2:  # replaced; else written over
                    mask = opt.state[params[k]]["mask"] = mask.clone()
                mask[:-1] = mask[:-1].flip(0).roll(t)  # of the last byte only some bits count
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    b.state[copies[7]]["mask"].fill_(255)
    before = [p.detach().clone() for p in copies]
    with pytest.raises(TypeError, match="state 'exp_avg' of 'p7' must be a contiguous"):
        b.step()
    assert all(map(torch.equal, before, copies))


@pytest.mark.parametrize("device", ["emulated-ascending"], indirect=True)
def test_nothing_outside_the_moments_is_touched(device: str) -> None:
    """Where a mask has gained elements behind torch's back, as only host memory lets it."""
    p = torch.nn.Parameter(torch.randn(9001))
    mask = torch.arange(9001) % 7 == 0
    opt = ChildAdamW([("p", p)], mode="D", mask={"p": mask}, compact=True, **HYPER)
    p.grad = torch.ones_like(p)
    opt.step()
    n = int(mask.sum())
    room = {key: torch.full((n + 20_000,), 7.0) for key in ("exp_avg", "exp_avg_sq")}
    for key, x in room.items():
        x[8000 : 8000 + n] = opt.state[p][key]
        opt.state[p][key] = x[8000 : 8000 + n]
    opt.step()
    opt.state[p]["mask"].numpy()[:] = 255
    opt.step()
    for x in room.values():
        assert (x[:8000] == 7.0).all()
        assert (x[8000 + n :] == 7.0).all()


@ONE_ORDER
def test_views_that_are_not_aligned(device: str) -> None:
    """Parameters, moments and masks in flat buffers begin anywhere."""
    sizes = (5, 130, 4097, 9003)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(sum(sizes), generator=generator)
    mask = {f"p{k}": torch.rand(n, generator=generator) < 0.4 for k, n in enumerate(sizes)}

    def views(buffer: Any) -> list[Any]:
        return [torch.nn.Parameter(x) for x in buffer.split(sizes)]

    host, copies = views(flat.clone()), views(flat.clone().to(device))
    a, b = (
        ChildAdamW(named(p), mode="D", mask=mask, compact=True, decay_masked=False, **HYPER)
        for p in (host, copies)
    )
    for t in range(3):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
        for state in b.state.values():
            for key in ("exp_avg", "exp_avg_sq", "mask"):
                x = state[key]
                state[key] = torch.cat([x.new_zeros(1), x])[1:]
    assert_same_state(a, b, host, copies)


def test_ranks_are_counted_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose plan holds launches nothing but itself."""
    host, copies, a, b = pair(device, torch.float32)
    counted = []
    device_ranks = ops.device_ranks

    def count(**arguments: Any) -> None:
        counted.append(1)
        device_ranks(**arguments)

    monkeypatch.setattr(ops, "device_ranks", count)
    for t in range(3):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert len(counted) == 1
    assert_same_state(a, b, host, copies)


@pytest.mark.gpu
@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
def test_a_captured_step_goes_on(max_grad_norm: float | None) -> None:
    host, copies, a, b = pair("cuda", torch.float32, max_grad_norm=max_grad_norm, ema_decay=0.9)
    static = [torch.zeros_like(q) for q in copies]
    graph = torch.cuda.CUDAGraph()
    for t in range(5):
        set_grads(host, t)
        for p, q, g in zip(host, copies, static, strict=True):
            g.copy_(p.grad)
            q.grad = g
        a.step()
        if t == 0:
            b.step()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                b.step()
        else:
            graph.replay()
    assert_same_state(a, b, host, copies)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_waits_for_nothing() -> None:
    _, copies, _, opt = pair(
        "cuda", torch.float32, max_grad_norm=0.3, ema_decay=0.9, statistics=True
    )
    for p in copies:
        p.grad = torch.ones_like(p)
    opt.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        opt.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert opt.statistics()
