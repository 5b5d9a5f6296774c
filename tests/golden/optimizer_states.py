"""Writes the optimizer states of this version: ``python golden/optimizer_states.py`` in tests/.

A file holds a saved state, the weights beside it, the gradients of the steps that follow, and what
the weights and averages are after those. Later versions load it and must come to the same bits.
Files of a released version are never written again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import pyspectra as ps
from pyspectra.optim import SGD, AdamW, ChildAdamW

FOLDER = Path(__file__).parent
SHAPES = {"encoder.weight": (5, 7), "encoder.bias": (9,), "head.weight": (3, 4)}
BEFORE, AFTER = 3, 3  # steps


def options(kind: str) -> tuple[Any, dict[str, Any]]:
    """Class and options of each of the states."""
    generator = torch.Generator().manual_seed(5)
    draws = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    mask = {name: draw < 0.4 for name, draw in draws.items() if name != "head.weight"}
    shared: dict[str, Any] = {"lr": 0.03, "weight_decay": 0.07, "ema_decay": 0.9}
    return {
        "adamw": (AdamW, {**shared, "betas": (0.8, 0.95), "max_grad_norm": 0.7}),
        "adamw_bfloat16": (AdamW, {**shared, "stochastic_rounding": True, "seed": 11}),
        "child_adamw_d": (ChildAdamW, {**shared, "mode": "D", "mask": mask}),
        "child_adamw_d_compact": (
            ChildAdamW,
            {**shared, "mode": "D", "mask": mask, "compact": True, "decay_masked": False},
        ),
        "child_adamw_f": (ChildAdamW, {**shared, "mode": "F", "seed": 7, "order": "alicemind"}),
        "sgd": (SGD, {**shared, "momentum": 0.9, "dampening": 0.1, "ema_every": 2}),
    }[kind]


KINDS = (
    "adamw",
    "adamw_bfloat16",
    "child_adamw_d",
    "child_adamw_d_compact",
    "child_adamw_f",
    "sgd",
)


def continued(
    optimizer: Any, params: dict[str, torch.nn.Parameter], grads: list[dict[str, torch.Tensor]]
) -> dict[str, dict[str, torch.Tensor]]:
    """Take a step for each of the gradients; weights and averages afterwards."""
    for step in grads:
        for name, p in params.items():
            p.grad = step[name].clone()
        optimizer.step()
    return {
        "weights": {name: p.detach().clone() for name, p in params.items()},
        "averages": {name: optimizer.state[p]["ema"].clone() for name, p in params.items()},
    }


def write(kind: str) -> None:
    """Write the file of one state."""
    cls, settings = options(kind)
    dtype = torch.bfloat16 if kind.endswith("bfloat16") else torch.float32
    generator = torch.Generator().manual_seed(1)

    def draw() -> dict[str, torch.Tensor]:
        return {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}

    params = {name: torch.nn.Parameter(x) for name, x in draw().items()}
    grads = [draw() for _ in range(BEFORE + AFTER)]
    optimizer = cls(params.items(), **settings)
    weights = continued(optimizer, params, grads[:BEFORE])["weights"]
    state = optimizer.state_dict()
    rest = grads[BEFORE:]
    record = {"state": state, "weights": weights, "grads": rest}
    # A copy: what follows must not reach into what is saved.
    record = {**torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, record)}
    record["after"] = continued(optimizer, params, rest)
    torch.save(record, FOLDER / f"{kind}-{ps.__version__}.pt")


if __name__ == "__main__":
    for each in KINDS:
        write(each)
