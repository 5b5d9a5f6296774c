"""The moving average beside any optimizer: numbers, hooks, swapping, saved states, refusals."""

from __future__ import annotations

import copy
import io
import re
from typing import Any

import numpy as np
import pytest
from reference import optim as ref

torch = pytest.importorskip("torch")

from pyspectra.optim import EMA, AdamW, decay_from_half_life  # noqa: E402


def model() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Linear(9, 20), torch.nn.BatchNorm1d(20), torch.nn.Tanh(), torch.nn.Linear(20, 4)
    )


def train(net: Any, opt: Any, steps: range) -> None:
    for t in steps:
        x = torch.randn(8, 9, generator=torch.Generator().manual_seed(t)).to(net[0].weight.dtype)
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()


def weights(net: Any) -> list[Any]:
    return [p.detach().clone() for p in net.parameters()]


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def averages(ema: EMA) -> dict[str, Any]:
    shadow: dict[str, Any] = ema.state_dict()["shadow"]
    return shadow


# --- numbers --------------------------------------------------------------------------------------


def test_average_of_the_tf_unit_test() -> None:
    """OpenNMT-tf: n = 0, the weight goes from 1 to 3, the average becomes 2.8."""
    p = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    opt = torch.optim.SGD([p], lr=2.0)
    ema = EMA([p], decay=0.999).attach(opt)
    p.grad = torch.tensor([-1.0], dtype=torch.float64)
    opt.step()
    assert p.item() == 3.0
    assert averages(ema)["0"].item() == pytest.approx(2.8, abs=1e-14)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("warmup", ["tf", "power", None])
