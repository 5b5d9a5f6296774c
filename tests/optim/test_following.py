"""An average follows its parameter at every step: fused and attached averages are the same."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from reference import optim as ref

torch = pytest.importorskip("torch")

from pyspectra.optim import EMA, SGD, AdamW, PowerFunctionEMA  # noqa: E402
from pyspectra.optim._fused.following import device_weight_at, weight_at  # noqa: E402


def parameters() -> list[Any]:
    return [torch.nn.Parameter(torch.full((3,), v, dtype=torch.float64)) for v in (1.0, -2.0, 4.0)]


def step(opt: Any, params: Any, moving: Any) -> None:
    """One step at which only some parameters have a gradient."""
    for k, p in enumerate(params):
        p.grad = torch.full_like(p, 0.5 + k) if k in moving else None
    opt.step()


# Which parameters have a gradient at each step.
STOPS = [{0, 1, 2}] * 3 + [{0, 2}] * 4 + [{0}] * 3
STARTS = [{0}] * 4 + [{0, 1, 2}] * 5
TURNS = [{0}, {1}, {2}, {0, 1}, set(), {1}] * 2
ALL = {"stops": STOPS, "starts": STARTS, "turns": TURNS}


def expected(weights: list[Any], every: int, warmup: Any) -> Any:
    average = weights[0]
    for t, now in enumerate(weights[1:], start=1):
        if t % every == 0:
            n = t // every - 1
            decay = {"tf": ref.tf_decay(0.8, n), "power": ref.power_decay(0.8, n, 2 / 3, 1.0)}
            average = ref.ema(average, now, decay.get(warmup, 0.8), np.float64)
    return average


@pytest.mark.parametrize("kind", [AdamW, SGD])
@pytest.mark.parametrize(("warmup", "every"), [("tf", 1), ("power", 1), (None, 1), ("tf", 3)])
@pytest.mark.parametrize("pattern", ALL)
def test_averages_follow_at_every_step(kind: Any, warmup: Any, every: int, pattern: str) -> None:
    params = parameters()
    opt = kind(params, lr=0.1, ema_decay=0.8, ema_warmup=warmup, ema_every=every)
    ema = EMA(params, 0.8, warmup, every).attach(opt)
    seen = [[p.detach().numpy().copy()] for p in params]
    for moving in ALL[pattern]:
        step(opt, params, moving)
        for past, p in zip(seen, params, strict=True):
            past.append(p.detach().numpy().copy())
    for k, (past, p) in enumerate(zip(seen, params, strict=True)):
        want = expected(past, every, warmup)
        np.testing.assert_allclose(ema.state_dict()["shadow"][str(k)], want, rtol=1e-12)
        np.testing.assert_allclose(opt.state[p]["ema"], want, rtol=1e-12)


@pytest.mark.parametrize("pattern", ALL)
def test_a_resumed_run_counts_on(pattern: str) -> None:
    """States of the optimizer are whole; those that lack the count, as torch's, have most of it."""
    runs = []
    for resumed in (False, True):
        params = parameters()
        opt = AdamW(params, lr=0.1, ema_decay=0.9)
        for t, moving in enumerate(ALL[pattern]):
            if resumed and t == 7:
                state = copy.deepcopy(opt.state_dict())
                opt = AdamW(params, lr=0.1, ema_decay=0.9)
                opt.load_state_dict(state)
            step(opt, params, moving)
        runs.append([opt.state[p]["ema"] for p in params])
    for a, b in zip(*runs, strict=True):
        assert torch.equal(a, b)
    assert ("steps" in opt.state_dict()) == (pattern == "turns")


def test_copies_and_groups_that_come_later_count_the_steps_of_the_optimizer() -> None:
    params = parameters()
    opt = AdamW(params[:2], lr=0.1, ema_decay=0.999)
    ema = EMA(params, 0.999).attach(opt)
    for _ in range(20):
        step(opt, params, {0})
    opt.add_param_group({"params": [params[2]]})
    opt2 = copy.deepcopy(opt)
    for _ in range(3):
        step(opt, params, {0, 1, 2})
    for k, p in enumerate(params):
        own = ema.state_dict()["shadow"][str(k)]
        torch.testing.assert_close(opt.state[p]["ema"], own, rtol=1e-12, atol=0.0)
    twins = [p for group in opt2.param_groups for p in group["params"]]
    for _ in range(3):
        step(opt2, twins, {0, 1, 2})
    for p, twin in zip(params, twins, strict=True):
        assert torch.equal(opt.state[p]["ema"], opt2.state[twin]["ema"])


