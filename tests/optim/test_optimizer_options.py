"""The records of the options: what derives from them, and that nothing is accepted and ignored."""

from __future__ import annotations

import inspect
import io
from typing import Any

import numpy as np
import pytest
import torch

from pyspectra.optim import SGD, Adam, AdamW, ChildAdamW
from pyspectra.optim._fused.options import OPTIONS, SHARED

CLASSES = (Adam, SGD, AdamW, ChildAdamW)


def weight() -> torch.nn.Parameter:
    p = torch.nn.Parameter(torch.arange(1.0, 7.0))
    p.grad = torch.ones(6)
    return p


@pytest.mark.parametrize("cls", CLASSES)
def test_signature_and_documentation_name_every_option(cls: Any) -> None:
    parameters = inspect.signature(cls).parameters
    assert next(iter(parameters)) == "params"
    assert set(SHARED) <= set(parameters)
    assert {name: parameters[name].default for name in SHARED} == {
        name: option.default for name, option in SHARED.items()
    }
    for name in list(parameters)[1:]:
        assert f"\n{name} : {OPTIONS[name].kind}\n    " in cls.__doc__, name
    assert cls.__doc__.index("\nstatistics : bool") < cls.__doc__.index("\nRaises\n------")


@pytest.mark.parametrize("cls", CLASSES)
def test_numbers_of_any_library_are_taken_and_kept_as_plain_ones(cls: Any) -> None:
    p, q = weight(), weight()
    opt = cls([p], lr=np.float32(0.5), seed=np.int64(3), ema_decay=np.float64(0.5))
    opt.add_param_group({"params": [q], "seed": np.uint8(4), "ema_every": np.int16(2)})
    assert [type(g["seed"]) for g in opt.param_groups] == [int, int]
    opt.param_groups[0]["seed"] = np.int32(7)
    opt.step()
    assert type(opt.param_groups[0]["seed"]) is int
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    groups = torch.load(file, weights_only=True)["param_groups"]
    assert [(g["seed"], g["ema_every"]) for g in groups] == [(7, 1), (4, 2)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("order", "tourch"), ("seed", 2**64), ("lr", -1.0), ("betas", (0.9, 1.0)), ("compact", 1)],
)
def test_options_are_checked_wherever_they_come_from(option: str, value: Any) -> None:
    message = f"ChildAdamW: '{option}' must be"
    with pytest.raises((ValueError, TypeError), match=message):
        ChildAdamW([weight()], **{option: value})
    with pytest.raises((ValueError, TypeError), match=message):
        ChildAdamW([{"params": [weight()], option: value}])
    p = weight()
    opt = ChildAdamW([p])
    opt.step()
    before, saved = p.detach().clone(), opt.state_dict()
    saved["param_groups"][0][option] = value
    with pytest.raises((ValueError, TypeError), match=message):
        opt.load_state_dict(saved)
    opt.param_groups[0][option] = value
    with pytest.raises((ValueError, TypeError), match=message):
        opt.step()
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    ("cls", "key", "message"),
    [
        (SGD, "betas", "SGD: 'betas' must be an option that SGD has"),
        (Adam, "mode", "Adam: 'mode' must be an option that Adam has"),
        (AdamW, "weigth_decay", "did you mean 'weight_decay'"),
        (ChildAdamW, "Seed", "did you mean 'seed'"),
        (AdamW, "mask", "must be given to the optimizer, not to a group"),
        (AdamW, "statistics", "must be given to the optimizer, not to a group"),
    ],
)
def test_what_a_group_would_not_obey_is_refused(cls: Any, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls([{"params": [weight()], key: 0.5}])


@pytest.mark.parametrize("key", ["amsgrad", "maximize", "differentiable"])
def test_options_of_torch_that_no_kernel_obeys_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"AdamW: '{key}' must be False"):
        AdamW([{"params": [weight()], key: True}])
    AdamW([{"params": [weight()], key: False}])


def test_keys_of_the_caller_stay_in_a_group() -> None:
    opt = AdamW([{"params": [weight()], "initial_lr": 0.1, "layer": 3, "lr_scale": 0.5}])
    opt.step()
    assert opt.param_groups[0]["layer"] == 3


@pytest.mark.parametrize("cls", CLASSES)
def test_unknown_options_are_refused_with_what_was_meant(cls: Any) -> None:
    with pytest.raises(TypeError, match=r"'ema_dcay' must be an option.*did you mean 'ema_decay'"):
        cls([weight()], ema_dcay=0.9)


def test_changing_a_number_does_not_build_the_table_anew() -> None:
    p = weight()
    opt = AdamW([p])
    opt.step()
    plan = opt._plan
    for k in range(3):
        opt.param_groups[0].update(lr=0.1 / (k + 1), betas=(0.9 - k / 10, 0.99), eps=1e-7 * k)
        opt.step()
    assert opt._plan is plan
