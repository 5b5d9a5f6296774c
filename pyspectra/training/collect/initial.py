"""Weight matrices before the first step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyspectra.training.collect.steps import is_local
from pyspectra.training.rules.facts import ParameterInfo, Parameters, WeightSummary

# Only the first rows of a matrix with more elements are compared: units that begin alike are found
# in any rows.
MOST = 1 << 20


POWER_STEPS = 4


def stable_rank(W: Tensor) -> float:
    """Return the stable rank of a matrix by a few steps of the power method: an upper bound.

    Parameters
    ----------
    W : Tensor, shape (n, m)

    Notes
    -----
    The steps give a lower bound of the spectral norm, which is exact at once where the rank is one,
    and that is what is asked.
    """
    squares = float((W * W).sum())
    if squares == 0:
        return 0.0
    v = W[int((W * W).sum(1).argmax())]
    for _ in range(POWER_STEPS):
        v = (W @ (v / v.norm())) @ W
    top = float(v.norm())
    return squares / top if top > 0 else math.nan


def parameters_of(model: Any, optimizers: list[Any], ignore: tuple[str, ...], step: int) -> Any:
    """Return which parameters there are, and which an optimizer has."""
    held = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    rows = [
        ParameterInfo(
            name, tuple(p.shape), p.numel(), p.requires_grad, id(p) in held or name in ignore
        )
        for name, p in model.named_parameters()
    ]
    return Parameters(step, rows)


def hidden_parameters(model: Any, optimizers: list[Any], step: int) -> Parameters | None:
    """Return parameters with gradients that stand in plain lists of a model, and in no optimizer.

    Parameters
    ----------
    model : torch.nn.Module
    optimizers : list of torch.optim.Optimizer
    step : int

    Returns
    -------
    Parameters or None
        None where there are none, as nearly always.
    """
    known = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    known |= {id(p) for p in model.parameters()}
    rows = []
    for owner, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_"):
                continue
            for key, part in _modules_in(value):
                for name, p in part.named_parameters():
                    if id(p) not in known and p.requires_grad and p.grad is not None:
                        known.add(id(p))
                        path = ".".join(x for x in (owner, attribute, key, name) if x)
                        shape = tuple(p.shape)
                        rows.append(ParameterInfo(path, shape, p.numel(), True, False, True))
    return Parameters(step, rows) if rows else None


def _modules_in(value: Any) -> list[tuple[str, Any]]:
    """Return the modules in a list, a tuple or a dictionary, with their keys."""
    if isinstance(value, dict):
        items = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(k), v) for k, v in enumerate(value)]
    else:
        return []
    return [(k, v) for k, v in items if isinstance(v, torch.nn.Module)]


def with_activations(
    rows: Sequence[WeightSummary], follows: Mapping[str, str], normalized: Collection[str]
) -> list[WeightSummary]:
    """Return the rows with what a forward pass showed to come after each weight."""
    return [
        dataclasses.replace(
            row, activation=follows.get(row.name), normalized=row.name in normalized
        )
        for row in rows
    ]


def weight_summaries(model: Any) -> list[WeightSummary]:
    """Return numbers of every trainable matrix."""
    out = []
    for name, p in model.named_parameters():
        if p.dim() < 2 or not p.requires_grad or not is_local(p) or not p.is_floating_point():
            continue
        if p.numel() == 0:
            continue
        with torch.no_grad():
            W = p.detach().reshape(p.shape[0], -1)
            W = W[: max(2, MOST // W.shape[1])].float()
            largest = float(W.abs().max())
            scale = largest or 1.0
            rows = float((W - W[:1]).abs().max()) / scale
            columns = float((W - W[:, :1]).abs().max()) / scale
            std, mean = torch.std_mean(W, correction=0)
        out.append(
            WeightSummary(
                name=name,
                shape=tuple(p.shape),
                mean=float(mean),
                std=float(std),
                max_abs=largest,
                row_difference=rows,
                column_difference=columns,
                stable_rank=stable_rank(W / scale),
            )
        )
    return out
