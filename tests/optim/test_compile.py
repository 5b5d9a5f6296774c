"""torch.compile: the step is one operator of the graph, and the bits are those without it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from pyspectra.optim import EMA, SGD, ChildAdamW  # noqa: E402
from pyspectra.optim.schedules import noam  # noqa: E402


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def new(mode: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    if mode == "sgd":
        return net, SGD(net.named_parameters(), lr=0.1, momentum=0.9, ema_decay=0.9)
    mask = None
    if mode == "D":
        mask = {"0.weight": torch.rand(7, 5, generator=torch.Generator().manual_seed(2)) < 0.4}
    named = net.named_parameters()
    options = {"ema_decay": 0.9, "max_grad_norm": 0.3, "weight_decay": 0.1}
    return net, ChildAdamW(named, lr=0.1, mode=mode, mask=mask, **options)


def batch(t: int) -> Any:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(t))


def train(net: Any, opt: Any, step: Any, steps: int = 6) -> None:
    for t in range(steps):
        opt.param_groups[0]["lr"] = 0.1 * noam(t, model_dim=4, warmup_steps=3)
        opt.zero_grad()
        net(batch(t)).square().mean().backward()
        step()


def results(net: Any, opt: Any) -> list[Any]:
    return [*(p.detach() for p in net.parameters()), *opt.ema_state_dict(net).values()]


def assert_same(a: list[Any], b: list[Any]) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("mode", ["F", "D", "sgd"])
def test_the_step_is_one_graph_with_the_same_bits(mode: str, backend: str) -> None:
    net, opt = new(mode)
    train(net, opt, opt.step, 2)
    train(net, opt, opt.step, 6)
    net2, opt2 = new(mode)
    counter = CompileCounterWithBackend(backend)
    step = torch.compile(opt2.step, backend=counter, fullgraph=True)
    train(net2, opt2, step, 2)
    # Dynamo takes the rate for a constant until it has seen another one.
    compiled = counter.frame_count
    train(net2, opt2, step, 6)
    assert counter.frame_count == compiled
    assert_same(results(net, opt), results(net2, opt2))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not:UserWarning")
def test_a_compiled_training_step() -> None:
    """Backward passes break graphs by themselves; the step adds no graph but its own."""

    def trained(compiled: bool) -> list[Any]:
        net, opt = new("F")
        ema = EMA(net, 0.8, every=2).attach(opt)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            opt.step()
            return loss

        run = torch.compile(step, backend="aot_eager") if compiled else step
        losses = [run(batch(t)) for t in range(6)]
        return [*losses, *results(net, opt), *ema.state_dict()["shadow"].values()]

    assert_same(trained(False), trained(True))


def test_the_graph_may_change_weights_before_and_use_them_after() -> None:
    def run(compiled: bool) -> tuple[Any, Any, Any]:
        net, opt = new("F")
        net(batch(0)).square().mean().backward()

        def step() -> Any:
            with torch.no_grad():
                net[0].weight.mul_(0.5)
            opt.step()
            return net[0].weight.detach() * 2

        return net, opt, (torch.compile(step, backend="aot_eager") if compiled else step)()

    net, opt, out = run(False)
    net2, opt2, out2 = run(True)
    assert_same([out, *results(net, opt)], [out2, *results(net2, opt2)])


def test_parameters_without_gradients_keep_what_they_have() -> None:
    net, opt = new("F")
    net(batch(0)).square().mean().backward()
    net[0].weight.grad = None
    before = net[0].weight.detach().clone()
    grads = [p.grad for p in net.parameters()]
    torch.compile(opt.step, backend="eager", fullgraph=True)()
    assert torch.equal(net[0].weight, before)
    assert all(p.grad is g for p, g in zip(net.parameters(), grads, strict=True))


def test_copies_compile_to_their_own_steps() -> None:
    net, opt = new("F")
    net2, opt2 = copy.deepcopy((net, opt))
    train(net, opt, opt.step)
    start = [p.detach().clone() for p in net.parameters()]
    train(net2, opt2, torch.compile(opt2.step, backend="eager", fullgraph=True))
    assert_same(results(net, opt), results(net2, opt2))
    assert_same(start, [p.detach() for p in net.parameters()])
