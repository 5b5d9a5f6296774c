"""What the fused optimizers share: the cached table, loss scaling, statistics, masters, compact
moments; Adam and SGD against torch."""

from __future__ import annotations

import copy
import io
import math
import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from optim.optim_cases import FLOATS, HYPER, parameters, same, set_grads  # noqa: E402

from pyspectra import ops  # noqa: E402
from pyspectra.optim import SGD, Adam, AdamW, ChildAdamW  # noqa: E402
from pyspectra.types import StepStatistics  # noqa: E402

# --- the cached table -----------------------------------------------------------------------------


def test_a_steady_step_builds_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    params = parameters()
    opt = ChildAdamW(params, mode="F", ema_decay=0.9, ema_every=2, **HYPER)
    set_grads(params, 0)
    opt.step()
    built = opt._plan
    for t in range(1, 5):
        set_grads(params, t)  # new tensors, as after zero_grad(set_to_none=True)
        opt.param_groups[0]["lr"] = 0.01 / t
        opt.step()
    assert opt._plan is built


def twin(change: Any, **extra: Any) -> None:
    """A change between steps gives what an optimizer without a table from before gives."""
    results = []
    for cached in (True, False):
        params = parameters(shapes=[(6, 4), (10,), (3,)])
        opt = ChildAdamW(params, ema_decay=0.9, **{**HYPER, **extra})
        for t in range(4):
            set_grads(params, t)
            if t == 2:
                change(opt, params)
            if not cached:
                opt._plan = None
            opt.step()
        results.append([*params, *(s["ema"] for s in opt.state.values())])
    assert same(*results)


def test_changes_between_steps_are_noticed() -> None:
    def new_storage(opt: Any, params: Any) -> None:
        params[0].data = params[0].data.clone()

    def new_moment(opt: Any, params: Any) -> None:
        opt.state[params[0]]["exp_avg"] = torch.ones(6, 4)

    def new_state(opt: Any, params: Any) -> None:
        opt.state[params[1]] = {k: copy.copy(v) for k, v in opt.state[params[1]].items()}
        opt.state[params[1]]["exp_avg_sq"] = torch.ones(10)

    def new_count(opt: Any, params: Any) -> None:
        opt.state[params[1]]["step"] = 70

    def moved_moment(opt: Any, params: Any) -> None:
        opt.state[params[0]]["exp_avg"].data = torch.ones(6, 4)

    def no_grad(opt: Any, params: Any) -> None:
        params[1].grad = None

    def strided_grad(opt: Any, params: Any) -> None:
        params[0].grad = params[0].grad.reshape(4, 6).t()

    def other_seed(opt: Any, params: Any) -> None:
        opt.param_groups[0].update(mode="F", seed=9)

    def no_average(opt: Any, params: Any) -> None:
        opt.param_groups[0]["ema_decay"] = None

    def other_order(opt: Any, params: Any) -> None:
        opt.param_groups[0]["order"] = "alicemind"

    for change in (
        new_storage,
        new_moment,
        new_state,
        new_count,
        moved_moment,
        no_grad,
        strided_grad,
        other_seed,
        no_average,
        other_order,
    ):
        twin(change)


def test_new_types_and_shapes_between_steps_are_refused() -> None:
    def refused(message: str, change: Any) -> None:
        params = parameters(shapes=[(6, 4), (10,)])
        opt = AdamW(params, **HYPER)
        set_grads(params, 0)
        opt.step()
        before = params[1].detach().clone()
        change(opt, params)
        with pytest.raises((TypeError, ValueError), match=message):
            opt.step()
        assert torch.equal(params[1], before)
        assert opt.state[params[1]]["step"] == 1

    def narrower(opt: Any, params: Any) -> None:
        params[0].data = params[0].data[:3]

    def other_type(opt: Any, params: Any) -> None:
        params[0].data = params[0].data.view(torch.bfloat16)[:, ::2]

    def transposed(opt: Any, params: Any) -> None:
        params[0].data = params[0].data.t()

    def resized(opt: Any, params: Any) -> None:
        opt.state[params[0]]["exp_avg"].resize_(5)

    def retyped(opt: Any, params: Any) -> None:
        x = opt.state[params[0]]["exp_avg"]
        x.data = x.data.view(torch.int32)

    def reshaped_grad(opt: Any, params: Any) -> None:
        params[0].grad.data = params[0].grad.data.reshape(4, 6)

    def smaller_grad(opt: Any, params: Any) -> None:
        params[0].grad.data = params[0].grad.data[:3]

    refused("must be", narrower)
    refused("must be", other_type)
    refused("gradient of '0.0' must be", transposed)
    refused("'exp_avg' of '0.0'", resized)
    refused("'exp_avg' of '0.0'", retyped)
    refused("gradient of '0.0'", smaller_grad)
    refused("gradient of '0.0'", reshaped_grad)


