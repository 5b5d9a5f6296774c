"""Lottery tickets: exact zeros that stay, everything else back to where it was recorded."""

from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from pyspectra.finetune import LotteryTicket  # noqa: E402
from pyspectra.optim import ChildAdamW  # noqa: E402


def net(seed: int = 0, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)
    ).to(dtype)  # fmt: skip


def steps(model: Any, optimizer: Any, first: int, last: int) -> None:
    for step in range(first, last):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        x = torch.randn(16, 12, dtype=model[0].weight.dtype)
        model(x).float().square().mean().backward()
        optimizer.step()


def started(seed: int = 0, dtype: Any = torch.float32, **options: Any) -> Any:
    model = net(seed, dtype)
    given = {"lr": 0.02, "weight_decay": 0.1, "ema_decay": 0.9, **options}
    optimizer = ChildAdamW(model.named_parameters(), mode="D", **given)
    return model, optimizer, LotteryTicket(model, optimizer)


def zeros(ticket: Any, model: Any) -> None:
    own = dict(model.named_parameters())
    for name, mask in ticket.masks.items():
        assert torch.equal(own[name] == 0, ~mask), name


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("k", [0, 3])
def test_pruned_weights_stay_zero_and_the_rest_is_rewound(k: int, compact: bool) -> None:
    model, optimizer, ticket = started(compact=compact)
    steps(model, optimizer, 0, k)
    start = copy.deepcopy(model.state_dict())
    moments = copy.deepcopy(optimizer.state_dict()["state"])
    ticket.record()
    steps(model, optimizer, k, k + 6)
    end = copy.deepcopy(model.state_dict())
    ticket.prune(0.4)
    flat = np.concatenate([end[n].abs().numpy().ravel() for n in ticket.masks])
    kept = np.concatenate([m.numpy().ravel() for m in ticket.masks.values()])
    assert kept.sum() == round(0.6 * flat.size)
    assert flat[~kept].max() <= flat[kept].min()
    now = model.state_dict()
    for name, value in start.items():
        mask = ticket.masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(now[name], value * mask)
    zeros(ticket, model)
    after = optimizer.state_dict()["state"]
    assert after.keys() == moments.keys()
    for key, state in moments.items():
        assert after[key]["step"] == state["step"] == k
        name = [n for n, _ in model.named_parameters()][key]
        mask = ticket.masks.get(name)
        for moment in ("exp_avg", "exp_avg_sq", "ema"):
            old, new = state[moment], after[key][moment]
            if mask is not None and compact and moment != "ema":
                old, mask_of = old[mask.flatten()], torch.ones_like(new)
            else:
                mask_of = mask if mask is not None else torch.ones_like(new)
            assert torch.equal(new, old * mask_of), (name, moment)
    steps(model, optimizer, k, k + 6)
    zeros(ticket, model)
    with optimizer.swap_ema():
        zeros(ticket, model)


def test_rounds_prune_what_is_left() -> None:
    model, optimizer, ticket = started()
    ticket.record()
    masks = []
    for _ in range(3):
        steps(model, optimizer, 0, 4)
        ticket.prune(0.5)
        masks.append(ticket.masks)
    total = 12 * 16 + 16 * 10
    left = [sum(int(m.sum()) for m in mask.values()) for mask in masks]
    assert left == [176, 88, 44]
    assert [r.sparsity for r in ticket.rounds] == [1 - n / total for n in left]
    assert ticket.sparsity == 1 - 44 / total
    for before, after in itertools.pairwise(masks):
        for name, mask in after.items():
            assert not (mask & ~before[name]).any()


def test_each_tensor_may_lose_the_same_share() -> None:
    model, optimizer, _ = started()
    ticket = LotteryTicket(model, optimizer, scope="tensor")
    ticket.record()
    steps(model, optimizer, 0, 3)
    ticket.prune(0.25)
    assert [int(m.sum()) for m in ticket.masks.values()] == [144, 120]


def test_training_may_go_on_without_rewinding() -> None:
    model, optimizer, ticket = started()
    steps(model, optimizer, 0, 3)
    before = copy.deepcopy(model.state_dict())
    ticket.prune(0.5, rewind=False)
    for name, mask in ticket.masks.items():
        assert torch.equal(model.state_dict()[name], before[name] * mask)
    state = optimizer.state[model[0].weight]
    assert int(state["step"]) == 3
    assert torch.equal(state["exp_avg"] != 0, ticket.masks["0.weight"])
    steps(model, optimizer, 3, 6)
    zeros(ticket, model)


@pytest.mark.parametrize("master", [False, True])
def test_half_precision_has_exact_zeros_too(master: bool) -> None:
    model, optimizer, ticket = started(
        dtype=torch.bfloat16, master_weights=master, stochastic_rounding=not master
    )
    steps(model, optimizer, 0, 2)
    ticket.record()
    steps(model, optimizer, 2, 5)
    ticket.prune(0.7)
    steps(model, optimizer, 2, 7)
    zeros(ticket, model)


def test_spectra_are_measured_before_and_after() -> None:
    model, optimizer, ticket = started()
    ticket.record()
    steps(model, optimizer, 0, 3)
    found = ticket.prune(0.8, alphas=True)
    assert found.alpha_before.keys() == found.alpha_after.keys() == {"0.weight", "3.weight"}
    assert found.alpha_before["0.weight"] != found.alpha_after["0.weight"]


def test_masks_serve_another_network() -> None:
    model, optimizer, ticket = started()
    ticket.record()
    steps(model, optimizer, 0, 3)
    ticket.prune(0.5)
    other = net(1)  # random reinitialisation
    with torch.no_grad():
        for name, mask in ticket.masks.items():
            other.get_parameter(name).mul_(mask)
    again = ChildAdamW(other.named_parameters(), lr=0.02, mode="D", mask=ticket.masks)
    steps(other, again, 0, 4)
    zeros(ticket, other)


def test_a_resumed_search_has_the_same_bits() -> None:
    def search(model: Any, optimizer: Any, ticket: Any, first: int, last: int) -> None:
        for _ in range(first, last):
            steps(model, optimizer, 0, 3)
            ticket.prune(0.4)

    whole, half, resumed = started(), started(), started(5)
    for parts in (whole, half):
        parts[2].record()
    search(*whole, 0, 4)
    search(*half, 0, 2)
    file = io.BytesIO()
    torch.save([x.state_dict() for x in half], file)
    file.seek(0)
    for x, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        x.load_state_dict(state)
    search(*resumed, 2, 4)
    assert resumed[2].rounds == whole[2].rounds
    for p, q in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(p, q)


def test_what_cannot_be_done_is_refused() -> None:
    model, optimizer, ticket = started()
    with pytest.raises(RuntimeError, match="nothing to rewind to"):
        ticket.prune(0.5)
    with pytest.raises(ValueError, match=r"'share' must be in \(0, 1\)"):
        ticket.prune(1.0)
    with pytest.raises(TypeError, match="'model' must be"):
        LotteryTicket({}, optimizer)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'optimizer' must be a ChildAdamW"):
        LotteryTicket(model, torch.optim.AdamW(model.parameters()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'scope' must be one of"):
        LotteryTicket(model, optimizer, scope="row")
    with pytest.raises(ValueError, match="group with mode='D'"):
        LotteryTicket(model, ChildAdamW(model.named_parameters()))
    with pytest.raises(ValueError, match="'state_dict' must be what"):
        ticket.load_state_dict({})
