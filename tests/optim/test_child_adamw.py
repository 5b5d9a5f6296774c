"""ChildAdamW and AdamW: parity with torch, masks, averages, saved states, refusals."""

from __future__ import annotations

import copy
import gc
import io
import re
import weakref
from typing import Any

import numpy as np
import pytest
from reference import optim as ref

import pyspectra as ps
from pyspectra import ops

torch = pytest.importorskip("torch")

from optim.optim_cases import FLOATS, HYPER, parameters, same, set_grads  # noqa: E402

from pyspectra.optim import AdamW, ChildAdamW  # noqa: E402
from pyspectra.optim._fused.names import parameter_key  # noqa: E402


def model() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(9, 20), torch.nn.LayerNorm(20), torch.nn.Tanh(), torch.nn.Linear(20, 4)
    )


def train(net: Any, opt: Any, steps: range) -> None:
    for t in steps:
        x = torch.randn(8, 9, generator=torch.Generator().manual_seed(t))
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()


def weights(net: Any) -> list[Any]:
    return [p.detach().clone() for p in net.parameters()]


# --- parity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_step_is_within_two_ulp_of_torch_in_float64(dtype: Any) -> None:
    ours = parameters(dtype)
    wide = [torch.nn.Parameter(p.detach().double()) for p in ours]
    mine = AdamW(ours, **HYPER)
    theirs = torch.optim.AdamW(wide, foreach=False, **HYPER)
    generator = torch.Generator().manual_seed(5)
    for p, w in zip(ours, wide, strict=True):  # from the middle of a run, not from zero moments
        first = 0.1 * torch.randn(p.shape, generator=generator)
        second = 0.05 * torch.rand(p.shape, generator=generator)
        state = torch.float64 if dtype is torch.float64 else torch.float32
        mine.state[p] = {"step": 6, "exp_avg": first.to(state), "exp_avg_sq": second.to(state)}
        theirs.state[w] = {
            "step": torch.tensor(6.0),
            "exp_avg": first.double(),
            "exp_avg_sq": second.double(),
        }
    set_grads(ours, 0)
    for p, w in zip(ours, wide, strict=True):
        w.grad = p.grad.double()
    old = [p.detach().double() for p in ours]
    mine.step()
    theirs.step()
    eps = torch.finfo(dtype).eps
    for before, p, w in zip(old, ours, wide, strict=True):
        size = torch.maximum(before.abs(), w.abs()).clamp_min(torch.finfo(dtype).tiny)
        ulp = eps * torch.exp2(torch.floor(torch.log2(size)))
        assert torch.all((p.double() - w).abs() <= 2 * ulp)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_two_hundred_steps_stay_with_torch(dtype: Any) -> None:
    """In float32 arithmetic: 16-bit parameters are compared by what they are the rounding of."""
    ours = parameters(dtype)
    wide = [torch.nn.Parameter(p.detach().double()) for p in ours]
    mine = AdamW(ours, master_weights=True, **HYPER)
    theirs = torch.optim.AdamW(wide, foreach=False, **HYPER)
    for t in range(200):
        set_grads(ours, t)
        for p, w in zip(ours, wide, strict=True):
            w.grad = p.grad.double()
        mine.step()
        theirs.step()
    for p, w in zip(ours, wide, strict=True):
        if p.numel():
            got = mine.state[p].get("master", p).double()
            assert (got - w).abs().max() <= 1e-5 * w.abs().max()


def test_reserving_everything_is_plain_adamw() -> None:
    a, b = parameters(), parameters()
    child, plain = ChildAdamW(a, mode="F", reserve_p=1.0, **HYPER), AdamW(b, **HYPER)
    for t in range(5):
        for params, opt in ((a, child), (b, plain)):
            set_grads(params, t)
            opt.step()
    assert same(a, b)