def test_average_over_many_steps_beside_torchs_adamw(warmup: Any, every: int) -> None:
    net = model().double()
    opt = torch.optim.AdamW(net.parameters(), lr=0.05)
    options = {"power": 0.75, "inv_gamma": 2.5} if warmup == "power" else {}
    ema = EMA(net, 0.7, warmup, every, **options).attach(opt)
    want = {k: p.detach().numpy().copy() for k, p in net.named_parameters()}
    n = 0
    for t in range(1, 25):
        train(net, opt, range(t, t + 1))
        if t % every == 0:
            decay = {
                "tf": ref.tf_decay(0.7, n),
                "power": ref.power_decay(0.7, n, power=0.75, inv_gamma=2.5),
                None: 0.7,
            }[warmup]
            n += 1
            for k, p in net.named_parameters():
                want[k] = ref.ema(want[k], p.detach().numpy(), decay, np.float64)
        for k, average in averages(ema).items():
            np.testing.assert_allclose(average.numpy(), want[k], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("warmup", ["tf", "power", None])
def test_fused_and_attached_averages_agree(warmup: Any) -> None:
    net = model().double()
    opt = AdamW(net.named_parameters(), lr=0.05, ema_decay=0.8, ema_warmup=warmup, ema_every=2)
    ema = EMA(net, 0.8, warmup, 2).attach(opt)
    train(net, opt, range(13))
    for name, p in net.named_parameters():
        torch.testing.assert_close(averages(ema)[name], opt.state[p]["ema"], rtol=1e-12, atol=1e-15)


def test_half_life() -> None:
    decay = decay_from_half_life(50.0, every=4)
    assert decay ** (50 / 4) == pytest.approx(0.5, rel=1e-12)
    assert decay_from_half_life(1) == 0.5
    with pytest.raises(ValueError, match="'half_life' must be positive and finite, got 0"):
        decay_from_half_life(0)


def test_sixteen_bit_weights_have_a_float32_average_that_moves() -> None:
    p = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    ema = EMA([("w", p)], decay=0.9999, warmup=None)
    with torch.no_grad():
        p.fill_(1.5)
    for _ in range(100):
        ema.update()
    average = averages(ema)["w"]
    assert average.dtype is torch.float32
    want = 1.5 - 0.5 * 0.9999**100
    np.testing.assert_allclose(average.numpy(), want, rtol=1e-5)


# --- beside the optimizer -------------------------------------------------------------------------


def test_once_per_optimizer_step_under_accumulation() -> None:
    net = model()
    opt = torch.optim.AdamW(net.parameters())
    ema = EMA(net, decay=0.9).attach(opt)
    for _ in range(3):
        for _ in range(4):
            net(torch.ones(8, 9)).sum().backward()
        opt.step()
        opt.zero_grad()
    assert ema.state_dict()["steps"] == 3


# The scaler does call step() of the last two, which skip by themselves.
OPTIMIZERS = {
    "plain": lambda p: torch.optim.AdamW([p], lr=0.1),
    "ours": lambda p: AdamW([p], lr=0.1),
    "fused": lambda p: torch.optim.AdamW([p], lr=0.1, fused=True),
    "clipping": lambda p: AdamW([p], lr=0.1, max_grad_norm=1.0),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_scaler_that_finds_inf_skips_the_average(kind: str) -> None:
    p = torch.nn.Parameter(torch.ones(30))
    opt = OPTIMIZERS[kind](p)
    ema = EMA([p], decay=0.5).attach(opt)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for bad in (False, True, False):
        before = averages(ema)["0"].clone()
        opt.zero_grad()
        scaler.scale((p * (torch.inf if bad else 0.5)).sum()).backward()
        scaler.step(opt)
        scaler.update(4.0)
        assert torch.equal(averages(ema)["0"], before) == bad
    assert ema.state_dict()["steps"] == 2


@pytest.mark.parametrize("kind", ["torch", "ours", "stateless"])
def test_the_step_that_makes_a_state_does_not_count(kind: str) -> None:
    """Distributed checkpointing takes one, of zero gradients at a rate of zero."""
    distributed = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    net = model()
    opt = {
        "torch": lambda p: torch.optim.AdamW(p, lr=0.1),
        "ours": lambda p: AdamW(p, lr=0.1),
        "stateless": lambda p: torch.optim.SGD(p, lr=0.1),
    }[kind](net.parameters())
    ema = EMA(net, decay=0.5, warmup=None).attach(opt)
    saved = {"steps": 5, "shadow": {k: x + 1 for k, x in averages(ema).items()}}
    ema.load_state_dict(saved)
    distributed.get_optimizer_state_dict(net, opt)
    assert ema.state_dict()["steps"] == 5
    assert same(list(averages(ema).values()), list(saved["shadow"].values()))
    train(net, opt, range(1))
    assert ema.state_dict()["steps"] == 6


def test_a_first_step_at_a_rate_of_zero_counts() -> None:
    net = model()
    opt = torch.optim.AdamW(net.parameters(), lr=0.0)
    ema = EMA(net, decay=0.5).attach(opt)
    train(net, opt, range(2))
    assert ema.state_dict()["steps"] == 2


def test_detached_averages_stay() -> None:
    net = model()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    ema = EMA(net, decay=0.5).attach(opt)
    train(net, opt, range(2))
    ema.detach()
    kept = [x.clone() for x in averages(ema).values()]
    train(net, opt, range(2, 4))
    assert same(list(averages(ema).values()), kept)
    ema.attach(opt)
    train(net, opt, range(4, 5))
    assert ema.state_dict()["steps"] == 3


def test_copies_go_on_alone() -> None:
    net = model()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    ema = EMA(net, decay=0.5).attach(opt)
    train(net, opt, range(2))
    net2, opt2, ema2 = copy.deepcopy((net, opt, ema))
    ema2.attach(opt2)
    train(net, opt, range(2, 5))
    assert ema2.state_dict()["steps"] == 2
    train(net2, opt2, range(2, 5))
    assert same(list(averages(ema).values()), list(averages(ema2).values()))


def test_frozen_and_integer_parameters_are_left_out() -> None:
    net = model()
    net[0].weight.requires_grad_(False)
    assert list(averages(EMA(net))) == ["0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]


# --- swapping -------------------------------------------------------------------------------------


def test_swap_puts_averages_in_place_and_weights_back() -> None:
    net = model().bfloat16()
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)
    ema = EMA(net, decay=0.9).attach(opt)
    train(net, opt, range(4))
    raw = weights(net)
    want = [x.bfloat16() for x in averages(ema).values()]
    state = ema.ema_state_dict(net)
    with ema.swap():
        assert same(weights(net), want)
    assert same(weights(net), raw)
    assert not same(raw, want)
    assert list(state) == list(net.state_dict())
    assert same([state[k] for k, _ in net.named_parameters()], want)
    assert torch.equal(state["1.running_mean"], net[1].running_mean)
    net.load_state_dict(state)


def test_swap_refuses_what_would_lose_weights_and_survives_exceptions() -> None:
    net = model()
    opt = torch.optim.AdamW(net.parameters(), lr=0.1)
    ema = EMA(net, decay=0.9).attach(opt)
    train(net, opt, range(4))
    raw, state = weights(net), ema.state_dict()

    def inside() -> None:
        with ema.swap():
            calls = (
                opt.step,
                opt.state_dict,
                ema.update,
                ema.state_dict,
                lambda: ema.load_state_dict(state),
            )
            for call in calls:
                with pytest.raises(RuntimeError, match="averaged weights are in place"):
                    call()
            with pytest.raises(RuntimeError, match=r"EMA: swap\(\)"), ema.swap():
                raise AssertionError("not reached")
            raise KeyError("crash")

    with pytest.raises(KeyError, match="crash"):
        inside()
    assert same(weights(net), raw)
    train(net, opt, range(4, 5))
    assert ema.state_dict()["steps"] == 5


def test_tied_weights_are_averaged_once_and_stay_tied() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 5, bias=False), torch.nn.Linear(5, 5))
    net[1].weight = net[0].weight
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    ema = EMA(net, decay=0.5).attach(opt)
    net(torch.ones(3, 5)).sum().backward()
    opt.step()
    assert list(averages(ema)) == ["0.weight", "1.bias"]
    state = ema.ema_state_dict(net)
    assert state["0.weight"].data_ptr() == state["1.weight"].data_ptr()


