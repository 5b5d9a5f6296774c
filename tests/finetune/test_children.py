"""Child networks: each preset's formula on small numbers, and masks that change between steps."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from reference.finetune import top

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import (  # noqa: E402
    FISH,
    GMT,
    LIFT,
    LT_SFT,
    SIFT,
    ChildNetwork,
    change_scores,
    fisher_diag,
    gradient_scores,
    low_rank_scores,
    magnitude_scores,
)
from pyspectra.optim import ChildAdamW  # noqa: E402

# One float32 step of Adam in two orders of rounding.
STEP = {"rtol": 2e-6, "atol": 2e-7}
WEIGHTS = ["0.weight", "1.weight"]


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 5))


def backward(model: Any, step: int) -> None:
    torch.manual_seed(100 + step)
    model(torch.randn(16, 6)).tanh().square().mean().backward()


def steps(model: Any, optimizer: Any, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()


def child(model: Any, **options: Any) -> Any:
    return ChildAdamW(model.named_parameters(), lr=0.05, mode="D", decay_masked=False, **options)


def weights(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# --- scores ---------------------------------------------------------------------------------------


def test_scores_are_what_they_say() -> None:
    model = net()
    backward(model, 0)
    own = dict(model.named_parameters())
    assert magnitude_scores(model, WEIGHTS).keys() == {*WEIGHTS}
    for name in WEIGHTS:
        assert torch.equal(magnitude_scores(model, WEIGHTS)[name], own[name].abs())
        assert torch.equal(gradient_scores(model, WEIGHTS)[name], own[name].grad.abs())
    before = weights(model)
    with torch.no_grad():
        own["0.weight"].sub_(0.25)
    moved = change_scores(model, before, WEIGHTS)
    torch.testing.assert_close(moved["0.weight"], torch.full((8, 6), 0.25))
    assert not moved["1.weight"].any()
    W = own["1.weight"].detach().double().numpy()
    U, S, Vt = np.linalg.svd(W, full_matrices=False)
    low = np.abs(sum(S[i] * np.outer(U[:, i], Vt[i]) for i in range(2)))
    np.testing.assert_allclose(
        low_rank_scores(model, WEIGHTS, rank=2)["1.weight"].numpy(), low, atol=1e-6
    )
    full = low_rank_scores(model, WEIGHTS, rank=99)["1.weight"]
    torch.testing.assert_close(full, own["1.weight"].abs().detach(), atol=1e-6, rtol=0)


def test_scores_of_stacks_and_half_precision() -> None:
    model = nn.ParameterDict({"experts": nn.Parameter(torch.randn(3, 4, 5))}).to(torch.bfloat16)
    found = low_rank_scores(model, ["experts"], rank=1)["experts"]
    assert found.dtype == torch.float32
    for score, W in zip(found, model["experts"], strict=True):
        U, S, Vt = torch.linalg.svd(W.float(), full_matrices=False)
        torch.testing.assert_close(score, (S[0] * torch.outer(U[:, 0], Vt[0])).abs())


def test_what_has_no_score_is_refused() -> None:
    model = net()
    with pytest.raises(TypeError, match=r"magnitude_scores: 'model' must be a torch\.nn\.Module"):
        magnitude_scores({}, WEIGHTS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="low_rank_scores: 'params' must name matrices"):
        low_rank_scores(model, ["0.bias"])
    with pytest.raises(ValueError, match="change_scores: 'before' must hold a tensor of shape"):
        change_scores(model, {}, WEIGHTS)
    with pytest.raises(ValueError, match="gradient_scores: 'params' must name"):
        gradient_scores(model)  # no blocks


# --- presets --------------------------------------------------------------------------------------


def test_gmt_is_adam_on_the_largest_gradients_of_each_step() -> None:
    model, plain = net(), net()
    optimizer = ChildAdamW(model.named_parameters(), lr=0.05, mode="D")
    scheduler = GMT.attach(optimizer, model, params=WEIGHTS)
    adam = torch.optim.AdamW(plain.parameters(), lr=0.05)
    seen = []
    for step in range(6):
        for one in (model, plain):
            one.zero_grad()
            backward(one, step)
        found = np.concatenate([plain[i].weight.grad.abs().numpy().ravel() for i in (0, 1)])
        mask = torch.from_numpy(top(found, 0.5))
        plain[0].weight.grad.mul_(mask[:48].reshape(8, 6))
        plain[1].weight.grad.mul_(mask[48:].reshape(5, 8))
        optimizer.step()
        adam.step()
        seen.append(scheduler.masks["0.weight"])
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, **STEP)
    assert any(not torch.equal(seen[0], mask) for mask in seen)


def test_sift_trains_the_largest_first_gradients_of_each_matrix() -> None:
    model = net()
    backward(model, 0)
    wanted = {
        name: top(p.grad.abs().numpy(), 0.1)
        for name, p in model.named_parameters()
        if name in WEIGHTS
    }
    optimizer, before = child(model), weights(model)
    replace(SIFT, share=0.1).attach(optimizer, model, params=WEIGHTS)
    steps(model, optimizer, 0, 5)
    for name, mask in wanted.items():
        assert mask.sum() in (4, 5)  # int(0.1 n) + 1, as the released code counts
        moved = (dict(model.named_parameters())[name] != before[name]).numpy()
        assert np.array_equal(moved, mask)
    assert not torch.equal(model[0].bias, before["0.bias"])


def test_fish_trains_what_has_the_highest_fisher_information() -> None:
    model = net()

    def loss(m: Any, batch: Any) -> Any:
        return m(batch).square().mean()

    torch.manual_seed(1)
    data = [torch.randn(8, 6) for _ in range(3)]
    fisher = fisher_diag(
        model, data, loss, params=WEIGHTS, per_sample=True, max_grad_norm=None, process_group=None
    )
    by_hand = torch.zeros(8, 6)
    for x in torch.cat(data):
        model.zero_grad()
        loss(model, x[None]).backward()
        by_hand += model[0].weight.grad.square() / 24
    torch.testing.assert_close(fisher["0.weight"], by_hand)
    model.zero_grad()
    optimizer, before = child(model), weights(model)
    replace(FISH, share=0.2).attach(optimizer, model, scores=fisher)
    steps(model, optimizer, 0, 3)
    flat = np.concatenate([fisher[name].numpy().ravel() for name in WEIGHTS])
    own = dict(model.named_parameters())
    moved = np.concatenate([(own[n] != before[n]).numpy().ravel() for n in WEIGHTS])
    assert np.array_equal(moved, top(flat, 0.2))


def test_lt_sft_trains_what_a_full_fine_tuning_moved_most() -> None:
    model = net()
    before = weights(model)
    steps(model, torch.optim.AdamW(model.parameters(), lr=0.1), 0, 4)
    moved = np.abs(model[0].weight.detach().numpy() - before["0.weight"].numpy())
    scores = change_scores(model, before, ["0.weight"])
    model.load_state_dict(before)
    optimizer = child(model)
    replace(LT_SFT, share=0.25).attach(optimizer, model, scores=scores)
    steps(model, optimizer, 0, 4)
    assert np.array_equal((model[0].weight != before["0.weight"]).numpy(), top(moved, 0.25))


def test_lift_trains_the_principal_weights() -> None:
    model = net()
    W = model[0].weight.detach().clone()
    U, S, V = torch.svd(W)
    low = (U[:, :2] @ torch.diag(S[:2]) @ V[:, :2].T).abs()
    for preset, count in (
        (replace(LIFT, rank=2, share=0.1), 5),
        (replace(LIFT, rank=2, budget=1), 8 + 6),  # (rows + columns) times the rank, as released
        (replace(LIFT, rank=2, budget=9), 48),
    ):
        found = preset.masks(preset.scores(model, ["0.weight"]))["0.weight"]
        wanted = torch.zeros(48, dtype=torch.bool)
        wanted[torch.topk(low.flatten(), count).indices] = True
        assert torch.equal(found, wanted.reshape(8, 6))


# --- masks that change ----------------------------------------------------------------------------


@pytest.mark.parametrize("compact", [False, True])
def test_moments_stay_with_the_weights_that_stay(compact: bool) -> None:
    model = net()
    torch.manual_seed(9)
    first, second = (torch.rand(8, 6) < 0.5 for _ in range(2))
    masks = {"0.weight": first, "1.weight": torch.ones(5, 8, dtype=torch.bool)}
    optimizer = child(model, mask=masks, compact=compact)
    steps(model, optimizer, 0, 3)
    p = model[0].weight
    old = {key: optimizer.state[p][key].clone() for key in ("exp_avg", "exp_avg_sq")}
    optimizer.set_mask({"0.weight": second})
    for key, moment in old.items():
        kept = optimizer.state[p][key]
        before, now = (torch.zeros(8, 6) for _ in range(2))
        if compact:
            before[first], now[second] = moment, kept
            assert kept.shape == (int(second.sum()),)
        else:
            before, now = moment, kept
        assert torch.equal(now, before * second)
        assert now[first & second].any()
    before = p.detach().clone()
    steps(model, optimizer, 3, 5)
    assert torch.equal(p[~second], before[~second])
    assert (p[second] != before[second]).all()
    assert int(optimizer.state[p]["step"]) == 5


def test_compact_moments_step_to_the_same_bits() -> None:
    found = []
    for compact in (False, True):
        model = net()
        optimizer = child(model, compact=compact)
        replace(LIFT, rank=2, share=0.3, every=2).attach(optimizer, model, params=WEIGHTS)
        steps(model, optimizer, 0, 7)
        found.append(weights(model))
    for name, p in found[0].items():
        assert torch.equal(p, found[1][name])


def test_weights_may_go_on_by_their_momentum() -> None:
    model = net()
    every = {"0.weight": torch.ones(8, 6, dtype=torch.bool)}
    none = {"0.weight": torch.zeros(8, 6, dtype=torch.bool)}
    optimizer = child(model, mask=every)
    steps(model, optimizer, 0, 2)
    optimizer.set_mask(none, keep_moments=True)
    before = model[0].weight.detach().clone()
    steps(model, optimizer, 2, 3)
    assert (model[0].weight != before).all()
    optimizer.set_mask(none)
    before = model[0].weight.detach().clone()
    steps(model, optimizer, 3, 5)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("compact", [False, True])
def test_a_resumed_run_has_the_same_bits(compact: bool) -> None:
    preset = replace(LIFT, rank=2, share=0.3, every=3)

    def started(seed: int) -> Any:
        model = net(seed)
        optimizer = child(model, compact=compact, ema_decay=0.9)
        return model, optimizer, preset.attach(optimizer, model, params=WEIGHTS)

    whole, half = started(0), started(0)
    steps(*whole[:2], 0, 8)
    steps(*half[:2], 0, 5)
    file = io.BytesIO()
    torch.save([x.state_dict() for x in half], file)
    file.seek(0)
    resumed = started(7)
    for x, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        x.load_state_dict(state)
    steps(*resumed[:2], 5, 8)
    for p, q in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(p, q)


def test_scores_may_be_a_function_of_the_model() -> None:
    model = net()
    preset = ChildNetwork(score="given", share=0.5, every=2)
    calls = []

    def scores(m: Any) -> Any:
        calls.append(m)
        return {"0.weight": m[0].weight.detach().square()}

    optimizer = child(model)
    scheduler = preset.attach(optimizer, model, scores=scores)
    steps(model, optimizer, 0, 5)
    assert len(calls) == 3
    scheduler.remove()
    steps(model, optimizer, 5, 7)
    assert len(calls) == 3


def test_a_generator_of_names_lasts() -> None:
    model = net()
    optimizer = child(model)
    replace(GMT, share=0.1).attach(optimizer, model, params=(name for name in WEIGHTS))
    steps(model, optimizer, 0, 2)


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_attached_is_refused() -> None:
    model = net()
    optimizer = child(model)
    with pytest.raises(TypeError, match="'optimizer' must be a ChildAdamW"):
        GMT.attach(torch.optim.AdamW(model.parameters()), model)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'model' must be a torch\.nn\.Module"):
        GMT.attach(optimizer, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'scores' must be given"):
        FISH.attach(optimizer, model)
    with pytest.raises(ValueError, match="'scores' must be None with score='gradient'"):
        GMT.attach(optimizer, model, scores={})
    with pytest.raises(ValueError, match="'state_dict' must be what"):
        GMT.attach(optimizer, model).load_state_dict({})
    with pytest.raises(ValueError, match="'scores' must be given"):
        FISH.scores(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "grad"}, "'score' must be one of"),
        ({"share": 0.0}, r"'share' must be in \(0, 1\]"),
        ({"scope": "all"}, "'scope'"),
        ({"every": 0}, "'every'"),
        ({"rank": 0}, "'rank'"),
        ({"budget": -1}, "'budget'"),
        ({"keep_moments": 1}, "'keep_moments' must be a bool"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"ChildNetwork: {message}"):
        ChildNetwork(**{"score": "gradient", "share": 0.5, **options})


def test_masks_that_do_not_fit_change_nothing() -> None:
    model = net()
    every = {"0.weight": torch.ones(8, 6, dtype=torch.bool)}
    optimizer = child(model, mask=every, compact=True, ema_decay=0.9)
    steps(model, optimizer, 0, 2)
    before = copy.deepcopy(optimizer.state_dict())
    for wrong, message in (
        ({"0.weight": torch.ones(6, 8, dtype=torch.bool)}, "hold an array of shape"),
        ({"0.weight": torch.ones(8, 6)}, "hold a boolean array"),
        ({"fc": every["0.weight"]}, "name parameters of a group with mode='D'"),
        ({}, "have at least one entry"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            optimizer.set_mask(wrong)
    with pytest.raises(ValueError, match="'keep_moments' must be False with compact moments"):
        optimizer.set_mask(every, keep_moments=True)
    with optimizer.swap_ema(), pytest.raises(RuntimeError, match="averaged weights are in place"):
        optimizer.set_mask(every)
    after = optimizer.state_dict()
    for key, state in before["state"].items():
        for name, value in state.items():
            assert torch.equal(value, after["state"][key][name])
    assert math.isclose(before["param_groups"][0]["lr"], after["param_groups"][0]["lr"])