@pytest.mark.parametrize("mode", [None, "F", "D"])
def test_alicemind_equals_numpy(mode: Any) -> None:
    p = parameters(torch.float64, shapes=[(13, 21)])[0]
    bits = torch.rand(13, 21, generator=torch.Generator().manual_seed(1)) < 0.4
    opt = ChildAdamW(
        [("layer.weight", p)],
        **HYPER,
        mode=mode,
        **({} if mode is None else {"reserve_p": 0.3}),
        mask={"layer.weight": bits} if mode == "D" else None,
        order="alicemind",
        seed=9,
    )
    want = p.detach().numpy().reshape(-1).copy()
    m, v = np.zeros_like(want), np.zeros_like(want)
    key, keep = parameter_key(9, "layer.weight"), round(0.3 * 65536)
    for t in range(1, 31):
        set_grads([p], t)
        g = p.grad.numpy().reshape(-1).copy()
        if mode == "F":
            g = g * (ref.draws(key, t, 0, 0, g.size) < keep) / (keep / 65536)
        if mode == "D":
            g = g * bits.numpy().reshape(-1)
        o = {
            "step": t,
            "lr": HYPER["lr"],
            "weight_decay": HYPER["weight_decay"],
            "beta1": HYPER["betas"][0],
            "beta2": HYPER["betas"][1],
            "eps": HYPER["eps"],
        }
        want, m, v = ref.rule("adamw_alicemind", want, g, m, v, o, np.float64)
        opt.step()
    np.testing.assert_allclose(p.detach().numpy().reshape(-1), want, rtol=1e-12, atol=1e-14)


def test_hyper_parameters_differ_between_groups() -> None:
    a, b = parameters(seed=1), parameters(seed=2)
    groups = [{"params": a, "lr": 0.01, "weight_decay": 0.3}, {"params": b, "mode": "F"}]
    opt = ChildAdamW(groups, **HYPER)
    a2, b2 = parameters(seed=1), parameters(seed=2)
    one = AdamW(a2, **{**HYPER, "lr": 0.01, "weight_decay": 0.3})
    # Without names a mask goes by position: the same one in the same place.
    two = ChildAdamW([{"params": parameters(seed=3)}, {"params": b2}], mode="F", **HYPER)
    for params, o in (([*a, *b], opt), (a2, one), (b2, two)):
        set_grads(params if o is not two else [*parameters(seed=1), *params], 0)
        o.step()
    assert same(a, a2)
    assert same(b, b2)


def test_order_and_decay_masked_are_options_of_a_group() -> None:
    p, q = parameters(shapes=[(40,)]), parameters(shapes=[(40,)])
    none = torch.zeros(40, dtype=torch.bool)
    groups = [{"params": p, "decay_masked": False}, {"params": q}]
    opt = ChildAdamW(groups, mode="D", mask={p[0]: none, q[0]: none}, **HYPER)
    before = p[0].detach().clone()
    set_grads([*p, *q], 0)
    opt.step()
    assert torch.equal(p[0], before)
    decay = torch.tensor(1 - HYPER["lr"] * HYPER["weight_decay"])
    assert torch.equal(q[0], before * decay)


# --- gradients ------------------------------------------------------------------------------------


def test_gradients_are_never_written() -> None:
    params = parameters()
    opt = ChildAdamW(params, mode="F", max_grad_norm=0.1, ema_decay=0.9, **HYPER)
    set_grads(params, 0)
    before = [p.grad.clone() for p in params]
    opt.step()
    assert same([p.grad for p in params], before)


def test_clipping_is_that_of_torch() -> None:
    a, b = parameters(torch.float64), parameters(torch.float64)
    mine = AdamW(a, max_grad_norm=0.5, **HYPER)
    theirs = torch.optim.AdamW(b, **HYPER)
    for t in range(3):
        set_grads(a, t)
        set_grads(b, t)
        torch.nn.utils.clip_grad_norm_(b, 0.5)
        mine.step()
        theirs.step()
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_strided_gradients_are_read_and_missing_ones_skipped() -> None:
    a, b = parameters(shapes=[(6, 10), (4,)]), parameters(shapes=[(6, 10), (4,)])
    g = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    a[0].grad, b[0].grad = g.t(), g.t().contiguous()
    for params in (a, b):
        opt = AdamW(params, **HYPER)
        opt.step()
        assert params[1] not in opt.state
    assert same(a, b)


def test_closure_is_evaluated_with_gradients() -> None:
    p = parameters(shapes=[(3,)])[0]
    opt = AdamW([p], **HYPER)

    def closure() -> Any:
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    assert opt.step(closure).item() == pytest.approx(float(before.square().sum()))
    assert not torch.equal(p, before)


