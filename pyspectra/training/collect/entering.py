"""What enters the model and its first weights, in training and in evaluations, as numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyspectra.training.collect.steps import is_local
from pyspectra.training.rules.facts import FirstInputs, InputMoments, NormState

MOST_ROWS = 256
MOST_FEATURES = 1 << 12
SIDE = 32
MOST_BATCHES = 50
LEAST_ROWS = 32
"""Rows before the inputs of the first weights are judged."""


class FirstRows:
    """Rows that entered the first layer with weights: what is left of the inputs by then."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._n = 0
        self._told = False

    def add(self, x: Any) -> None:
        """Look at what a linear layer or a convolution was given."""
        if self._told or not isinstance(x, Tensor) or x.dim() not in (2, 4) or not len(x):
            return
        if not x.is_floating_point() or not is_local(x):
            return
        if x.dim() == 4:  # of a large picture, pixels at even distances
            x = x[..., :: -(-x.shape[2] // SIDE), :: -(-x.shape[3] // SIDE)]
        if not 0 < x[0].numel() <= MOST_FEATURES:
            return
        if self._rows and self._rows[0].shape[1:] != x.shape[1:]:
            return
        self._rows.append(x.detach()[: MOST_ROWS - self._n].float().cpu())
        self._n += len(self._rows[-1])

    def taken(self, step: int, normalized: bool) -> FirstInputs | None:
        """Return the rows once there are enough, once."""
        if self._told or self._n < LEAST_ROWS:
            return None
        self._told = True
        rows, self._rows = torch.cat(self._rows).numpy(), []
        return FirstInputs(step, rows, normalized)


class Moments:
    """Mean and standard deviation of each feature, or channel, of some batches."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._n = self._n_batches = 0

    def add(self, x: Any) -> None:
        """Look at a batch."""
        if self._n_batches >= MOST_BATCHES or not isinstance(x, Tensor) or x.dim() < 2:
            return
        if not x.is_floating_point() or not x.numel() or x.shape[1] > MOST_FEATURES:
            return
        if not is_local(x):
            return
        values = x.detach().movedim(1, -1).reshape(-1, x.shape[1]).float()
        sums = torch.stack((values.sum(0), values.square().sum(0))).cpu().double()
        if self._sums is not None and self._sums.shape != sums.shape:
            return
        self._sums = sums if self._sums is None else self._sums + sums
        self._n += len(values)
        self._n_batches += 1

    @property
    def values(self) -> tuple[Any, Any] | None:
        """Mean and standard deviation of each feature; None before there are batches."""
        if self._sums is None or self._n < LEAST_ROWS:
            return None
        mean = self._sums[0] / self._n
        std = (self._sums[1] / self._n - mean.square()).clamp(min=0).sqrt()
        return mean.numpy(), std.numpy()


class Entering:
    """What enters the model in training and in evaluations, of a few batches."""

    def __init__(self) -> None:
        self.trained, self.evaluated = Moments(), Moments()
        self._told = False

    def taken(self, step: int) -> InputMoments | None:
        """Return the moments of both once they are known, once."""
        trained, evaluated = self.trained.values, self.evaluated.values
        if self._told or trained is None or evaluated is None:
            return None
        self._told = True
        same = trained[0].shape == evaluated[0].shape
        return InputMoments(step, *trained, *evaluated) if same else None


def norm_state(model: Any, step: int) -> NormState | None:
    """Return how the running statistics of batch norms follow; None where there are none."""
    rows = [
        (name, float(m.momentum), int(m.num_batches_tracked))
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)
        and m.track_running_stats
        and m.momentum is not None
        and m.num_batches_tracked is not None
    ]
    return NormState(step, rows) if rows else None
