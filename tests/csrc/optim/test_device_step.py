"""The step of the CUDA kernels against the one of the CPU: the same bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from csrc.optim.device_cases import SHAPES, assert_same_state, give_grads, moved, named, on_host
from optim.optim_cases import FLOATS, HYPER, parameters, set_grads

from pyspectra.optim import SGD, Adam, AdamW, ChildAdamW
from pyspectra.optim._fused.device_plan import DevicePlan
from pyspectra.optim._fused.plan import Plan

CASES: dict[str, Any] = {
    "plain": lambda p: AdamW(p, **HYPER),
    "power": lambda p: AdamW(p, ema_decay=0.9, ema_warmup="power", **HYPER),
    "average": lambda p: AdamW(p, ema_decay=0.9, ema_every=2, **HYPER),
    "drawn": lambda p: ChildAdamW(p, mode="F", reserve_p=0.4, ema_decay=0.9, seed=7, **HYPER),
    "alicemind": lambda p: ChildAdamW(p, mode="F", order="alicemind", **HYPER),
    "rounding": lambda p: AdamW(p, stochastic_rounding=True, ema_decay=0.8, **HYPER),
    "master": lambda p: AdamW(p, master_weights=True, ema_decay=0.8, **HYPER),
    "adam": lambda p: Adam(p, ema_decay=0.9, **HYPER),
    "momentum": lambda p: SGD(p, lr=0.02, momentum=0.8, dampening=0.1, weight_decay=0.03),
    "nesterov": lambda p: SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.03),
    "descent": lambda p: SGD(p, lr=0.02, weight_decay=0.03, ema_decay=0.9),
    "clipped": lambda p: AdamW(p, max_grad_norm=0.3, **HYPER),
}


@pytest.mark.filterwarnings("ignore:.*does nothing for float16")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_the_cpu(device: str, case: str, dtype: Any) -> None:
    host = parameters(dtype, shapes=SHAPES)
    copies = moved(host, device)
    a, b = CASES[case](named(host)), CASES[case](named(copies))
    for t in range(3):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert type(a._plan) is Plan
    assert type(b._plan) is DevicePlan
    assert_same_state(a, b, host, copies)


@pytest.mark.parametrize("warmup", ["tf", "power", None])
@pytest.mark.parametrize("every", [1, 2])
def test_averages_of_parameters_that_miss_steps(device: str, warmup: Any, every: int) -> None:
    host = parameters(torch.float32, shapes=SHAPES)
    copies = moved(host, device)
    options = {"ema_decay": 0.9, "ema_warmup": warmup, "ema_every": every, **HYPER}
    a, b = AdamW(named(host), **options), AdamW(named(copies), **options)
    for t, moving in enumerate([{0, 1, 3, 5}, {5}, {4, 5}, set(), {3, 4}, {3, 4}, {0, 5}]):
        give_grads(host, copies, t)
        for params in (host, copies):
            for k, p in enumerate(params):
                if k not in moving:
                    p.grad = None
        on_host(a)
        b.step()
    assert a._steps_taken() == b._steps_taken() == 7
    for p, q in zip(host, copies, strict=True):
        assert a.state.get(p, {}).keys() == b.state.get(q, {}).keys()
        if "ema" in a.state.get(p, {}):
            torch.testing.assert_close(
                a.state[p]["ema"], b.state[q]["ema"].cpu(), rtol=1e-6, atol=0
            )


@pytest.mark.parametrize("decay_masked", [True, False])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_fixed_mask(device: str, dtype: Any, decay_masked: bool) -> None:
    host = parameters(dtype, shapes=SHAPES)
    copies = moved(host, device)
    generator = torch.Generator().manual_seed(3)
    mask = {f"p{k}": torch.rand(p.shape, generator=generator) < 0.4 for k, p in enumerate(host)}
    a, b = (
        ChildAdamW(named(p), mode="D", mask=mask, decay_masked=decay_masked, **HYPER)
        for p in (host, copies)
    )
    for t in range(2):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)


@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
@pytest.mark.parametrize("extra", [{}, {"mode": "F"}, {"master_weights": True}], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics(device: str, dtype: Any, extra: Any, max_grad_norm: float | None) -> None:
    host = parameters(dtype, shapes=SHAPES)
    copies = moved(host, device)
    a, b = (
        ChildAdamW(named(p), statistics=True, max_grad_norm=max_grad_norm, **extra, **HYPER)
        for p in (host, copies)
    )
    for t in range(2):
        give_grads(host, copies, t)
        for p in (host, copies):
            p[4].grad.view(-1)[:3] = torch.tensor([torch.inf, torch.nan, 0.0])
        on_host(a)
        b.step()
    # NaN is not equal to itself.
    assert repr(a.statistics()) == repr(b.statistics())


def test_a_step_is_left_out_without_asking(device: str) -> None:
    host = parameters(shapes=SHAPES)
    copies = moved(host, device)
    a, b = (AdamW(named(p), max_grad_norm=0.3, ema_decay=0.9, **HYPER) for p in (host, copies))
    for t, found in enumerate((0.0, 1.0, 0.0)):
        give_grads(host, copies, t)
        for opt in (a, b):
            opt.grad_scale, opt.found_inf = torch.tensor(8.0), torch.tensor(found)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert {int(s["step"]) for s in b.state.values()} == {2}


def test_parameters_without_a_gradient_take_no_step(device: str) -> None:
    host = parameters(shapes=SHAPES)
    copies = moved(host, device)
    a, b = (ChildAdamW(named(p), mode="F", **HYPER) for p in (host, copies))
    for t in range(4):
        give_grads(host, copies, t)
        if t % 2 == 1:
            host[4].grad = copies[4].grad = None
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)
    assert int(b.state[copies[4]]["step"]) == 2


def test_states_exchange_with_the_cpu_and_resume(device: str) -> None:
    host = parameters(shapes=SHAPES)
    copies = moved(host, device)
    a, b = (ChildAdamW(named(p), mode="F", ema_decay=0.9, **HYPER) for p in (host, copies))
    give_grads(host, copies, 0)
    on_host(a)
    b.step()
    saved = a.state_dict()
    assert all(
        torch.equal(saved["state"][k]["step"], s["step"])
        for k, s in b.state_dict()["state"].items()
    )
    b = ChildAdamW(named(copies), mode="F", ema_decay=0.9, **HYPER)
    b.load_state_dict(copy.deepcopy(saved))
    give_grads(host, copies, 1)
    on_host(a)
    b.step()
    assert_same_state(a, b, host, copies)


def test_views_that_are_not_aligned(device: str) -> None:
    """Parameters in one flat buffer begin anywhere."""
    sizes = (5, 130, 4097, 3)
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(sum(sizes), generator=generator)

    def views(buffer: Any) -> list[Any]:
        return [torch.nn.Parameter(x) for x in buffer.split(sizes)]

    host, copies = views(flat.clone()), views(flat.clone().to(device))
    a, b = (ChildAdamW(named(p), mode="F", **HYPER) for p in (host, copies))
    for t in range(2):
        give_grads(host, copies, t)
        on_host(a)
        b.step()
    assert_same_state(a, b, host, copies)


def test_many_groups(device: str) -> None:
    """More groups than travel with one launch."""
    host = parameters(shapes=[(k,) for k in range(1, 41)])
    copies = moved(host, device)
    a, b = (
        AdamW([{"params": [x], "lr": 1e-3 * (k + 1)} for k, x in enumerate(p)], **HYPER)
        for p in (host, copies)
    )
    give_grads(host, copies, 0)
    on_host(a)
    b.step()
    assert_same_state(a, b, host, copies)


@pytest.mark.gpu
@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
def test_a_captured_step_goes_on(max_grad_norm: float | None) -> None:
    """A graph of a step counts on: learning rate, masks and averages are those of each step."""
    host = parameters(shapes=SHAPES)
    copies = moved(host, "cuda")
    lr = torch.tensor(HYPER["lr"], device="cuda")
    extra = {"mode": "F", "ema_decay": 0.9, "max_grad_norm": max_grad_norm}
    a = ChildAdamW(named(host), **extra, **{**HYPER, "lr": float(lr)})
    b = ChildAdamW(named(copies), **extra, **{**HYPER, "lr": lr})
    static = [torch.zeros_like(q) for q in copies]
    graph = torch.cuda.CUDAGraph()
    for t in range(5):
        set_grads(host, t)
        a.param_groups[0]["lr"] = float(lr)
        for p, g in zip(host, static, strict=True):
            g.copy_(p.grad)
        for q, g in zip(copies, static, strict=True):
            q.grad = g
        a.step()
        if t == 0:
            b.step()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                b.step()
        else:
            graph.replay()
        lr.mul_(0.9)
    assert_same_state(a, b, host, copies)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_waits_for_nothing() -> None:
    params = moved(parameters(shapes=SHAPES), "cuda")
    opt = ChildAdamW(
        named(params), mode="F", max_grad_norm=0.3, ema_decay=0.9, statistics=True, **HYPER
    )
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    torch.cuda.synchronize()
    opt.grad_scale = torch.tensor(8.0, device="cuda")
    opt.found_inf = torch.zeros((), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        opt.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert opt.statistics()


@pytest.mark.gpu
def test_the_callers_stream_is_used() -> None:
    host = parameters(shapes=((4096, 256),))
    copies = moved(host, "cuda")
    a, b = (AdamW(named(p), **HYPER) for p in (host, copies))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for t in range(4):
            set_grads(host, t)
            copies[0].grad = host[0].grad.pin_memory().to("cuda", non_blocking=True)
            a.step()
            b.step()
    stream.synchronize()
    assert_same_state(a, b, host, copies)