def test_autograd_sees_that_the_weights_have_moved() -> None:
    p = parameters(shapes=[(3,)])[0]
    loss = p.square().sum()
    set_grads([p], 0)
    AdamW([p], **HYPER).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_scaler_that_finds_inf_skips_mask_average_and_count() -> None:
    p = parameters(shapes=[(30,)])[0]
    opt = ChildAdamW([p], mode="F", ema_decay=0.9, **HYPER)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for bad in (False, True, False):
        opt.zero_grad()
        scaler.scale((p * (torch.inf if bad else 0.5)).sum()).backward()
        before = p.detach().clone()
        scaler.step(opt)
        scaler.update(4.0)
        assert torch.equal(p, before) == bad
    assert opt.state[p]["step"] == 2


# --- masks ----------------------------------------------------------------------------------------


def test_random_masks_belong_to_names_not_positions() -> None:
    shapes = [(50,), (300,)]
    a, b = parameters(shapes=shapes), parameters(shapes=shapes)
    named = list(zip(("first", "second"), a, strict=True))
    swapped = list(zip(("first", "second"), b, strict=True))[::-1]
    for params, order in ((a, named), (b, swapped)):
        opt = ChildAdamW(order, mode="F", seed=4, **HYPER)
        for t in range(3):
            set_grads(params, t)
            opt.step()
    assert same(a, b)
    other = parameters(shapes=shapes)
    opt = ChildAdamW(list(zip(("first", "second"), other, strict=True)), mode="F", seed=5, **HYPER)
    set_grads(other, 0)
    opt.step()
    assert not same(a, other)


def test_first_moment_after_one_step_shows_the_mask() -> None:
    p = parameters(shapes=[(200, 300)])[0]
    opt = ChildAdamW([("w", p)], mode="F", reserve_p=0.3, **HYPER)
    p.grad = torch.ones_like(p)
    opt.step()
    share = (opt.state[p]["exp_avg"] != 0).float().mean().item()
    assert abs(share - 0.3) < 5 * (0.3 * 0.7 / p.numel()) ** 0.5
    scale = 65536 / round(0.3 * 65536)
    largest = opt.state[p]["exp_avg"].max().item()
    assert largest == pytest.approx((1 - HYPER["betas"][0]) * scale, rel=1e-6)


def test_fixed_mask_moves_the_child_only_and_others_fully() -> None:
    net = model()
    start = weights(net)
    mask = {"0.weight": torch.rand(20, 9, generator=torch.Generator().manual_seed(0)) < 0.3}
    opt = ChildAdamW(net.named_parameters(), mode="D", mask=mask, decay_masked=False, **HYPER)
    train(net, opt, range(4))
    moved = [a != b for a, b in zip(start, weights(net), strict=True)]
    assert torch.equal(moved[0], mask["0.weight"])
    assert moved[-2].all()


# --- moving average -------------------------------------------------------------------------------


def test_average_of_the_tf_unit_test() -> None:
    """OpenNMT-tf: n = 0, the weight goes from 1 to 3, the average becomes 2.8."""
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    opt = AdamW([p], lr=2.0, weight_decay=0.0, eps=0.0, ema_decay=0.999, ema_warmup="tf")
    p.grad = torch.tensor([-5.0], dtype=torch.float64)
    opt.step()
    assert p.item() == pytest.approx(3.0, abs=1e-12)
    assert opt.state[p]["ema"].item() == pytest.approx(2.8, abs=1e-12)


@pytest.mark.parametrize("warmup", ["tf", None])
@pytest.mark.parametrize("every", [1, 3])
def test_average_over_many_steps(warmup: Any, every: int) -> None:
    p = parameters(torch.float64, shapes=[(11,)])[0]
    opt = AdamW([p], ema_decay=0.7, ema_warmup=warmup, ema_every=every, **HYPER)
    want, n = p.detach().numpy().copy(), 0
    for t in range(1, 25):
        set_grads([p], t)
        opt.step()
        if t % every == 0:
            decay = ref.tf_decay(0.7, n) if warmup else 0.7
            want, n = ref.ema(want, p.detach().numpy(), decay, np.float64), n + 1
        np.testing.assert_allclose(opt.state[p]["ema"].numpy(), want, rtol=1e-13)


