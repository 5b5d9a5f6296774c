"""The CPU's step beside the device's, for the tests of the device kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim.optim_cases import same, set_grads

from pyspectra.optim._fused import base as _fused
from pyspectra.optim._fused.plan import Plan

SHAPES = ((), (1,), (0,), (7,), (33, 129), (4096,), (9001,))


def moved(params: list[Any], device: str) -> list[Any]:
    return [torch.nn.Parameter(p.detach().clone().to(device)) for p in params]


def give_grads(host: list[Any], copies: list[Any], t: int) -> None:
    set_grads(host, t)
    for p, q in zip(host, copies, strict=True):
        q.grad = p.grad.detach().clone().to(q.device)


def named(params: list[Any]) -> list[tuple[str, Any]]:
    return [(f"p{k}", p) for k, p in enumerate(params)]


def on_host(opt: Any) -> None:
    """Step with the CPU's kernel, whatever the fixture has put in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fused, "plan_class", lambda *_: Plan)
        opt.step()


def assert_same_state(host: Any, twin: Any, a: list[Any], b: list[Any]) -> None:
    assert same(a, [q.cpu() for q in b])
    for p, q in zip(a, b, strict=True):
        assert host.state[p].keys() == twin.state[q].keys()
        for key, x in host.state[p].items():
            y = twin.state[q][key]
            assert (int(y) == x) if key == "step" else torch.equal(x, y.cpu()), key
