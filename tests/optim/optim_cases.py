"""Parameters and gradients that the tests of the optimizers share."""

from __future__ import annotations

from typing import Any

import torch

SHAPES = ((), (1,), (0,), (0, 5), (7,), (33, 129), (3, 5, 7), *[(k,) for k in range(2, 90, 3)])
HYPER: dict[str, Any] = {"lr": 7e-3, "betas": (0.88, 0.987), "eps": 3e-7, "weight_decay": 0.06}
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def parameters(dtype: Any = torch.float32, seed: int = 0, shapes: Any = SHAPES) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def set_grads(params: list[Any], t: int) -> None:
    generator = torch.Generator().manual_seed(1000 + t)
    for p in params:
        p.grad = (0.2 * torch.randn(p.shape, generator=generator)).to(p.dtype)


def same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