@pytest.fixture
def averaged() -> tuple[Any, Any]:
    net = model().to(torch.bfloat16)
    opt = AdamW(net.named_parameters(), ema_decay=0.9, **HYPER)
    for t in range(4):
        set_grads(list(net.parameters()), t)
        opt.step()
    return net, opt


def test_swap_puts_averages_in_place_and_weights_back(averaged: Any) -> None:
    net, opt = averaged
    raw = weights(net)
    averages = [opt.state[p]["ema"].to(p.dtype) for p in net.parameters()]
    for p in net.parameters():
        assert opt.state[p]["ema"].dtype is torch.float32
    with opt.swap_ema():
        assert same(weights(net), averages)
    assert same(weights(net), raw)
    assert not same(raw, averages)
    state = opt.ema_state_dict(net)
    assert list(state) == list(net.state_dict())
    assert same(list(state.values()), averages)
    net.load_state_dict(state)


def test_swap_refuses_what_would_lose_weights_and_survives_exceptions(averaged: Any) -> None:
    net, opt = averaged
    raw = weights(net)
    state = opt.state_dict()

    def inside() -> None:
        with opt.swap_ema():
            calls = (opt.step, opt.state_dict, lambda: opt.load_state_dict(state))
            for call in calls:
                with pytest.raises(RuntimeError, match="averaged weights are in place"):
                    call()
            with pytest.raises(RuntimeError, match="swap_ema"), opt.swap_ema():
                raise AssertionError("not reached")
            raise KeyError("crash")

    with pytest.raises(KeyError, match="crash"):
        inside()
    assert same(weights(net), raw)
    opt.step()
    with pytest.raises(RuntimeError, match="pass ema_decay"), AdamW(net.parameters()).swap_ema():
        pass


def test_averages_of_tied_weights_and_buffers() -> None:
    net = torch.nn.Sequential(
        torch.nn.Linear(5, 5, bias=False), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 5)
    )
    net[2].weight = net[0].weight
    opt = AdamW(net.parameters(), ema_decay=0.5, **HYPER)
    net(torch.ones(3, 5)).sum().backward()
    opt.step()
    state = opt.ema_state_dict(net)
    assert torch.equal(state["0.weight"], state["2.weight"])
    assert torch.equal(state["0.weight"], opt.state[net[0].weight]["ema"])
    assert torch.equal(state["1.running_mean"], net[1].running_mean)