def test_a_step_that_is_skipped_moves_no_average() -> None:
    params = parameters()
    opt = AdamW(params, lr=0.1, ema_decay=0.5, max_grad_norm=1e9)
    step(opt, params, {0, 1, 2})
    before = [opt.state[p]["ema"].clone() for p in params]
    opt.found_inf = torch.ones(())
    for moving in ({0}, set()):
        step(opt, params, moving)
    del opt.found_inf
    assert all(torch.equal(opt.state[p]["ema"], x) for p, x in zip(params, before, strict=True))
    step(opt, params, {0})
    assert opt._steps_taken() == 2


def test_sixteen_bit_weights_and_their_masters_are_followed() -> None:
    for master in (False, True):
        p, q = (torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16)) for _ in range(2))
        opt = AdamW([p, q], lr=0.3, ema_decay=0.5, ema_warmup=None, master_weights=master)
        step(opt, [p, q], {0, 1})
        for _ in range(40):
            step(opt, [p, q], {0})
        want = opt.state[q]["master"] if master else q.detach().float()
        torch.testing.assert_close(opt.state[q]["ema"], want, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("warmup", ["tf", "power", None])
@pytest.mark.parametrize("every", [1, 3])
def test_the_device_and_the_host_weigh_alike(warmup: Any, every: int) -> None:
    group = {"ema_decay": 0.9, "ema_warmup": warmup, "ema_every": every}
    for taken in (1, 2, 3, 6, 30, 3000):
        got = float(device_weight_at(group, torch.tensor(taken)))
        assert got == pytest.approx(weight_at(group, taken), rel=1e-12)


# --- layers that are frozen for a while -----------------------------------------------------------


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)).double()


def train(net: Any, opt: Any, steps: int) -> None:
    for t in range(steps):
        opt.zero_grad()
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        net(x).square().sum().backward()
        opt.step()


@pytest.mark.parametrize("make", [EMA, lambda net, **_: PowerFunctionEMA(net, 0.2)])
def test_layers_unfrozen_later_are_averaged(make: Any) -> None:
    net = network()
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    whole = make([*net.named_parameters()], decay=0.9).attach(opt)  # averages what it is given
    net[0].requires_grad_(False)
    ema = make(net, decay=0.9).attach(opt)
    train(net, opt, 5)
    state = ema.state_dict()
    assert [*state["shadow"]] == ["1.weight", "1.bias"]
    assert state["frozen"] == ["0.weight", "0.bias"]
    net[0].requires_grad_(True)
    train(net, opt, 5)
    want, got = whole.state_dict()["shadow"], ema.state_dict()["shadow"]
    assert want.keys() == got.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-12, atol=1e-15)
    assert "frozen" not in ema.state_dict()

    # States load into a model whose layers are frozen, or not, at another time.
    for frozen in (True, False):
        net[0].requires_grad_(not frozen)
        for saved in (state, ema.state_dict()):
            again = make(net, decay=0.9)
            again.load_state_dict(saved)
            assert again.state_dict()["shadow"].keys() == saved["shadow"].keys()


def test_averages_begin_at_the_weights_before_the_first_step() -> None:
    """The model is loaded after the average has been made: a Lightning run that is resumed."""
    net = network()
    ema = EMA(net, 0.9999, None)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(3.0)
    with ema.swap():
        assert all(torch.all(p == 3.0) for p in net.parameters())
    assert torch.all(ema.ema_state_dict(net)["0.weight"] == 3.0)
    ema.attach(torch.optim.SGD(net.parameters(), lr=0.0))
    train(net, ema._optimizers[0], 1)
    assert all(torch.all(x == 3.0) for x in ema.state_dict()["shadow"].values())


# --- one average over several optimizers ----------------------------------------------------------


def test_one_average_over_two_optimizers() -> None:
    net = network()
    opts = [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in net]
    ema = EMA(net, 0.9).attach(*opts)
    apart = [EMA(layer, 0.9).attach(opt) for layer, opt in zip(net, opts, strict=True)]
    for t in range(6):
        train(net, opts[0], 1)
        if t % 2:
            train(net, opts[1], 1)
    state = ema.state_dict()
    assert state["steps"] == [6, 3]
    for k, own in enumerate(apart):
        for name, value in own.state_dict()["shadow"].items():
            assert torch.equal(state["shadow"][f"{k}.{name}"], value)
    again = EMA(net, 0.9)
    again.load_state_dict(state)
    again.attach(*opts)
    for t in range(4):
        train(net, opts[t % 2], 1)
    for a, b in zip(
        ema.state_dict()["shadow"].values(), again.state_dict()["shadow"].values(), strict=True
    ):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="'others' must be empty, got 1 more optimizers"):
        PowerFunctionEMA(net).attach(*opts)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_states_have_the_names_of_the_plain_model() -> None:
    net = network()
    compiled = torch.compile(net)
    wrapped = torch.nn.Sequential(torch.compile(net[0]), net[1])
    want = [name for name, _ in net.named_parameters()]
    for model in (compiled, wrapped):
        state = EMA(model).state_dict()
        assert [*state["shadow"]] == want
        EMA(net).load_state_dict(state)
    old = {"steps": 3, "shadow": {f"_orig_mod.{k}": v + 1 for k, v in state["shadow"].items()}}
    ema = EMA(compiled)
    ema.load_state_dict(old)
    assert torch.equal(ema.state_dict()["shadow"]["0.bias"], net[0].bias.detach() + 1)