# --- loss scaling and clipping --------------------------------------------------------------------


@pytest.mark.parametrize("unscale_first", [False, True])
def test_a_scaler_leaves_unscaling_and_skipping_to_a_clipping_step(unscale_first: bool) -> None:
    runs = []
    for scaled in (True, False):
        p = parameters(shapes=[(40, 3)])[0]
        opt = ChildAdamW(
            [("w", p)], mode="F", max_grad_norm=0.3, ema_decay=0.9, statistics=True, **HYPER
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        for t in range(5):
            bad = t == 2
            if bad and not scaled:
                continue  # as if that step had never been
            opt.zero_grad()
            scaler.scale((p * (torch.inf if bad else t + 1.0)).square().sum()).backward()
            before, grad = p.detach().clone(), p.grad.clone()
            if unscale_first:
                scaler.unscale_(opt)
            scaler.step(opt)
            scaler.update(1024.0)
            assert torch.equal(p, before) == bad
            if not unscale_first:
                assert torch.equal(p.grad, grad) or bad
        assert opt.state[p]["step"] == 4
        runs.append([p, *(opt.state[p][k] for k in ("exp_avg", "exp_avg_sq", "ema"))])
        scale = 1024 if scaled and not unscale_first else 1
        norm = float(p.grad.norm()) / scale
        assert opt.statistics()["w"].grad_norm == pytest.approx(norm, rel=1e-5)
    assert same(*runs)  # the scale is a power of two: the bits are those without it


def test_only_a_clipping_step_declares_support_of_scaling() -> None:
    p = parameters(shapes=[(3,)])
    assert not AdamW(p)._step_supports_amp_scaling
    assert AdamW(p, max_grad_norm=1.0)._step_supports_amp_scaling


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_clips_as_torch_does(bad: float) -> None:
    a, b = parameters(torch.float64), parameters(torch.float64)
    mine, theirs = AdamW(a, max_grad_norm=0.5, **HYPER), torch.optim.AdamW(b, **HYPER)
    for params in (a, b):
        set_grads(params, 0)
        params[5].grad[0, 0] = bad
    torch.nn.utils.clip_grad_norm_(b, 0.5)
    mine.step()
    theirs.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14, equal_nan=True)


def test_the_clip_factor_is_the_same_for_any_number_of_threads() -> None:
    results = []
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        torch.set_num_threads(min(threads, 2))
        p = parameters(shapes=[(700, 301), (5,)])
        opt = AdamW(p, max_grad_norm=0.1, **HYPER)
        set_grads(p, 0)
        opt.step()
        results.append(p)
    assert same(results[0], results[1])
    assert same(results[0], results[2])


# --- a step that only allocates -------------------------------------------------------------------


def allocate(opt: Any, params: Any) -> None:
    """What torch.distributed.checkpoint does to make a state."""
    rates = [group["lr"] for group in opt.param_groups]
    for group in opt.param_groups:
        group["lr"] = 0.0
    for p in params:
        p.grad = torch.zeros_like(p)
    opt.step()
    for group, rate in zip(opt.param_groups, rates, strict=True):
        group["lr"] = rate
    opt.zero_grad()


