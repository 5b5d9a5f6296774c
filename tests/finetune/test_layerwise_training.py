"""Rules by layer in a training loop: schedules, refreshes, resumed runs, recorded spectra."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import (  # noqa: E402
    LISA,
    AlphaDecay,
    FreezeWellTrained,
    LayerwiseScheduler,
    Spectrum,
    TempBalance,
    layer_scores,
)
from pyspectra.optim import ChildAdamW  # noqa: E402
from pyspectra.training import Watch  # noqa: E402

LRS = torch.optim.lr_scheduler


class Spy(torch.optim.SGD):
    """Keeps what the groups have while a step is taken."""

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self.seen: list[dict[int, tuple[float, float]]] = []

    def step(self, closure: Any = None) -> Any:
        self.seen.append(
            {id(p): (g["lr"], g["weight_decay"]) for g in self.param_groups for p in g["params"]}
        )
        return super().step(closure)


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    layers = [nn.Linear(12, 12) for _ in range(5)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.mul_(torch.randn(12, 12).abs() ** (i % 4))
            layer.weight.div_(torch.linalg.norm(layer.weight) / 3)
    return nn.Sequential(*layers)


def backward(model: Any, step: int) -> None:
    torch.manual_seed(step)
    model(torch.randn(16, 12)).tanh().square().mean().backward()


def train(model: Any, optimizer: Any, first: int, last: int, *schedulers: Any) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


TEMP = TempBalance(min_evals=0, every=2)


# --- factors beside schedules ---------------------------------------------------------------------

SCHEDULES = {
    "lambda": lambda o: LRS.LambdaLR(o, lambda step: 1.0 / (step + 1)),
    "step": lambda o: LRS.StepLR(o, 2, gamma=0.3),
    "cosine": lambda o: LRS.CosineAnnealingLR(o, 6, eta_min=0.01),
    "chained": lambda o: LRS.SequentialLR(
        o, [LRS.LinearLR(o, 0.1, total_iters=3), LRS.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_learning_rates_are_the_schedule_times_the_factor(kind: str) -> None:
    model, plain = net(), net()
    optimizer = Spy(model.parameters(), lr=0.1, momentum=0.5, weight_decay=0.01)
    layers = TEMP.attach(optimizer, model)
    schedule = SCHEDULES[kind](optimizer)
    wanted = Spy(plain.parameters(), lr=0.1)
    same = SCHEDULES[kind](wanted)
    names = {id(p): name for name, p in model.named_parameters()}
    for step in range(6):
        factors = layers.factors
        assert len(factors) == 3  # neither the first nor the last of five
        backward(model, step)
        optimizer.step()
        wanted.step()
        (base,) = {lr for lr, _ in wanted.seen[-1].values()}
        for key, (lr, decay) in optimizer.seen[-1].items():
            lead = names[key].replace("bias", "weight")
            assert lr == base * factors.get(lead, {}).get("lr", 1.0)
            assert decay == 0.01
        assert {group["lr"] for group in optimizer.param_groups} == {base}
        schedule.step()
        same.step()
        layers.step()


def test_factors_follow_the_weights() -> None:
    model = net()
    optimizer = Spy(model.parameters(), lr=0.1)
    layers = TEMP.attach(optimizer, model)
    first = layers.factors
    with torch.no_grad():
        model[1].weight.copy_(net(7)[3].weight)
    layers.step()
    assert layers.factors == first  # every second step
    layers.step()
    assert layers.factors != first
    alphas = [x.value for x in layer_scores(model, "tempbalance_median")][1:4]
    low, high = min(alphas), max(alphas)
    wanted = [0.5 + (alpha - low) / (high - low) for alpha in alphas]
    assert [f["lr"] for f in layers.factors.values()] == pytest.approx(wanted, rel=1e-12)


def test_alphadecay_multiplies_the_decay_of_each_group() -> None:
    model = net()
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    optimizer = Spy(groups, lr=0.1)
    layers = AlphaDecay(min_evals=0, every=None).attach(optimizer, model)
    train(model, optimizer, 0, 2, layers)
    factors = {name: f["weight_decay"] for name, f in layers.factors.items()}
    assert sorted(factors.values())[0] == pytest.approx(2 / 3)
    assert max(factors.values()) == 3.0
    for name, p in model.named_parameters():
        lr, decay = optimizer.seen[-1][id(p)]
        assert lr == 0.1
        assert decay == (0.0 if "bias" in name else 0.1 * factors.get(name, 1.0))


def test_a_step_that_raised_leaves_no_factor_behind() -> None:
    model = net()
    optimizer = Spy(model.parameters(), lr=0.1)
    layers = TEMP.attach(optimizer, model)

    def broken() -> float:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        optimizer.step(broken)
    optimizer.param_groups[0]["lr"] = 0.2  # set by somebody else
    backward(model, 0)
    optimizer.step()
    (base,) = {group["lr"] for group in optimizer.param_groups[1:]}
    assert base == 0.1
    assert optimizer.param_groups[0]["lr"] == 0.2
    layers.remove()
    optimizer.step()
    assert {lr for lr, _ in optimizer.seen[-1].values()} == {0.1, 0.2}


def test_a_learning_rate_may_be_a_tensor() -> None:
    model = net()
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)
    layers = TEMP.attach(optimizer, model)
    before = model[1].weight.detach().clone()
    train(model, optimizer, 0, 1, layers)
    assert all(group["lr"] is lr for group in optimizer.param_groups)
    moved = (model[1].weight - before * (1 - 0.1 * 0.01)).abs().max().item()
    assert moved == pytest.approx(0.1 * layers.factors["1.weight"]["lr"], rel=0.02)


# --- resumed runs ---------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "adamw": lambda m: torch.optim.AdamW(m.named_parameters(), lr=0.01),
    "child": lambda m: ChildAdamW(
        m.named_parameters(), lr=0.01, mode="F", reserve_p=0.5, ema_decay=0.9
    ),
}
RULES = {
    "tempbalance": TEMP,
    "alphadecay": AlphaDecay(min_evals=0, every=3),
    "spectrum": Spectrum(every=2),
    "freeze": FreezeWellTrained(low=1.0, high=2.0, min_evals=0, every=2),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_has_the_same_bits(name: str, kind: str) -> None:
    def started(seed: int) -> Any:
        model = net(seed)
        optimizer = OPTIMIZERS[kind](model)
        layers = RULES[name].attach(optimizer, model)
        schedule = LRS.CosineAnnealingLR(optimizer, 9)
        return model, optimizer, layers, schedule

    whole = started(0)
    train(whole[0], whole[1], 0, 7, *whole[2:])
    half = started(0)
    train(half[0], half[1], 0, 3, *half[2:])
    file = io.BytesIO()
    torch.save([x.state_dict() for x in half], file)
    file.seek(0)
    resumed = started(5)
    for x, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        x.load_state_dict(state)
    assert resumed[2].factors == half[2].factors
    assert resumed[2].frozen == half[2].frozen
    train(resumed[0], resumed[1], 3, 7, *resumed[2:])
    for p, q in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(p, q)


# --- what is not trained --------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 12)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12)) for _ in range(4)
        )
        self.head = nn.Linear(12, 12)

    def forward(self, x: Any) -> Any:
        x = self.embed(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_lisa_moves_the_drawn_blocks_alone_and_keeps_moments(kind: str) -> None:
    torch.manual_seed(0)
    model = Stack()
    model.layers[0][1].bias.requires_grad_(False)  # by the user, for good
    optimizer = OPTIMIZERS[kind](model)
    layers = LISA(active=1, every=2, seed=1).attach(optimizer, model)
    seen = set()
    for step in range(12):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        moments = {p: copy.deepcopy(optimizer.state[p]) for p in optimizer.state}
        frozen = {*layers.frozen}
        active = {n[:8] for n in before if n.startswith("layers") and n not in frozen}
        assert len(active) == 1
        seen |= active
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        for name, p in model.named_parameters():
            still = name in frozen or name == "layers.0.1.bias"
            assert (p.grad is None) == still
            if still:
                assert torch.equal(p, before[name])
            if still and p in moments:
                for key, x in moments[p].items():
                    same = optimizer.state[p][key]
                    if key.startswith(("exp", "momentum")):
                        assert torch.equal(torch.as_tensor(x), torch.as_tensor(same)), key
        layers.step()
    assert len(seen) > 1
    layers.remove()
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["layers.0.1.bias"]
    assert layers.frozen == ()


def test_spectrum_freezes_gradients_too() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    backward(model, 0)
    layers = Spectrum(percent=40).attach(optimizer, model)
    assert len(layers.frozen) == 6
    assert all(model.get_parameter(name).grad is None for name in layers.frozen)
    assert len(optimizer.param_groups) == 1  # nothing is to be split


# --- recorded spectra -----------------------------------------------------------------------------


def test_alphas_of_a_watch_may_be_what_counts() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect", spectra_every=3, every=3)
    layers = TempBalance(min_evals=0, every=3).attach(optimizer, model, spectra=watch)
    for step in range(3):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        watch.step()
        layers.step()
    rows = {
        (line["step"], row["name"]): row for line in watch.history.spectra for row in line["layers"]
    }
    assert {step for step, _ in rows} == {0, 3}
    alphas = {f"{name}.weight": row["alpha"] for (step, name), row in rows.items() if step == 3}
    (low, *_, high) = sorted(alphas[f"{i}.weight"] for i in (1, 2, 3))
    for name, factors in layers.factors.items():
        assert factors["lr"] == pytest.approx(0.5 + (alphas[name] - low) / (high - low))
    again = TempBalance(min_evals=0).attach(optimizer, model, spectra=watch.history)
    assert again.factors == layers.factors
    watch.close()


def test_without_a_recorded_spectrum_nothing_changes() -> None:
    model = net()
    optimizer = Spy(model.parameters(), lr=0.1)
    watch = Watch(model, optimizer, on="collect")
    assert TEMP.attach(optimizer, model, spectra=watch).factors == {}
    watch.close()


# --- groups ---------------------------------------------------------------------------------------


def test_groups_are_split_with_their_options_and_names() -> None:
    model = net()
    named = [*model.named_parameters()]
    groups = [{"params": named[:4], "lr": 0.2}, {"params": named[4:], "momentum": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    TEMP.attach(optimizer, model)
    found = [
        (group["param_names"], group["lr"], group["momentum"]) for group in optimizer.param_groups
    ]
    assert found == [
        ([f"{i}.weight", f"{i}.bias"], 0.2 if i < 2 else 0.1, 0.0 if i < 2 else 0.5)
        for i in range(5)
    ]
    TEMP.attach(optimizer, model)  # nothing is left to split
    assert len(optimizer.param_groups) == 5


def test_what_cannot_be_attached_is_refused() -> None:
    model = net()
    optimizer = Spy(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"'optimizer' must be a torch\.optim\.Optimizer"):
        TEMP.attach(model, model)
    with pytest.raises(TypeError, match=r"'model' must be a torch\.nn\.Module"):
        TEMP.attach(optimizer, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'optimizer' must have parameters of the model"):
        TEMP.attach(optimizer, net())
    with pytest.raises(TypeError, match="'spectra' must be a Watch or a History"):
        TEMP.attach(optimizer, model, spectra=3)
    watch = Watch(model, optimizer, on="collect")
    for rule in (Spectrum(), LISA()):
        with pytest.raises(ValueError, match="'spectra' must be None"):
            rule.attach(optimizer, model, spectra=watch)
    watch.close()
    LRS.ConstantLR(optimizer)
    before = copy.copy(optimizer.param_groups)
    with pytest.raises(ValueError, match="attach the rule first"):
        TEMP.attach(optimizer, model)
    assert optimizer.param_groups == before
    layers = Spectrum().attach(optimizer, model)  # it needs no groups
    assert isinstance(layers, LayerwiseScheduler)


def test_a_state_of_another_thing_is_refused() -> None:
    model = net()
    layers = TEMP.attach(Spy(model.parameters(), lr=0.1), model)
    state = layers.state_dict()
    with pytest.raises(ValueError, match="'state_dict' must be what state_dict"):
        layers.load_state_dict({"count": 1})
    with pytest.raises(ValueError, match="'state_dict' must name layers of the model"):
        layers.load_state_dict({**state, "frozen": ["fc.weight"]})
    assert layers.state_dict() == state