# --- saved states ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["F", "D"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_resumed_run_ends_with_the_same_bits(mode: str, dtype: Any) -> None:
    shapes = [(30, 17), (129,), (5,)]
    names = ("a.weight", "b.weight", "b.bias")
    masks = {n: torch.rand(s) < 0.5 for n, s in zip(names[:2], shapes[:2], strict=True)}
    extra = {"mode": mode, "ema_decay": 0.95, "stochastic_rounding": True, "seed": 11}

    def run(params: list[Any], opt: Any, steps: range) -> None:
        for t in steps:
            set_grads(params, t)
            opt.step()

    def new(params: list[Any], mask: Any) -> Any:
        return ChildAdamW(list(zip(names, params, strict=True)), mask=mask, **HYPER, **extra)

    whole = parameters(dtype, shapes=shapes)
    reference = new(whole, masks if mode == "D" else None)
    run(whole, reference, range(12))

    first = parameters(dtype, shapes=shapes)
    opt = new(first, masks if mode == "D" else None)
    run(first, opt, range(5))
    file = io.BytesIO()
    torch.save({"model": [p.detach() for p in first], "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = [torch.nn.Parameter(x) for x in saved["model"]]
    resumed = new(second, None)  # the mask comes from the file
    resumed.load_state_dict(saved["opt"])
    ops.set_num_threads(3)
    ops.set_isa("baseline")
    run(second, resumed, range(5, 12))
    assert same(whole, second)
    keys = ["exp_avg", "exp_avg_sq", "ema"]
    for p, q in zip(whole, second, strict=True):
        a, b = reference.state[p], resumed.state[q]
        assert a["step"] == b["step"] == 12
        assert a.keys() == b.keys()
        assert same([a[k] for k in keys], [b[k] for k in keys])
        assert all(b[k].dtype is torch.float32 for k in keys)
    if mode == "D":
        bits = np.unpackbits(resumed.state[second[0]]["mask"].numpy(), bitorder="little")
        assert np.array_equal(bits[: 30 * 17].astype(bool), masks["a.weight"].numpy().reshape(-1))
        assert "mask" not in resumed.state[second[2]]


@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_states_exchange_with_torch(direction: str) -> None:
    a = parameters(torch.float64)
    b = [torch.nn.Parameter(p.detach().clone()) for p in a]
    ours = ChildAdamW(a, ema_decay=0.9, **HYPER)
    theirs = torch.optim.AdamW(b, **{**HYPER, "lr": 0.5, "betas": (0.1, 0.2)})
    source, target = (b, a) if direction == "from torch" else (a, b)
    first, second = (theirs, ours) if direction == "from torch" else (ours, theirs)
    for t in range(3):
        set_grads(source, t)
        first.step()
    # torch keeps what it loads without a copy.
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        for p, q in zip(source, target, strict=True):
            q.copy_(p)
    for t in range(3, 6):
        for params, opt in ((source, first), (target, second)):
            set_grads(params, t)
            opt.step()
    for p, q in zip(source, target, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
    assert ours.param_groups[0]["ema_decay"] == 0.9


def test_loading_what_does_not_fit_changes_nothing() -> None:
    p = parameters(shapes=[(4,), (6,)])
    opt = AdamW(p, **HYPER)
    set_grads(p, 0)
    opt.step()
    good = opt.state_dict()
    kept = [opt.state[q]["exp_avg"].clone() for q in p]

    def refused(message: str, change: Any) -> None:
        bad = copy.deepcopy(good)
        change(bad)
        with pytest.raises(ValueError, match=re.escape(message)):
            opt.load_state_dict(bad)
        assert same([opt.state[q]["exp_avg"] for q in p], kept)
        assert opt.param_groups[0]["lr"] == HYPER["lr"]

    refused("amsgrad=True", lambda d: d["param_groups"][0].update(amsgrad=True))
    refused("maximize=True", lambda d: d["param_groups"][0].update(maximize=True))
    refused("L2", lambda d: d["param_groups"][0].update(decoupled_weight_decay=False))
    refused("'lr'", lambda d: d["param_groups"][0].update(lr=-1.0))
    refused("shape (6,)", lambda d: d["state"][1].update(exp_avg=torch.zeros(5)))
    refused("must have step", lambda d: d["state"][1].pop("exp_avg_sq"))
    refused("match the size", lambda d: d["param_groups"][0]["params"].pop())
    opt.load_state_dict(good)
    loaded = opt.state[p[0]]["exp_avg"]
    assert loaded.data_ptr() != good["state"][0]["exp_avg"].data_ptr()


def test_the_state_is_torchs() -> None:
    p = parameters(shapes=[(4,)])[0]
    opt = ChildAdamW([("w", p)], ema_decay=0.9, mode="D", mask={p: torch.ones(4) > 0}, **HYPER)
    set_grads([p], 0)
    opt.step()
    state = opt.state_dict()
    assert list(state["state"][0]) == ["step", "exp_avg", "exp_avg_sq", "ema", "mask"]
    assert state["state"][0]["step"].item() == 1
    assert state["param_groups"][0]["param_names"] == ["w"]


def test_a_loaded_mask_is_there_when_its_parameter_has_no_gradient() -> None:
    p, q = parameters(shapes=[(4,), (6,)])
    opt = ChildAdamW([p, q], mode="D", mask={p: torch.ones(4, dtype=torch.bool)}, **HYPER)
    set_grads([p, q], 0)
    opt.step()
    resumed = ChildAdamW([p, q], mode="D", **HYPER)
    resumed.load_state_dict(opt.state_dict())
    p.grad = None
    resumed.step()
    assert [s["step"] for s in resumed.state.values()] == [1, 2]


def test_empty_entries_of_a_state_are_none() -> None:
    """A look into the state of a parameter that has none leaves one there."""
    p, q = parameters(shapes=[(4,), (6,)])
    opt = AdamW([p, q], **HYPER)
    set_grads([p], 0)
    opt.step()
    assert opt.state[q] == {}
    again = AdamW(parameters(shapes=[(4,), (6,)]), **HYPER)
    again.load_state_dict(opt.state_dict())
    assert [s.get("step") for s in again.state.values()] == [1, None]


def test_the_saved_count_is_exact_whatever_the_default_type() -> None:
    p = parameters(shapes=[(4,)])[0]
    opt = AdamW([p], **HYPER)
    set_grads([p], 0)
    opt.step()
    opt.state[p]["step"] = 257
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        step = opt.state_dict()["state"][0]["step"]
    finally:
        torch.set_default_dtype(default)
    assert step.item() == 257


def test_a_loaded_state_frees_the_old_one() -> None:
    p = parameters(shapes=[(4,)])[0]
    opt = AdamW([p], **HYPER)
    set_grads([p], 0)
    opt.step()
    old = weakref.ref(opt.state[p]["exp_avg"])
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    gc.collect()
    assert old() is None


def test_a_group_that_is_replaced_is_read() -> None:
    p = parameters(shapes=[(4,)])[0]
    opt = AdamW([p], **HYPER)
    set_grads([p], 0)
    opt.step()
    before = p.detach().clone()
    opt.param_groups[0] = {**opt.param_groups[0], "lr": 0.0}
    opt.step()
    assert torch.equal(p, before)


def test_a_copy_of_the_optimizer_goes_on_alone() -> None:
    net = model()
    opt = ChildAdamW(net.named_parameters(), mode="F", max_grad_norm=0.2, ema_decay=0.9, **HYPER)
    train(net, opt, range(2))
    net2, opt2 = copy.deepcopy((net, opt))
    train(net, opt, range(2, 4))
    train(net2, opt2, range(2, 4))
    assert same(weights(net), weights(net2))


def test_zero_learning_rate_leaves_weights_and_average_alone() -> None:
    """Distributed checkpointing takes such a step, with zero gradients, to make the state."""
    params = parameters()
    opt = ChildAdamW(params, mode="F", ema_decay=0.9, **{**HYPER, "lr": 0.0})
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.zeros_like(p)
    opt.step()
    assert same(params, before)
    assert same([opt.state[p]["ema"] for p in params], before)


def test_schedulers_drive_it() -> None:
    p = parameters(shapes=[(4,)])[0]
    opt = AdamW([p], lr=torch.tensor(0.1))
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1 / (t + 1))
    for t in range(3):
        set_grads([p], t)
        opt.step()
        schedule.step()
    assert float(opt.param_groups[0]["lr"]) == pytest.approx(0.1 / 4)


# --- refusals -------------------------------------------------------------------------------------

BAD: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"lr": -1.0}, ValueError, "'lr' must be finite and not negative, got -1.0"),
    ({"lr": float("nan")}, ValueError, "'lr'"),
    ({"lr": "fast"}, TypeError, "'lr' must be finite"),
    ({"eps": -1e-8}, ValueError, "'eps'"),
    ({"weight_decay": -0.1}, ValueError, "'weight_decay'"),
    ({"betas": (0.9, 1.0)}, ValueError, "'betas' must be in [0, 1)"),
    ({"betas": 0.9}, TypeError, "'betas' must be a pair"),
    ({"mode": "G"}, ValueError, "'mode' must be one of None, 'F', 'D', got 'G'"),
    ({"order": "hf"}, ValueError, "'order'"),
    ({"reserve_p": 0.0}, ValueError, "'reserve_p'"),
    ({"reserve_p": 1.5}, ValueError, "'reserve_p'"),
    ({"reserve_p": float("nan")}, ValueError, "'reserve_p'"),
    ({"ema_decay": 1.1}, ValueError, "'ema_decay'"),
    ({"ema_warmup": "linear"}, ValueError, "'ema_warmup'"),
    ({"ema_every": 0}, ValueError, "'ema_every'"),
    ({"ema_every": 1.5}, TypeError, "'ema_every'"),
    ({"seed": -1}, ValueError, "'seed'"),
    ({"seed": 2**64}, ValueError, "'seed'"),
    ({"decay_masked": 1}, TypeError, "'decay_masked'"),
    ({"max_grad_norm": 0.0}, ValueError, "'max_grad_norm'"),
)