@pytest.mark.parametrize("mode", ["F", "D"])
def test_a_step_that_only_allocates_leaves_no_trace(mode: str) -> None:
    shapes = [(30, 7), (11,)]
    extra: dict[str, Any] = {
        "mode": mode,
        "ema_decay": 0.9,
        "stochastic_rounding": True,
        "master_weights": mode == "D",
        "max_grad_norm": 1.0,
    }
    runs = []
    for allocated in (True, False):
        params = parameters(torch.bfloat16, shapes=shapes)
        mask = {params[0]: torch.rand(30, 7, generator=torch.Generator().manual_seed(0)) < 0.4}
        opt = ChildAdamW(params, mask=mask if mode == "D" else None, **HYPER, **extra)
        if allocated:
            allocate(opt, params)
            assert opt.state[params[0]]["step"] == 0
            assert {"exp_avg", "exp_avg_sq", "ema"} <= set(opt.state[params[0]])
        with torch.no_grad():  # the weights are loaded after the state was made
            for p in params:
                p.mul_(2)
        for t in range(3):
            set_grads(params, t)
            opt.step()
        runs.append([*params, *(s[k] for s in opt.state.values() for k in ("exp_avg", "ema"))])
    assert same(*runs)


def test_distributed_checkpointing_saves_and_loads_the_state() -> None:
    dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")

    def made() -> Any:
        torch.manual_seed(0)
        net = torch.nn.Linear(5, 3)
        return net, ChildAdamW(net.named_parameters(), mode="F", ema_decay=0.9, **HYPER)

    def train(net: Any, opt: Any, steps: range) -> None:
        for t in steps:
            set_grads(list(net.parameters()), t)
            opt.step()
            opt.zero_grad()

    whole, opt = made()
    train(whole, opt, range(6))
    first, opt1 = made()
    dcp.get_optimizer_state_dict(first, opt1)  # makes a state, and must not count as a step
    train(first, opt1, range(3))
    saved = copy.deepcopy(dcp.get_state_dict(first, opt1))
    second, opt2 = made()
    dcp.set_state_dict(second, opt2, model_state_dict=saved[0], optim_state_dict=saved[1])
    train(second, opt2, range(3, 6))
    assert same(list(whole.parameters()), list(second.parameters()))
    for p, q in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(opt.state[p]["ema"], opt2.state[q]["ema"])
        assert opt2.state[q]["step"] == 6


def test_a_rate_of_zero_with_gradients_is_a_step() -> None:
    p = parameters(shapes=[(5,)])
    opt = AdamW(p, **{**HYPER, "lr": 0.0})
    set_grads(p, 0)
    opt.step()
    assert opt.state[p[0]]["step"] == 1
    assert opt.state[p[0]]["exp_avg"].any()


# --- statistics -----------------------------------------------------------------------------------


def test_statistics_of_a_step() -> None:
    params = parameters(shapes=[(40, 30), (7,)])
    opt = ChildAdamW(
        [("w", params[0]), ("b", params[1])],
        mode="F",
        max_grad_norm=0.1,
        statistics=True,
        **HYPER,
    )
    assert opt.statistics() == {}
    for t in range(3):
        set_grads(params, t)
        params[0].grad[0] = 0
        before = [p.detach().double() for p in params]
        opt.step()
    got = opt.statistics()
    assert list(got) == ["w", "b"]
    for s, p, old in zip(got.values(), params, before, strict=True):
        g, dw = p.grad.double(), p.detach().double() - old
        assert isinstance(s, StepStatistics)
        assert s.n == p.numel()
        assert s.grad_norm == pytest.approx(float(g.norm()), rel=1e-12)
        assert s.grad_max == float(g.abs().max())
        assert s.param_norm == pytest.approx(float(old.norm()), rel=1e-12)
        assert s.update_norm == pytest.approx(float(dw.norm()), rel=1e-12)
        assert s.grad_dot_update == pytest.approx(float((g * dw).sum()), rel=1e-9)
        assert (s.n_non_finite, s.n_rounded_away) == (0, 0)
    assert (got["w"].n_zero, got["b"].n_zero) == (30, 0)
    with pytest.raises(RuntimeError, match="pass statistics=True"):
        AdamW(params).statistics()


