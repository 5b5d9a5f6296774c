"""Schedules beside those of transformers, OpenNMT-tf and torch."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as of_torch

from pyspectra.optim import ScheduleWrapper
from pyspectra.optim import schedules as s


def optimizer(*rates: float, **options: Any) -> Any:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": r} for r in rates or (1.0,)]
    return torch.optim.SGD(groups, lr=1.0, **options)


def rates(opt: Any, scheduler: Any, steps: int) -> list[list[float]]:
    seen = []
    for _ in range(steps):
        seen.append([float(g["lr"]) for g in opt.param_groups])
        opt.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("arguments", [(3, 12), (0, 7), (4, 20, 1.5), (7, 7)])
def test_the_cosine_of_transformers_takes_its_arguments(arguments: Any) -> None:
    transformers = pytest.importorskip("transformers")
    a, b = optimizer(0.3, 0.02), optimizer(0.3, 0.02)
    ours = s.get_cosine_schedule_with_warmup(a, *arguments)
    theirs = transformers.get_cosine_schedule_with_warmup(b, *arguments)
    steps = arguments[1]
    np.testing.assert_allclose(rates(a, ours, steps), rates(b, theirs, steps), rtol=1e-12)
    names = ("num_warmup_steps", "num_training_steps", "num_cycles")
    named = dict(zip(names, arguments, strict=False))
    c = optimizer(0.3, 0.02)
    by_name = s.get_cosine_schedule_with_warmup(c, **named)
    assert [f(5) for f in by_name.lr_lambdas] == [f(5) for f in ours.lr_lambdas]


def test_its_minimum_is_that_of_transformers_too() -> None:
    transformers = pytest.importorskip("transformers")
    a, b = optimizer(0.3), optimizer(0.3)
    ours = s.get_cosine_schedule_with_warmup(a, 3, 12, minimum=0.06)
    theirs = transformers.get_cosine_with_min_lr_schedule_with_warmup(b, 3, 12, min_lr_rate=0.2)
    np.testing.assert_allclose(rates(a, ours, 13)[3:], rates(b, theirs, 13)[3:], rtol=1e-12)


@pytest.mark.parametrize("warmup_steps", [0, 4])
@pytest.mark.parametrize("eta_min", [0.0, 0.01])
def test_cosine_annealing_is_that_of_opennmt(warmup_steps: int, eta_min: float) -> None:
    def theirs(step: int, eta_max: float) -> float:
        if step < warmup_steps:
            return eta_max * step / warmup_steps
        return eta_min + 0.5 * (eta_max - eta_min) * (1 + math.cos(math.pi * step / 15))

    peaks = (0.3, 0.02)
    settings = {"max_step": 15, "warmup_steps": warmup_steps, "minimum": eta_min}
    a, b = optimizer(*peaks), optimizer(*peaks)
    found = rates(a, s.CosineAnnealingLR(a, **settings), 16)
    built = rates(b, s.get_cosine_annealing_schedule(b, **settings), 16)
    want = [[theirs(step, peak) for peak in peaks] for step in range(16)]
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(built, want, rtol=1e-12, atol=1e-15)
    assert s.CosineAnnealingLR(optimizer(0.3), **settings).rate(40, 0) == pytest.approx(eta_min)


def test_the_cosine_comes_down_to_its_minimum() -> None:
    opt = optimizer(0.3, 0.1)
    schedule = s.CosineWarmupLR(opt, warmup_steps=2, total_steps=10, minimum=0.05)
    assert [schedule.rate(s_, 0) for s_ in (0, 1, 2, 10, 99)] == pytest.approx(
        [0.0, 0.15, 0.3, 0.05, 0.05]
    )
    assert schedule.rate(6, 1) == pytest.approx(0.075)
    state = s.CosineWarmupLR(optimizer(0.3, 0.1), warmup_steps=2, total_steps=10).state_dict()
    del state["arguments"]["minimum"]  # as versions before had it
    schedule.load_state_dict(state)
    assert schedule.rate(10, 0) == 0.0


OF_TORCH: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: of_torch.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: of_torch.MultiStepLR(o, [2, 5], 0.1),
    "ExponentialLR": lambda o: of_torch.ExponentialLR(o, 0.8),
    "CosineAnnealingLR": lambda o: of_torch.CosineAnnealingLR(o, 7, 0.01),
    "CosineAnnealingWarmRestarts": lambda o: of_torch.CosineAnnealingWarmRestarts(o, 3),
    "LinearLR": lambda o: of_torch.LinearLR(o, 0.1, total_iters=5),
    "ConstantLR": lambda o: of_torch.ConstantLR(o, 0.1, total_iters=3),
    "PolynomialLR": lambda o: of_torch.PolynomialLR(o, 8, 2.0),
    "MultiplicativeLR": lambda o: of_torch.MultiplicativeLR(o, lambda k: 0.9 + k / 100),
    "LambdaLR": lambda o: of_torch.LambdaLR(o, lambda k: np.float64(1 / (1 + k))),
    "OneCycleLR": lambda o: of_torch.OneCycleLR(o, 1.0, 12, cycle_momentum=False),
    "CyclicLR": lambda o: of_torch.CyclicLR(o, 0.1, 1.0, 3, cycle_momentum=False),
    "ChainedScheduler": lambda o: of_torch.ChainedScheduler(
        [of_torch.ConstantLR(o, 0.1, total_iters=3), of_torch.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: of_torch.SequentialLR(
        o, [of_torch.LinearLR(o, 0.1, total_iters=4), of_torch.ExponentialLR(o, 0.8)], [4]
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", OF_TORCH)
def test_a_scheduler_of_torch_starts_late_and_moves_slowly(name: str) -> None:
    a, b = optimizer(0.3, 0.2), optimizer(0.3, 0.2)
    alone = rates(a, OF_TORCH[name](a), 8)
    inner = OF_TORCH[name](b)
    wrapper = ScheduleWrapper(b, inner, start=3, duration=2, minimum=0.06)
    found = rates(b, wrapper, 14)
    want = [[max(r, 0.06) for r in alone[max(step - 3, 0) // 2]] for step in range(14)]
    np.testing.assert_allclose(found, want, rtol=1e-12)
    assert wrapper.rate(5, 1) == pytest.approx(want[5][1])  # back again


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR", "SequentialLR"])
def test_a_wrapped_scheduler_resumes(name: str) -> None:
    a = optimizer(0.3)
    whole = rates(a, ScheduleWrapper(a, OF_TORCH[name](a), duration=2), 12)
    b = optimizer(0.3)
    wrapper = ScheduleWrapper(b, OF_TORCH[name](b), duration=2)
    rates(b, wrapper, 5)
    file = io.BytesIO()
    torch.save(wrapper.state_dict(), file)
    file.seek(0)
    c = optimizer(0.3)
    again = ScheduleWrapper(c, OF_TORCH[name](c), duration=2)
    again.load_state_dict(torch.load(file, weights_only=True))
    np.testing.assert_allclose(rates(c, again, 7), whole[5:], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: of_torch.OneCycleLR(o, 1.0, 12), "cycle_momentum=True. Hint: cycle_momentum"),
        (lambda o: copy.deepcopy(of_torch.StepLR(o, 2)), "be over the same optimizer"),
    ],
)
def test_what_a_wrapper_would_not_obey_is_refused(make: Any, message: str) -> None:
    opt = optimizer(0.3, momentum=0.9)
    with pytest.raises(ValueError, match=message):
        ScheduleWrapper(opt, make(opt))


def test_a_scheduler_that_has_taken_steps_is_refused() -> None:
    opt = optimizer(0.3)
    inner = of_torch.StepLR(opt, 2)
    rates(opt, inner, 3)
    with pytest.raises(ValueError, match="must be at its first step, got one at step 3"):
        ScheduleWrapper(opt, inner)


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "arguments": lambda o: s.NoamLR(
        o, model_dim=np.int64(8), warmup_steps=np.int32(3), scale=np.float32(2)
    ),
    "last_epoch": lambda o: s.CosineWarmupLR(
        o, warmup_steps=np.int64(2), total_steps=np.int64(9), last_epoch=np.int64(-1)
    ),
    "builder": lambda o: s.get_cosine_schedule_with_warmup(o, np.int64(2), np.int64(9)),
    "factor": lambda o: ScheduleWrapper(
        o, lambda k: np.float32(1 / (1 + k)), start=np.int64(1), duration=np.int16(2)
    ),
    "LambdaLR": lambda o: ScheduleWrapper(o, of_torch.LambdaLR(o, lambda k: np.float64(0.5) ** k)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy_leave_plain_ones_in_the_states(name: str) -> None:
    opt = optimizer(0.3)
    schedule = NUMBERS[name](opt)
    rates(opt, schedule, 3)
    schedule.last_epoch = np.int64(schedule.last_epoch)  # as a loop over np.arange sets it
    opt.step()
    schedule.step()
    assert type(opt.param_groups[0]["lr"]) is float
    state = schedule.state_dict()
    if name != "builder":  # torch's own state keeps what was put there
        file = io.BytesIO()
        torch.save((state, opt.state_dict()), file)
        file.seek(0)
        torch.load(file, weights_only=True)


def test_a_resumed_schedule_takes_numbers_of_numpy() -> None:
    opt = optimizer(0.3)
    rates(opt, s.InvSqrtLR(opt, warmup_steps=4), 3)
    again = s.InvSqrtLR(opt, warmup_steps=4, last_epoch=np.int64(2))
    assert again.last_epoch == 3
    assert type(again.state_dict()["last_epoch"]) is int
    with pytest.raises(TypeError, match="'last_epoch' must be an integer"):
        s.InvSqrtLR(opt, warmup_steps=4, last_epoch=2.5)