@pytest.mark.parametrize(("argument", "error", "message"), BAD, ids=[str(b[0]) for b in BAD])
def test_bad_arguments_are_named(
    argument: dict[str, Any], error: type[Exception], message: str
) -> None:
    params = parameters(shapes=[(4,)])
    with pytest.raises(error, match=re.escape(message)):
        ChildAdamW(params, **argument)
    if "max_grad_norm" not in argument:
        with pytest.raises(error, match=re.escape(message)):
            ChildAdamW([{"params": params, **argument}])


def test_masks_of_any_memory_layout() -> None:
    bits = np.random.default_rng(0).random((4, 3)) < 0.5
    fixed = bits.copy()
    fixed.flags.writeable = False
    for mask in (fixed, bits[::-1], bits[:, ::-1], np.asfortranarray(bits)):
        p = parameters(shapes=[(4, 3)])[0]
        opt = ChildAdamW([p], mode="D", mask={p: mask}, **HYPER)
        set_grads([p], 0)
        opt.step()
        np.testing.assert_array_equal(opt.state[p]["exp_avg"].numpy() != 0, mask)


def test_bad_masks_are_refused() -> None:
    p = parameters(shapes=[(4, 3)])[0]
    good = torch.ones(4, 3, dtype=torch.bool)
    cases = (
        ({"nope": good}, ValueError, "got 'nope'"),
        ({p: good[:2]}, ValueError, "an array of shape (4, 3) for '0.0', got (2, 3)"),
        ({p: good.float()}, TypeError, "must hold a boolean array"),
        ({p: [[True]]}, TypeError, "must hold a boolean array"),
    )
    for mask, error, message in cases:
        with pytest.raises(error, match=re.escape(message)):
            ChildAdamW([p], mode="D", mask=mask)
    with pytest.raises(ValueError, match="mode='D'"):
        ChildAdamW([p], mask={p: good})
    set_grads([p], 0)
    with pytest.raises(RuntimeError, match="mode 'D' needs a mask"):
        ChildAdamW([p], mode="D").step()