# --- saved states ---------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_same_weights_and_averages() -> None:
    def new(net: Any) -> tuple[Any, EMA]:
        opt = torch.optim.AdamW(net.parameters(), lr=0.05)
        return opt, EMA(net, decay=0.9, every=2).attach(opt)

    whole = model().bfloat16()
    opt, ema = new(whole)
    train(whole, opt, range(5))
    file = io.BytesIO()
    saved = {"model": whole.state_dict(), "opt": opt.state_dict(), "ema": ema.state_dict()}
    torch.save(saved, file)
    train(whole, opt, range(5, 10))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = model().bfloat16()
    opt2, ema2 = new(again)
    again.load_state_dict(saved["model"])
    opt2.load_state_dict(saved["opt"])
    ema2.load_state_dict(saved["ema"])
    train(again, opt2, range(5, 10))
    assert same(weights(whole), weights(again))
    assert same(list(averages(ema).values()), list(averages(ema2).values()))
    assert ema2.state_dict()["steps"] == 10


def test_states_that_do_not_fit_change_nothing() -> None:
    net = model()
    ema = EMA(net)
    good = ema.state_dict()
    shadow = good["shadow"]
    fewer = {k: v for k, v in shadow.items() if k != "0.bias"}
    cases = (
        ({}, "must have steps and shadow, got []"),
        ({"steps": 7, "shadow": fewer}, "5 names for 6, of which '0.bias' is in one only"),
        (
            {"steps": 7, "shadow": {**shadow, "0.bias": torch.zeros(3)}},
            "'shadow' must map '0.bias' to a tensor of shape (20,), got (3,)",
        ),
    )
    for bad, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            ema.load_state_dict(bad)
        assert ema.state_dict()["steps"] == 0
    ema.load_state_dict(good)
    assert averages(ema)["0.bias"].data_ptr() != shadow["0.bias"].data_ptr()


# --- refusals -------------------------------------------------------------------------------------

BAD: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"decay": 1.5}, ValueError, "EMA: 'decay' must be in [0, 1], got 1.5."),
    ({"decay": -0.1}, ValueError, "'decay' must be in [0, 1]"),
    ({"decay": float("nan")}, ValueError, "'decay'"),
    ({"decay": "0.9"}, TypeError, "'decay' must be in [0, 1], got '0.9'"),
    ({"warmup": "linear"}, ValueError, "'warmup' must be one of None, 'tf', 'power', got 'linear'"),
    ({"every": 0}, ValueError, "'every' must be a positive integer, got 0"),
    ({"every": 1.5}, TypeError, "'every' must be a positive integer"),
    ({"power": 0.0}, ValueError, "'power' must be positive and finite"),
    ({"inv_gamma": -1.0}, ValueError, "'inv_gamma' must be positive and finite"),
)


@pytest.mark.parametrize(("argument", "error", "message"), BAD, ids=[str(b[0]) for b in BAD])
def test_bad_arguments_are_named(argument: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        EMA(model(), **argument)


def test_what_cannot_be_averaged_or_attached_is_refused() -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    cases = (
        (3, TypeError, "must be a module or an iterable of parameters, got an object of type int"),
        (p, TypeError, "an object of type Parameter"),
        ([], ValueError, "must have parameters to average, got none"),
        (torch.nn.ReLU(), ValueError, "got a ReLU without any"),
        ([torch.arange(3)], TypeError, "must hold floating-point tensors, got torch.int64 for '0'"),
        ([p, q, p], ValueError, "must hold each parameter once, got '2' twice"),
        ([("w", p), ("w", q)], ValueError, "must hold each parameter once, got 'w' twice"),
    )
    for bad, error, message in cases:
        with pytest.raises(error, match=message):
            EMA(bad)
    opt = torch.optim.SGD([p], lr=0.1)
    with pytest.raises(TypeError, match="'optimizer' must be a torch"):
        EMA([p]).attach(p)
    with pytest.raises(ValueError, match="at least one of the averaged parameters, got none"):
        EMA([q]).attach(opt)
    ema = EMA([p]).attach(opt)
    with pytest.raises(RuntimeError, match="already attached"):
        ema.attach(opt)


def test_the_shape_of_a_warm_up_comes_with_it() -> None:
    for name in ("power", "inv_gamma"):
        with pytest.raises(ValueError, match=f"'{name}' must come with warmup='power'"):
            EMA(model(), **{name: 0.5})