def test_statistics_see_bfloat16_weights_stall() -> None:
    p = torch.nn.Parameter(torch.ones(1000, dtype=torch.bfloat16))
    opt = AdamW([("w", p)], lr=1e-4, weight_decay=0.0, statistics=True)
    p.grad = torch.ones_like(p)
    opt.step()
    assert opt.statistics()["w"].n_rounded_away == 1000
    assert opt.statistics()["w"].update_norm == 0


# --- masters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_masters_keep_what_rounding_would_lose(dtype: Any) -> None:
    shapes = [(9, 13), (5,)]
    narrow = parameters(dtype, shapes=shapes)
    wide = [torch.nn.Parameter(p.detach().float()) for p in narrow]
    mine = AdamW(narrow, master_weights=True, ema_decay=0.9, **HYPER)
    reference = AdamW(wide, master_weights=True, ema_decay=0.9, **HYPER)

    def run(steps: range) -> None:
        for t in steps:
            set_grads(narrow, t)
            for p, w in zip(narrow, wide, strict=True):
                w.grad = p.grad.float()
            mine.step()
            reference.step()

    run(range(30))
    # Through a file and on.
    file = io.BytesIO()
    torch.save(mine.state_dict(), file)
    file.seek(0)
    mine = AdamW(narrow, master_weights=True, ema_decay=0.9, **HYPER)
    mine.load_state_dict(torch.load(file, weights_only=True))
    run(range(30, 40))
    for p, w in zip(narrow, wide, strict=True):
        assert mine.state[p]["master"].dtype is torch.float32
        assert torch.equal(mine.state[p]["master"], w)
        assert torch.equal(mine.state[p]["ema"], reference.state[w]["ema"])
        assert torch.equal(p, w.to(dtype))
        assert "master" not in reference.state[w]


def test_masters_exchange_with_torch() -> None:
    ours, theirs = parameters(torch.bfloat16), parameters(torch.bfloat16)
    source = torch.optim.AdamW(theirs, **HYPER)
    set_grads(theirs, 0)
    source.step()
    opt = AdamW(ours, master_weights=True, **HYPER)
    opt.load_state_dict(source.state_dict())
    set_grads(ours, 1)
    opt.step()
    assert all(torch.equal(p, opt.state[p]["master"].bfloat16()) for p in ours)
    source.load_state_dict(opt.state_dict())
    set_grads(theirs, 2)
    source.step()


# --- compact moments ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["torch", "alicemind"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_compact_moments_change_no_bit(dtype: Any, order: str) -> None:
    shapes = [(50, 37), (20, 3), (9,)]
    names = ("a", "b", "c")
    generator = torch.Generator().manual_seed(1)
    mask = {n: torch.rand(s, generator=generator) < 0.1 for n, s in zip(names, shapes, strict=True)}
    del mask["c"]
    extra: dict[str, Any] = {"mode": "D", "ema_decay": 0.9, "order": order, **HYPER}
    whole, small = parameters(dtype, shapes=shapes), parameters(dtype, shapes=shapes)
    one = ChildAdamW(list(zip(names, whole, strict=True)), mask=mask, **extra)
    two = ChildAdamW(list(zip(names, small, strict=True)), mask=mask, compact=True, **extra)
    for t in range(10):
        if t == 5:  # through a file; the mask comes with the state
            file = io.BytesIO()
            torch.save(two.state_dict(), file)
            file.seek(0)
            two = ChildAdamW(list(zip(names, small, strict=True)), compact=True, **extra)
            two.load_state_dict(torch.load(file, weights_only=True))
        for params, opt in ((whole, one), (small, two)):
            set_grads(params, t)
            opt.step()
    assert same(whole, small)
    for p, q, n in zip(whole, small, names, strict=True):
        assert torch.equal(one.state[p]["ema"], two.state[q]["ema"])
        for k in ("exp_avg", "exp_avg_sq"):
            child = one.state[p][k][mask[n]] if n in mask else one.state[p][k]
            assert torch.equal(child, two.state[q][k])
            assert two.state[q][k].shape == child.shape


