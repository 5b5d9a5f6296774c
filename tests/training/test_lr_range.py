"""The learning rate range test: where the suggestion is, and that nothing is left behind."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from pyspectra.training import lr_range_test  # noqa: E402
from pyspectra.training.lr_range import suggested_rate  # noqa: E402


def problem(optimizer: str = "Adam") -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Dropout(0.1),
        torch.nn.Linear(16, 1),
    )  # fmt: skip
    x = torch.randn(128, 6)
    batches = [(x[i : i + 32], x[i : i + 32].sum(1, keepdim=True)) for i in range(0, 128, 32)]

    def loss_fn(net: Any, batch: Any) -> Any:
        return torch.nn.functional.mse_loss(net(batch[0]), batch[1])

    opt = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01)
    return model, opt, loss_fn, batches


def test_the_suggestion_is_the_steepest_point_by_the_logarithm_of_the_rate() -> None:
    # The curve of a sigmoid in log lr, steepest at 3.2e-3, which explodes later.
    lr = np.geomspace(1e-7, 10, 100)
    loss = 2.3 - 1.5 / (1 + np.exp(-3 * np.log(lr / 3.2e-3))) + np.maximum(0, np.log(lr / 0.3)) ** 2
    loss += 0.02 * np.random.default_rng(0).standard_normal(100)
    found = suggested_rate(lr, loss)
    assert found is not None
    assert abs(math.log(found / 3.2e-3)) < math.log(2)
    by_rate = lr[np.argmin(np.gradient(loss, lr))]
    assert by_rate < 1e-6  # what the slope by the rate itself would say


def test_no_rate_is_suggested_where_the_loss_does_not_fall() -> None:
    lr = np.geomspace(1e-7, 10, 100)
    assert suggested_rate(lr, np.linspace(1, 2, 100)) is None
    assert suggested_rate(lr[:5], np.linspace(2, 1, 5)) is None
    assert suggested_rate(lr, np.full(100, math.nan)) is None


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_all_that_it_touches_is_restored(name: str) -> None:
    model, optimizer, loss_fn, batches = problem(name)
    loss_fn(model, batches[0]).backward()
    optimizer.step()
    model.eval()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    grads = [p.grad.clone() for p in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    curve = lr_range_test(model, optimizer, loss_fn, batches, steps=40)
    assert len(curve.lr) == len(curve.loss) <= 40
    assert not model.training
    after = model.state_dict(), optimizer.state_dict()
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    for grad, p in zip(grads, model.parameters(), strict=True):
        assert torch.equal(grad, p.grad)
    assert torch.equal(generators[0], torch.get_rng_state())
    assert generators[1] == np.random.get_state()[1].tolist()
    assert generators[2] == random.getstate()


def test_all_is_restored_when_the_loss_function_fails() -> None:
    model, optimizer, loss_fn, batches = problem()
    before = copy.deepcopy(model.state_dict())
    calls = []

    def failing(net: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 20:
            raise RuntimeError("stop")
        return loss_fn(net, batch)

    with pytest.raises(RuntimeError, match="stop"):
        lr_range_test(model, optimizer, failing, batches)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_it_stops_when_the_loss_explodes() -> None:
    model, optimizer, loss_fn, batches = problem("SGD")
    curve = lr_range_test(model, optimizer, loss_fn, batches, high=1e4)
    assert len(curve.lr) < 100
    assert curve.suggestion is not None
    assert 1e-4 < curve.suggestion < 10


def test_groups_keep_the_ratio_of_their_rates() -> None:
    model, _, loss_fn, batches = problem()
    first, *rest = model.parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.01}])
    seen = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: seen.append([group["lr"] for group in opt.param_groups])
    )
    lr_range_test(model, optimizer, loss_fn, batches, steps=10, high=1e-3)
    assert seen[0] == pytest.approx([1e-7, 1e-8])
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]


def test_the_curve_is_drawn(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model, optimizer, loss_fn, batches = problem()
    ax = lr_range_test(model, optimizer, loss_fn, batches).plot()
    assert ax.get_xscale() == "log"
    assert any("suggestion" in line.get_label() for line in ax.get_lines())
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "options",
    [{"low": 0}, {"low": 1.0, "high": 0.1}, {"steps": 1}, {"stop": 1.0}, {"batches": []},
     {"model": 3}, {"optimizer": None}],
)  # fmt: skip
def test_arguments_are_checked(options: dict[str, Any]) -> None:
    model, optimizer, loss_fn, batches = problem()
    given = {"model": model, "optimizer": optimizer, "batches": batches} | options
    with pytest.raises((TypeError, ValueError), match="lr_range_test: "):
        lr_range_test(loss_fn=loss_fn, **given)
