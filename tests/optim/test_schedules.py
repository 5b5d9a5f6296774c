"""Learning-rate schedules: the published numbers, resuming, and what they refuse."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau  # noqa: E402

from pyspectra.optim import ScheduleWrapper  # noqa: E402
from pyspectra.optim import schedules as s  # noqa: E402


def optimizer(*rates: float) -> Any:
    groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": lr} for lr in rates or (1.0,)]
    return torch.optim.SGD(groups, lr=1.0)


def rates(opt: Any, scheduler: Any, steps: int) -> list[list[float]]:
    """Return the rates that each of the next steps is taken with."""
    seen = []
    for _ in range(steps):
        seen.append([float(g["lr"]) for g in opt.param_groups])
        opt.step()
        scheduler.step()
    return seen


def first(opt: Any, scheduler: Any, steps: int) -> list[float]:
    return [r[0] for r in rates(opt, scheduler, steps)]


NOAM = {"model_dim": 4, "warmup_steps": 8000, "scale": 2.0}
CASES: list[tuple[Any, Callable[..., Any], Callable[..., float], dict[str, Any]]] = [
    (s.NoamLR, s.get_noam_schedule, s.noam, {"model_dim": 64, "warmup_steps": 5, "scale": 3.0}),
    (s.RsqrtLR, s.get_rsqrt_schedule, s.rsqrt, {"warmup_steps": 4, "scale": 0.5}),
    (s.InvSqrtLR, s.get_inv_sqrt_schedule, s.inv_sqrt, {"warmup_steps": 4}),
    (
        s.CosineWarmupLR,
        s.get_cosine_schedule_with_warmup,
        s.cosine_with_warmup,
        {"warmup_steps": 3, "total_steps": 11, "cycles": 0.7},
    ),
    (
        s.CosineAnnealingLR,
        s.get_cosine_annealing_schedule,
        s.cosine_annealing,
        {"max_step": 11, "warmup_steps": 3},
    ),
    (
        s.RNMTPlusLR,
        s.get_rnmtplus_schedule,
        s.rnmtplus,
        {"num_replicas": 4, "warmup_steps": 3, "start_step": 20, "end_step": 40, "scale": 0.1},
    ),
]
IDS = [case[0].__name__ for case in CASES]


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 2}, [0, 0, 0, 1, 2, 3]),
        ({"duration": 2}, [0, 0, 1, 1, 2, 2]),
        ({"minimum": 2}, [2, 2, 2, 3, 4, 5]),
    ],
)
def test_wrapper_numbers_of_opennmt(options: dict[str, Any], expected: list[float]) -> None:
    opt = optimizer()
    assert first(opt, ScheduleWrapper(opt, lambda step: step, **options), 6) == expected


def test_noam_number_of_opennmt() -> None:
    assert s.noam(1, **NOAM) == pytest.approx(2.795e-6, rel=2e-4)
    opt = optimizer()
    assert first(opt, s.NoamLR(opt, **NOAM), 2)[1] == pytest.approx(2.795e-6, rel=2e-4)
    opt = optimizer()
    floored = ScheduleWrapper(opt, s.NoamLR(opt, **NOAM), minimum=1e-4)
    assert first(opt, floored, 2)[1] == 1e-4


def test_noam_peaks_at_the_end_of_the_warm_up() -> None:
    values = [s.noam(i, model_dim=512, warmup_steps=40) for i in range(200)]
    assert int(np.argmax(values)) == 39
    assert values[39] == pytest.approx((512 * 40) ** -0.5, rel=1e-14)


def test_formulas_against_numpy() -> None:
    i = np.arange(60.0)
    np.testing.assert_allclose(
        [s.noam(int(k), model_dim=16, warmup_steps=7, scale=3.0) for k in i],
        3.0 * 16**-0.5 * np.minimum((i + 1) ** -0.5, (i + 1) * 7**-1.5),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        [s.rsqrt(int(k), warmup_steps=7, scale=3.0) for k in i],
        3.0 / np.sqrt(np.maximum(i, 7)),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        [s.inv_sqrt(int(k), warmup_steps=7) for k in i],
        np.where(i + 1 <= 7, (i + 1) / 7, np.sqrt(7 / (i + 1))),
        rtol=1e-14,
    )
    x = np.minimum(1, (i - 7) / (50 - 7))
    np.testing.assert_allclose(
        [s.cosine_with_warmup(int(k), warmup_steps=7, total_steps=50) for k in i],
        np.where(i < 7, i / 7, 0.5 * (1 + np.cos(np.pi * x))),
        rtol=1e-14,
        atol=1e-15,
    )
    n, p, start, end = 4, 5, 60, 120
    np.testing.assert_allclose(
        [
            s.rnmtplus(
                int(k), num_replicas=n, warmup_steps=p, start_step=start, end_step=end, scale=2.0
            )
            for k in i
        ],
        2.0
        * np.minimum(
            np.minimum(1 + i * (n - 1) / (n * p), n),
            n * (2.0 * n) ** ((start - n * i) / (end - start)),
        ),
        rtol=1e-14,
    )


def test_cosine_stays_at_its_end() -> None:
    assert s.cosine_with_warmup(1000, warmup_steps=0, total_steps=10) == 0.0
    assert s.cosine_with_warmup(0, warmup_steps=0, total_steps=10) == 1.0


def test_rnmtplus_does_not_overflow_before_its_decay() -> None:
    options = {"num_replicas": 64, "start_step": 10**9, "end_step": 10**9 + 1}
    assert s.rnmtplus(0, **options) == 1.0
    assert s.rnmtplus(10**8, **options) == 0.0


# --- schedulers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "build", "formula", "arguments"), CASES, ids=IDS)
def test_class_and_builder_scale_each_group(
    cls: Any, build: Any, formula: Any, arguments: dict[str, Any]
) -> None:
    a, b = optimizer(1.0, 0.25), optimizer(1.0, 0.25)
    expected = [[f, 0.25 * f] for f in (formula(i, **arguments) for i in range(15))]
    assert rates(a, cls(a, **arguments), 15) == expected
    built = build(b, **arguments)
    assert isinstance(built, LambdaLR)
    assert rates(b, built, 15) == expected


def make(kind: str, opt: Any) -> Any:
    if kind == "wrapper":
        inner = s.NoamLR(opt, model_dim=8, warmup_steps=4)
        return ScheduleWrapper(opt, inner, start=2, duration=2, minimum=0.05)
    return next(cls(opt, **a) for cls, _, _, a in CASES if cls.__name__ == kind)


@pytest.mark.parametrize("kind", [*IDS, "wrapper"])
@pytest.mark.parametrize("optimizer_first", [True, False])
def test_resuming_gives_the_same_rates(kind: str, optimizer_first: bool) -> None:
    a = optimizer(1.0, 0.3)
    whole = make(kind, a)
    rates(a, whole, 7)
    file = io.BytesIO()
    torch.save({"opt": a.state_dict(), "schedule": whole.state_dict()}, file)
    rest = rates(a, whole, 9)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    b = optimizer(1.0, 0.3)
    if optimizer_first:
        b.load_state_dict(saved["opt"])
        resumed = make(kind, b)
    else:
        resumed = make(kind, b)
        b.load_state_dict(saved["opt"])
    resumed.load_state_dict(saved["schedule"])
    assert resumed.get_last_lr() == rest[0]
    assert rates(b, resumed, 9) == rest


def test_the_rates_are_set_even_if_the_optimizer_is_new() -> None:
    a, b = optimizer(0.5), optimizer(0.1)
    whole = make("NoamLR", a)
    rates(a, whole, 3)
    resumed = s.NoamLR(b, model_dim=1, warmup_steps=1)
    resumed.load_state_dict(whole.state_dict())
    assert rates(b, resumed, 5) == rates(a, whole, 5)


def test_tensor_rates_keep_their_tensor() -> None:
    rate = torch.tensor(0.5)
    opt = torch.optim.Adam([torch.zeros(2, requires_grad=True)], lr=rate, foreach=False)
    scheduler = s.InvSqrtLR(opt, warmup_steps=4)
    held = opt.param_groups[0]["lr"]
    assert first(opt, scheduler, 4) == [0.125, 0.25, 0.375, 0.5]
    state = scheduler.state_dict()
    scheduler.load_state_dict({**state, "_last_lr": [0.25]})
    assert opt.param_groups[0]["lr"] is held
    assert float(held) == 0.25


@pytest.mark.parametrize(("cls", "build", "formula", "arguments"), CASES, ids=IDS)
def test_builders_can_be_pickled(cls: Any, build: Any, formula: Any, arguments: Any) -> None:
    built = build(optimizer(), **arguments)
    again = pickle.loads(pickle.dumps(built.lr_lambdas[0]))
    assert again(6) == formula(6, **arguments)


def test_wrapping_lambdas_and_wrappers() -> None:
    opt = optimizer(1.0, 2.0)
    inner = LambdaLR(opt, [float, lambda k: 10.0 * k])
    wrapped = ScheduleWrapper(opt, ScheduleWrapper(opt, inner, duration=2), start=1, minimum=1)
    assert rates(opt, wrapped, 6) == [[1, 1], [1, 1], [1, 1], [1, 20], [1, 20], [2, 40]]


# --- errors -------------------------------------------------------------------------------------

LEAST = "must be a positive integer, got 0"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda o: s.NoamLR(o, model_dim=0, warmup_steps=1), ValueError,
         f"NoamLR: 'model_dim' {LEAST}."),
        (lambda o: s.NoamLR(o, model_dim=1, warmup_steps=0), ValueError,
         f"NoamLR: 'warmup_steps' {LEAST}."),
        (lambda o: s.NoamLR(o, model_dim=1.5, warmup_steps=1), TypeError,
         "NoamLR: 'model_dim' must be a positive integer, got 1.5."),
        (lambda o: s.NoamLR(o, model_dim=1, warmup_steps=True), TypeError,
         "NoamLR: 'warmup_steps' must be a positive integer, got True."),
        (lambda o: s.NoamLR(o, model_dim=1, warmup_steps=1, scale=0), ValueError,
         "NoamLR: 'scale' must be positive and finite, got 0."),
        (lambda o: s.get_noam_schedule(o, model_dim=1, warmup_steps=1, scale="2"), TypeError,
         "get_noam_schedule: 'scale' must be positive and finite, got '2'."),
        (lambda o: s.RsqrtLR(o, warmup_steps=1, scale=math.inf), ValueError,
         "RsqrtLR: 'scale' must be positive and finite, got inf."),
        (lambda o: s.get_rsqrt_schedule(o, warmup_steps=0), ValueError,
         f"get_rsqrt_schedule: 'warmup_steps' {LEAST}."),
        (lambda o: s.get_inv_sqrt_schedule(o, warmup_steps=0), ValueError,
         f"get_inv_sqrt_schedule: 'warmup_steps' {LEAST}."),
        (lambda o: s.InvSqrtLR(o, warmup_steps=0), ValueError,
         f"InvSqrtLR: 'warmup_steps' {LEAST}."),
        (lambda o: s.CosineWarmupLR(o, warmup_steps=-1, total_steps=5), ValueError,
         "CosineWarmupLR: 'warmup_steps' must be an integer of at least 0, got -1."),
        (lambda o: s.get_cosine_schedule_with_warmup(o, warmup_steps=6, total_steps=5), ValueError,
         "get_cosine_schedule_with_warmup: 'total_steps' must be at least 'warmup_steps' = 6, "
         "got 5."),
        (lambda o: s.RNMTPlusLR(o, num_replicas=0), ValueError,
         f"RNMTPlusLR: 'num_replicas' {LEAST}."),
        (lambda o: s.get_rnmtplus_schedule(o, num_replicas=2, start_step=5, end_step=5), ValueError,
         "get_rnmtplus_schedule: 'end_step' must exceed 'start_step' = 5, got 5."),
        (lambda o: ScheduleWrapper(o, float, start=-1), ValueError,
         "ScheduleWrapper: 'start' must be an integer of at least 0, got -1."),
        (lambda o: ScheduleWrapper(o, float, duration=0), ValueError,
         f"ScheduleWrapper: 'duration' {LEAST}."),
        (lambda o: ScheduleWrapper(o, float, minimum=-1e-9), ValueError,
         "ScheduleWrapper: 'minimum' must be finite and not negative, got -1e-09."),
        (lambda o: ScheduleWrapper(o, s.NoamLR(optimizer(), **NOAM)), ValueError,
         "ScheduleWrapper: 'schedule' must be over the same optimizer, got one over another."),
        (lambda o: ScheduleWrapper(o, 0.5), TypeError,
         "ScheduleWrapper: 'schedule' must be a function of the step or a scheduler, got an object "
         "of type float."),
        (lambda o: ScheduleWrapper(o, ReduceLROnPlateau(o)), TypeError,
         "ScheduleWrapper: 'schedule' must go by the step, got ReduceLROnPlateau, which goes by a "
         "metric."),
        (lambda o: s.CosineAnnealingLR(o, max_step=0), ValueError,
         f"CosineAnnealingLR: 'max_step' {LEAST}."),
        (lambda o: s.CosineAnnealingLR(o, max_step=3, warmup_steps=4), ValueError,
         "CosineAnnealingLR: 'max_step' must be at least 'warmup_steps' = 4, got 3."),
        (lambda o: s.CosineWarmupLR(o, warmup_steps=0, total_steps=5, minimum=2.0), ValueError,
         "CosineWarmupLR: 'minimum' must be at most the rate of each group, 1, got 2."),
        (lambda o: s.get_cosine_annealing_schedule(o, max_step=5, minimum=-1.0), ValueError,
         "get_cosine_annealing_schedule: 'minimum' must be finite and not negative, got -1.0."),
        (lambda o: s.get_cosine_schedule_with_warmup(o, -1, 5), ValueError,
         "get_cosine_schedule_with_warmup: 'num_warmup_steps' must be an integer of at least 0, "
         "got -1."),
        (lambda o: s.get_cosine_schedule_with_warmup(o, 5), TypeError,
         "get_cosine_schedule_with_warmup: 'num_training_steps' must be given once, got none."),
        (lambda o: s.get_cosine_schedule_with_warmup(o, 1, 5, warmup_steps=1), TypeError,
         "get_cosine_schedule_with_warmup: 'num_warmup_steps' must be given once, got another one "
         "as 'warmup_steps'."),
    ],
)  # fmt: skip
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call(optimizer())
    assert str(caught.value) == message


def test_foreign_states_are_refused() -> None:
    noam = s.NoamLR(optimizer(), **NOAM)
    with pytest.raises(ValueError, match="must be the state of a NoamLR"):
        noam.load_state_dict(s.InvSqrtLR(optimizer(), warmup_steps=2).state_dict())
    with pytest.raises(ValueError, match="must be the state of a NoamLR"):
        noam.load_state_dict({})
    with pytest.raises(ValueError, match="must have the 1 parameter groups of the optimizer"):
        noam.load_state_dict(s.NoamLR(optimizer(1.0, 2.0), **NOAM).state_dict())


def test_schedules_that_give_no_numbers_are_refused() -> None:
    opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    for value, message in (
        ("a", "return a number"),
        (None, "return a number"),
        (float("nan"), "finite"),
    ):
        with pytest.raises(
            (TypeError, ValueError), match=f"ScheduleWrapper: 'schedule' must .*{message}"
        ):
            ScheduleWrapper(opt, lambda step, value=value: value)
    with pytest.raises(TypeError, match="'optimizer' must be a torch"):
        s.get_noam_schedule(None, model_dim=8, warmup_steps=4)
