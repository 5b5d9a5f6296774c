"""Parameters whose memory is dense but not in the order of their axes, channels_last above all."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from optim.optim_cases import HYPER

from pyspectra.optim import SGD, Adam, AdamW, ChildAdamW

SHAPE = (6, 5, 3, 4)
LAYOUTS: dict[str, Any] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "channels_last_3d": lambda x: (
        x[None].contiguous(memory_format=torch.channels_last_3d).permute(1, 0, 2, 3, 4)
    ),
    "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "matrix": lambda x: x.reshape(30, 12).t().contiguous().t(),
    "one": lambda x: x[:, :, :1, :1].contiguous(memory_format=torch.channels_last),
}


def pair(layout: str, dtype: Any = torch.float32) -> tuple[Any, Any]:
    """The same values, contiguous and not."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    laid = LAYOUTS[layout](x)
    return torch.nn.Parameter(laid.contiguous().clone()), torch.nn.Parameter(laid.clone())


def give_grads(a: Any, b: Any, t: int, *, own: bool) -> None:
    grad = torch.randn(a.shape, generator=torch.Generator().manual_seed(t)).to(a.dtype)
    a.grad = grad.clone()
    b.grad = torch.empty_like(b).copy_(grad) if own else grad.clone()


def options(case: str, p: Any) -> tuple[Any, dict[str, Any]]:
    mask = {p: torch.rand(p.shape, generator=torch.Generator().manual_seed(4)) < 0.4}
    return {
        "AdamW": (AdamW, {**HYPER, "ema_decay": 0.9, "statistics": True}),
        "clipped": (AdamW, {**HYPER, "max_grad_norm": 0.5}),
        "Adam": (Adam, {**HYPER, "master_weights": True, "ema_decay": 0.9}),
        "SGD": (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}),
        "D": (ChildAdamW, {**HYPER, "mode": "D", "mask": mask, "decay_masked": False}),
    }[case]


@pytest.mark.parametrize("own", [True, False], ids=["grad as p", "grad contiguous"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", ["AdamW", "clipped", "Adam", "SGD", "D"])
def test_a_step_is_that_of_contiguous_memory(case: str, layout: str, own: bool) -> None:
    a, b = pair(layout)
    strides = b.stride()
    opts = []
    for p in (a, b):
        cls, settings = options(case, p)
        opts.append(cls([("w", p)], **settings))
    for t in range(3):
        give_grads(a, b, t, own=own)
        for opt in opts:
            opt.step()
    tolerance = 1e-6 if case == "clipped" else 0.0  # the sum of squares has another order
    torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)
    assert b.stride() == strides
    for key, x in opts[0].state[a].items():
        if isinstance(x, torch.Tensor) and key != "mask":
            torch.testing.assert_close(opts[1].state[b][key], x, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_types(dtype: Any) -> None:
    a, b = pair("channels_last", dtype)
    opts = [AdamW([p], master_weights=True, ema_decay=0.9, **HYPER) for p in (a, b)]
    for t in range(3):
        give_grads(a, b, t, own=True)
        for opt in opts:
            opt.step()
    assert torch.equal(a, b)


def test_random_masks_keep_their_share() -> None:
    _, b = pair("channels_last")
    opt = ChildAdamW([("w", b)], mode="F", reserve_p=0.3)
    b.grad = torch.ones_like(b)
    opt.step()
    share = (opt.state[b]["exp_avg"] != 0).float().mean().item()
    assert abs(share - 0.3) < 5 * (0.21 / b.numel()) ** 0.5


@pytest.mark.parametrize("case", ["AdamW", "D"])
@pytest.mark.parametrize("back", [False, True])
def test_states_go_from_one_format_to_the_other(case: str, back: bool) -> None:
    """Also through a file: a mask belongs to the elements, not to their places in memory."""
    a, b = pair("channels_last")
    if back:
        a, b = b, a
    cls, settings = options(case, a)
    first = cls([("w", a)], **settings)
    for t in range(2):
        give_grads(a, b, t, own=False)
        first.step()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        b.copy_(a)
    settings.pop("mask", None)
    second = cls([("w", b)], **settings)
    second.load_state_dict(torch.load(file, weights_only=True))
    for t in range(2, 4):
        give_grads(a, b, t, own=True)
        first.step()
        second.step()
    assert torch.equal(a, b)


def test_a_state_of_torch_loads() -> None:
    a, b = pair("channels_last")
    theirs = torch.optim.AdamW([a], **HYPER)
    give_grads(a, b, 0, own=True)
    theirs.step()
    ours = AdamW([b], **HYPER)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    with torch.no_grad():
        b.copy_(a)
    give_grads(a, b, 1, own=True)
    theirs.step()
    ours.step()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_mask_that_is_written_to_counts_from_the_next_step() -> None:
    a, b = pair("channels_last")
    cls, settings = options("D", b)
    opt = cls([("w", b)], **settings)
    give_grads(a, b, 0, own=True)
    opt.step()
    before = b.detach().clone()
    opt.state[b]["mask"].zero_()
    opt.param_groups[0].update(weight_decay=0.0, betas=(0.0, 0.9))
    opt.step()
    assert torch.equal(b, before)


def test_a_format_that_changes_later_is_refused() -> None:
    p, _ = pair("channels_last")
    opt = AdamW([p])
    p.grad = torch.ones_like(p)
    opt.step()
    p.data = p.data.contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match=r"memory format .* build a new optimizer"):
        opt.step()


def test_what_cannot_be_is_refused() -> None:
    _, b = pair("channels_last")
    opt = ChildAdamW([b], mode="D", mask={b: torch.ones(b.shape) > 0}, compact=True)
    b.grad = torch.ones_like(b)
    with pytest.raises(ValueError, match="must be contiguous for compact moments"):
        opt.step()
    gaps = torch.nn.Parameter(torch.randn(4, 3, 8, 8)[..., ::2])
    gaps.grad = torch.ones_like(gaps)
    with pytest.raises(ValueError, match="must be contiguous, or a permutation"):
        AdamW([gaps]).step()


def test_a_model_in_channels_last_trains() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1))
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8)
    opts = [AdamW(m.named_parameters(), lr=0.01, ema_decay=0.9) for m in (net, twin)]
    for _ in range(4):
        for m, opt in zip((net, twin), opts, strict=True):
            m(x).square().mean().backward()
            opt.step()
            opt.zero_grad()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
    with opts[1].swap_ema():
        twin(x)


def test_stochastic_rounding_of_float16_says_that_it_does_nothing() -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    p.grad = torch.ones_like(p)
    opt = AdamW([("w", p)], stochastic_rounding=True)
    with pytest.warns(UserWarning, match="'stochastic_rounding' does nothing for float16 .* 'w'"):
        opt.step()