def test_tensors_that_the_kernel_cannot_take_are_refused_and_nothing_moves() -> None:
    ok = parameters(shapes=[(5,)])[0]
    set_grads([ok], 0)
    before = ok.detach().clone()

    def refused(error: type[Exception], message: str, p: Any, grad: Any) -> None:
        p.grad = grad
        with pytest.raises(error, match=message):
            AdamW([ok, p], **HYPER).step()
        assert torch.equal(ok, before)

    strided = torch.nn.Parameter(torch.randn(4, 12)[:, ::2])
    refused(ValueError, "must be contiguous", strided, torch.ones(4, 6))
    table = torch.nn.Parameter(torch.randn(6, 4))
    refused(TypeError, "must be dense", table, torch.ones(6, 4).to_sparse())
    whole = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    refused(TypeError, "complex", whole, torch.ones(3, dtype=torch.complex64))
    elsewhere = torch.nn.Parameter(torch.empty(3, device="meta"))
    refused(ps.DeviceError, "host memory", elsewhere, torch.empty(3, device="meta"))
    memory = torch.randn(12)
    one, two = torch.nn.Parameter(memory[:8]), torch.nn.Parameter(memory[4:])
    set_grads([one, two], 0)
    with pytest.raises(ValueError, match="overlaps"):
        AdamW([one, two], **HYPER).step()


def test_state_that_was_replaced_is_checked() -> None:
    p = parameters(shapes=[(5,)])[0]
    opt = AdamW([p], **HYPER)
    set_grads([p], 0)
    opt.step()
    for bad in (torch.zeros(4), torch.zeros(5, dtype=torch.float64), torch.zeros(10)[::2], None):
        opt.state[p]["exp_avg"] = bad
        with pytest.raises(TypeError, match=r"'exp_avg' of '0\.0' must be a contiguous"):
            opt.step()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("of_optimizer", ["", "module.", "_orig_mod."])
def test_masks_are_known_by_the_names_of_the_plain_model(prefix: str, of_optimizer: str) -> None:
    names = ("layers.0.weight", "head.weight")
    params = parameters(shapes=[(4, 3), (5,)])
    mask = {prefix + names[0]: torch.tensor([[True, False, True]] * 4)}
    opt = ChildAdamW(
        [(of_optimizer + n, p) for n, p in zip(names, params, strict=True)], mode="D", mask=mask
    )
    for p in params:
        p.grad = torch.ones_like(p)
    opt.step()
    assert (opt.state[params[0]]["exp_avg"] != 0).tolist() == [[True, False, True]] * 4