# --- buffers --------------------------------------------------------------------------------------


def normalised() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout())


def batches() -> list[Any]:
    return [torch.randn(16, 3, generator=torch.Generator().manual_seed(t)) + 2 for t in range(4)]


def run(fused: bool, **options: Any) -> tuple[Any, Any, Any]:
    net = normalised()
    if fused:
        opt: Any = AdamW(net.named_parameters(), lr=0.1, ema_decay=0.9)
        return net, opt, opt
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)
    return net, opt, EMA(net, 0.9, **options).attach(opt)


def fit(net: Any, opt: Any, steps: int) -> None:
    for t in range(steps):
        opt.zero_grad()
        net(batches()[t % 4]).square().sum().backward()
        opt.step()


@pytest.mark.parametrize("fused", [True, False])
def test_a_saved_average_does_not_alias_the_model(fused: bool) -> None:
    net, opt, keeper = run(fused)
    fit(net, opt, 3)
    state = keeper.ema_state_dict(net)
    kept = {k: v.clone() for k, v in state.items()}
    fit(net, opt, 3)
    assert all(torch.equal(state[k], kept[k]) for k in kept)


@pytest.mark.parametrize("fused", [True, False])
def test_statistics_of_batch_normalisation_under_the_averages(fused: bool) -> None:
    net, opt, keeper = run(fused)
    fit(net, opt, 6)
    net[2].eval()
    own = {k: v.clone() for k, v in net.state_dict().items()}
    keeper.update_bn([(x, None) for x in batches()], net)
    assert all(torch.equal(v, own[k]) for k, v in net.state_dict().items())
    assert net[1].momentum == 0.1
    assert [net.training, net[2].training] == [True, False]

    other = normalised()
    other.load_state_dict(keeper.ema_state_dict(net))
    outputs = torch.cat([other[0](x) for x in batches()]).detach()
    state = keeper.ema_state_dict(net)
    torch.testing.assert_close(state["1.running_mean"], outputs.mean(0), rtol=1e-5, atol=1e-6)
    with keeper.swap_ema() if fused else keeper.swap():
        assert torch.equal(net[1].running_mean, state["1.running_mean"])
    assert torch.equal(net[1].running_mean, own["1.running_mean"])
    if not fused:  # it knows the model that it was made from
        keeper.update_bn(iter(batches()))
        assert torch.equal(keeper.ema_state_dict(net)["1.running_mean"], state["1.running_mean"])
        with pytest.raises(TypeError, match=r"'model' must be a torch\.nn\.Module"):
            EMA(net.parameters()).update_bn(batches())
    with pytest.raises(ValueError, match="'loader' must have batches"):
        keeper.update_bn([], net)
    assert all(torch.equal(v, own[k]) for k, v in net.state_dict().items())
    fit(net, opt, 1)  # the averages move on: statistics of those before do not stay
    assert torch.equal(keeper.ema_state_dict(net)["1.running_mean"], net[1].running_mean)


def test_buffers_can_be_averaged() -> None:
    net, opt, ema = run(False, buffers=True)
    fit(net, opt, 1)
    mean = net[1].running_mean.numpy().copy()  # begins before the step, after the forward pass
    for n in range(1, 5):
        fit(net, opt, 1)
        mean = ref.ema(mean, net[1].running_mean.numpy(), ref.tf_decay(0.9, n), np.float32)
    state = ema.ema_state_dict(net)
    np.testing.assert_allclose(state["1.running_mean"], mean, rtol=1e-5)
    assert state["1.num_batches_tracked"] == 5
    with ema.swap():
        np.testing.assert_allclose(net[1].running_mean, mean, rtol=1e-5)
    saved = ema.state_dict()
    assert [*saved["buffers"]] == ["1.running_mean", "1.running_var"]
    again = EMA(net, 0.9, buffers=True)
    again.load_state_dict(saved)
    assert torch.equal(
        again.state_dict()["buffers"]["1.running_mean"], saved["buffers"]["1.running_mean"]
    )
    again.load_state_dict({k: v for k, v in saved.items() if k != "buffers"})  # of before
    with pytest.raises(ValueError, match="averages of the same buffers"):
        EMA(net).load_state_dict(saved)
    with pytest.raises(TypeError, match="be a module where its buffers are averaged too"):
        EMA(net.parameters(), buffers=True)
