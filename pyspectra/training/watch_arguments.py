"""The arguments of a watch, checked, and what is made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyspectra._support.arguments import check_count, check_probability
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.collect.forward import classes_last
from pyspectra.training.collect.spectra import SpectraPlan
from pyspectra.training.history import History
from pyspectra.training.processes import Alone

LOSSES = ("cross_entropy", "nll", "bce", "bce_logits", "mse", "l1", "smooth_l1", "huber")


def check_model(model: Any) -> None:
    """Refuse what is no module."""
    if not isinstance(model, torch.nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("Watch", "model", "be a torch.nn.Module", got)


def checked_optimizers(optimizer: Any) -> list[Any]:
    """Return the optimizers of a watch as a list."""
    found = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    for one in found:
        if not isinstance(one, torch.optim.Optimizer):
            raise ArgumentTypeError(
                "Watch", "optimizer", "be a torch.optim.Optimizer, or a list of them",
                f"an object of type {type(one).__name__}",
            )  # fmt: skip
    if not found:
        raise ArgumentValueError("Watch", "optimizer", "not be empty", "[]")
    return found


def history_of(given: Any, steps_per_epoch: int | None, own: Alone) -> History:
    """Return the history that a watch writes to: the one given, or that of a path."""
    if not isinstance(given, History):
        return History(given, steps_per_epoch=steps_per_epoch, write=own.is_first)
    if given.steps_per_epoch is None:
        given.steps_per_epoch = steps_per_epoch  # records get their epochs by it
    return given


def spectra_plan(every: Any, budget: Any) -> SpectraPlan:
    """Return when spectra are measured."""
    return SpectraPlan(
        None if every is None else check_count("Watch", "spectra_every", every),
        None if budget is None else check_probability("Watch", "spectra_budget", budget),
    )


def accuracy(kind: str | None, outputs: Tensor | None, targets: Any) -> dict[str, Any]:
    """Return the accuracy of a batch of a classifier; nothing of others."""
    if kind not in ("cross_entropy", "nll") or outputs is None or not isinstance(targets, Tensor):
        return {}
    scores = None if targets.is_floating_point() else classes_last(outputs.detach(), targets)
    if scores is None:
        return {}
    said, true = scores.argmax(-1).reshape(-1), targets.reshape(-1)
    # Padding has a number below 0, which no class has; its share of the batch is no mistake.
    counts = true >= 0
    return {"accuracy": ((said == true) & counts).sum() / counts.sum().clamp(min=1)}