def test_compact_moments_are_small() -> None:
    p = parameters(shapes=[(400, 250)])[0]
    mask = torch.rand(400, 250, generator=torch.Generator().manual_seed(2)) < 0.1
    opt = ChildAdamW([p], mode="D", mask={p: mask}, compact=True, **HYPER)
    set_grads([p], 0)
    opt.step()
    assert opt.state_bytes() == 8 * int(mask.sum()) + p.numel() // 8
    assert opt.state_bytes() < 1.2 * p.numel()


def test_whole_moments_load_into_compact_ones() -> None:
    a, b = parameters(shapes=[(12, 5)]), parameters(shapes=[(12, 5)])
    mask = torch.rand(12, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    source = torch.optim.AdamW(a, **HYPER)
    set_grads(a, 0)
    source.step()
    opt = ChildAdamW(b, mode="D", mask={b[0]: mask}, compact=True, **HYPER)
    opt.load_state_dict(source.state_dict())
    assert torch.equal(opt.state[b[0]]["exp_avg"], source.state[a[0]]["exp_avg"][mask])
    set_grads(b, 1)
    opt.step()
    bad = copy.deepcopy(opt.state_dict())
    bad["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=re.escape(f"shape ({int(mask.sum())},) or (12, 5), got")):
        opt.load_state_dict(bad)


# --- Adam and SGD ---------------------------------------------------------------------------------

SGDS = (
    {},
    {"momentum": 0.8},
    {"momentum": 0.8, "dampening": 0.15},
    {"momentum": 0.8, "nesterov": True},
)


@pytest.mark.parametrize("settings", [None, *SGDS], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_adam_and_sgd_follow_torch(settings: Any, dtype: Any) -> None:
    ours = parameters(dtype)
    wide = [torch.nn.Parameter(p.detach().double()) for p in ours]
    if settings is None:
        mine: Any = Adam(ours, master_weights=True, **HYPER)
        theirs: Any = torch.optim.Adam(wide, foreach=False, **HYPER)
    else:
        hyper = {"lr": 0.02, "weight_decay": 0.06, **settings}
        mine = SGD(ours, master_weights=True, **hyper)
        theirs = torch.optim.SGD(wide, foreach=False, **hyper)
    for t in range(50):
        set_grads(ours, t)
        for p, w in zip(ours, wide, strict=True):
            w.grad = p.grad.double()
        mine.step()
        theirs.step()
    tolerance = 1e-12 if dtype is torch.float64 else 1e-5
    for p, w in zip(ours, wide, strict=True):
        got = mine.state[p].get("master", p).double()
        if p.numel():
            assert (got - w).abs().max() <= tolerance * w.abs().max()


@pytest.mark.parametrize("kind", ["Adam", *SGDS], ids=str)
def test_states_of_adam_and_sgd_exchange_with_torch(kind: Any) -> None:
    a, b = parameters(torch.float64), parameters(torch.float64)
    if kind == "Adam":
        mine: Any = Adam(a, **HYPER)
        theirs: Any = torch.optim.Adam(b, **HYPER)
    else:
        hyper = {"lr": 0.02, "weight_decay": 0.06, **kind}
        mine, theirs = SGD(a, **hyper), torch.optim.SGD(b, **hyper)
    for t in range(6):
        if t == 2:
            mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
        if t == 4:
            theirs.load_state_dict(copy.deepcopy(mine.state_dict()))
        for params, opt in ((a, mine), (b, theirs)):
            set_grads(params, t)
            opt.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_states_of_other_rules_are_refused() -> None:
    p = parameters(shapes=[(4,)])
    adam, adamw, sgd = Adam(p), AdamW(p), SGD(p, momentum=0.5)
    set_grads(p, 0)
    for theirs in (torch.optim.Adam(p), torch.optim.AdamW(p)):
        theirs.step()
        with pytest.raises(ValueError, match="of another update rule"):
            sgd.load_state_dict(theirs.state_dict())
    with pytest.raises(ValueError, match=r"^Adam: .* got one of Adam with decoupled decay\."):
        adam.load_state_dict(torch.optim.AdamW(p).state_dict())
    with pytest.raises(ValueError, match=r"^AdamW: .* got one of Adam with L2 decay\."):
        adamw.load_state_dict(torch.optim.Adam(p).state_dict())


def test_bad_arguments_of_sgd_are_named() -> None:
    p = parameters(shapes=[(4,)])
    with pytest.raises(ValueError, match="SGD: 'nesterov' must come with"):
        SGD(p, nesterov=True)
    with pytest.raises(ValueError, match="SGD: 'momentum' must be finite and not negative"):
        SGD(p, momentum=-0.1)
    with pytest.raises(TypeError, match="SGD: 'master_weights' must be a bool"):
        SGD(p, master_weights=1)
    with pytest.raises(TypeError, match="Adam: 'statistics' must be a bool"):
        Adam(p, statistics=1)


def test_averages_of_sgd() -> None:
    p = parameters(torch.float64, shapes=[(4,)])[0]
    opt = SGD([p], lr=0.1, momentum=0.5, ema_decay=0.5, ema_warmup=None)
    want = p.detach().numpy().copy()
    for t in range(3):
        set_grads([p], t)
        opt.step()
        want = 0.5 * want + 0.5 * p.detach().numpy()
    np.testing.assert_allclose(opt.state[p]["ema"].numpy(), want, rtol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.1, 0.9), (0.49, 0.95), (0.9, 0.0)])
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_below_a_half_lose_nothing(name: str, betas: Any, dtype: Any) -> None:
    """Gradients of 1e6, then of 1e-3: m forgets the first where beta1 is 0."""
    ours, theirs = (torch.nn.Parameter(torch.ones(40, dtype=dtype)) for _ in range(2))
    settings = {"lr": 0.01, "betas": betas, "eps": 3e-7, "weight_decay": 0.06}
    mine = {"Adam": Adam, "AdamW": AdamW}[name]([ours], **settings)
    other = getattr(torch.optim, name)([theirs], **settings)
    for value in (1e6, 1e-3, -2e-3, 5.0):
        for p in (ours, theirs):
            p.grad = torch.full_like(p, value)
        mine.step()
        other.step()
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                mine.state[ours][key], other.state[theirs][key], rtol=1e-6, atol=0.0
            )
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("saved", ["never", "before", "between"])
def test_a_momentum_that_is_switched_on_begins_undampened(saved: str, nesterov: bool) -> None:
    """As torch's, whose buffer is the first gradient; whatever the number of the step."""
    ours, theirs = (parameters(shapes=[(7,), (3, 5)]) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.02}
    mine, other = SGD(ours, **settings), torch.optim.SGD(theirs, **settings)
    changes = {"momentum": 0.9, "dampening": 0.0 if nesterov else 0.4, "nesterov": nesterov}
    for t in range(6):
        if t == 2:
            for opt in (mine, other):
                opt.param_groups[0].update(changes)
        if (t, saved) in ((2, "before"), (3, "between")):
            state = mine.state_dict()
            mine = SGD(ours, **settings)
            mine.load_state_dict(state)
        for params, opt in ((ours, mine), (theirs, other)):
            set_grads(params, t)
            if t == 2:  # its momentum begins a step later
                params[1].grad = None
            opt.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_a_momentum_of_a_state_of_torch_without_one() -> None:
    ours, theirs = (parameters(shapes=[(7,)]) for _ in range(2))
    other = torch.optim.SGD(theirs, lr=0.1)
    set_grads(theirs, 0)
    other.step()
    mine = SGD(ours, lr=0.1)
    with torch.no_grad():
        ours[0].copy_(theirs[0])
    mine.load_state_dict(other.state_dict())
    for opt in (mine, other):
        opt.param_groups[0].update(momentum=0.9, dampening=0.5)
    for t in range(3):
        for params, opt in ((ours, mine), (theirs, other)):
            set_grads(params, t)
            opt.step()
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-7)
