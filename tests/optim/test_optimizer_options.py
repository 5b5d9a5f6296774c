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


@pytest.mark.parametrize("key", ["amsgrad", "maximize", "differentiable"])
@pytest.mark.parametrize("cls", CLASSES)
def test_they_are_refused_with_a_hint_wherever_they_come_from(cls: Any, key: str) -> None:
    if cls is SGD and key == "amsgrad":
        pytest.skip("SGD has no such option in torch either")
    message = rf"{cls.__name__}: '{key}' must be False, got {key}=True. Hint: "
    with pytest.raises(ValueError, match=message):
        cls([weight()], **{key: True})
    opt = cls([weight()], **{key: False})
    with pytest.raises(ValueError, match=message):
        opt.add_param_group({"params": [weight()], key: True})
    opt.step()
    saved = opt.state_dict()
    saved["param_groups"][0][key] = True
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(saved)
    before = opt.param_groups[0]["params"][0].detach().clone()
    opt.param_groups[0][key] = True
    with pytest.raises(ValueError, match=message):
        opt.step()
    assert torch.equal(opt.param_groups[0]["params"][0], before)


@pytest.mark.parametrize("extra", [{"foreach": True}, {"fused": True}, {"capturable": False}])
@pytest.mark.parametrize("cls", CLASSES)
def test_implementations_of_torch_are_accepted_and_change_nothing(cls: Any, extra: Any) -> None:
    plain, flagged, grouped = weight(), weight(), weight()
    opts = [cls([plain]), cls([flagged], **extra), cls([{"params": [grouped], **extra}])]
    for _ in range(2):
        for opt in opts:
            opt.step()
    assert torch.equal(plain, flagged)
    assert torch.equal(plain, grouped)
    for opt in opts[1:]:  # a state with these in its groups is one of ours
        again = cls([weight()])
        again.load_state_dict(opt.state_dict())
        again.step()
    with pytest.raises(TypeError, match="must be a bool"):
        cls([weight()], **dict.fromkeys(extra, "yes"))


def test_states_go_to_torch_and_back_with_its_options() -> None:
    ours = AdamW([weight()], foreach=False, fused=None)
    ours.step()
    theirs = torch.optim.AdamW([weight()], foreach=True)
    theirs.load_state_dict(ours.state_dict())
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    ours.step()
    other = torch.optim.RMSprop([weight()])
    other.step()
    with pytest.raises(ValueError, match="be of this update rule"):
        ours.load_state_dict(other.state_dict())


def test_a_slip_in_a_group_is_found_when_it_is_made_later_too() -> None:
    opt = AdamW([weight()])
    opt.step()
    opt.param_groups[0]["weigth_decay"] = 0.0
    with pytest.raises(ValueError, match="did you mean 'weight_decay'"):
        opt.step()
    del opt.param_groups[0]["weigth_decay"]
    opt.param_groups[0]["layer"] = 3
    opt.step()


@pytest.mark.parametrize(("share", "in_group"), [(0.3, False), (0.1, False), (0.2, True)])
def test_a_share_without_a_mode_is_a_warning(share: float, in_group: bool) -> None:
    give = {"reserve_p": share}
    group = {"params": [weight()], **give} if in_group else {"params": [weight()]}
    with pytest.warns(UserWarning, match="'reserve_p' does nothing without a mode"):
        ChildAdamW([group], **({} if in_group else give))


def test_no_warning_where_some_group_has_a_mode() -> None:
    ChildAdamW([weight()])
    ChildAdamW([weight()], mode="F", reserve_p=0.3)
    ChildAdamW([{"params": [weight()], "mode": "F"}, {"params": [weight()]}], reserve_p=0.3)


@pytest.mark.parametrize(("saved", "made"), [("F", None), (None, "F"), ("F", "D"), (None, "D")])
def test_a_state_that_changes_the_mode_is_a_warning(saved: Any, made: Any) -> None:
    def new(mode: Any) -> Any:
        p = weight()
        mask = {p: torch.ones(6, dtype=torch.bool)} if mode == "D" else None
        return ChildAdamW([p], mode=mode, mask=mask)

    source, opt = new(saved), new(made)
    source.step()
    with pytest.warns(UserWarning, match=f"changes 'mode' of group 0 from {made!r} to {saved!r}"):
        opt.load_state_dict(source.state_dict())
    assert opt.param_groups[0]["mode"] == saved
    again = new(saved)
    again.load_state_dict(source.state_dict())


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
