"""What the batches of the first epoch hold: whether they repeat, and a sample of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra._support.random import Purpose, generator
from pyspectra.training.collect.steps import is_local
from pyspectra.training.rules.facts import Array, EpochBatches

MOST_BATCHES = 4096
MOST_ELEMENTS = 1 << 14
"""Elements of a batch that its checksum covers: two batches that agree in so many are the same."""
MOST_ROWS = 400
MOST_FEATURES = 4096


class BatchSums:
    """A checksum of each batch of the first epoch, kept on its device until the epoch ends."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []
        self._factors: Tensor | None = None
        self._ended = False

    def add(self, inputs: Any) -> None:
        """Look at a batch."""
        if self._ended or len(self._sums) >= MOST_BATCHES or not isinstance(inputs, Tensor):
            return
        if inputs.numel() == 0 or inputs.device.type == "mps" or not is_local(inputs):
            return  # Metal has no float64
        values = inputs.detach().reshape(-1)[:MOST_ELEMENTS].double()
        if self._factors is None or self._factors.device != values.device:
            # Of our own, so that the generators of the loop stay as they are.
            factors = generator(Purpose.DATA, 0, "repeated batches").standard_normal(MOST_ELEMENTS)
            self._factors = torch.from_numpy(factors).to(values.device)
        self._sums.append(values @ self._factors[: len(values)])

    def taken(self, step: int) -> EpochBatches | None:
        """Return the sums at the end of the first epoch, once."""
        if self._ended or not self._sums:
            return None
        self._ended = True
        sums = torch.stack([s.to(self._sums[0].device) for s in self._sums]).cpu().numpy()
        self._sums, self._factors = [], None
        return EpochBatches(step, sums)


class RowSample:
    """A few hundred rows of inputs, and their targets."""

    def __init__(self) -> None:
        self._rows: list[tuple[Array, Array]] = []
        self._n = 0

    def add(self, inputs: Any, targets: Any) -> None:
        """Keep rows of a batch, while there are few."""
        if self._n >= MOST_ROWS or not (
            isinstance(inputs, Tensor) and isinstance(targets, Tensor) and is_local(inputs)
        ):
            return
        usable = inputs.is_floating_point() and inputs.dim() > 1 and len(inputs) == len(targets)
        if not usable or inputs[0].numel() > MOST_FEATURES or targets.numel() != len(targets):
            return  # numbers of tokens have no distance
        kept = slice(0, MOST_ROWS - self._n)
        X = inputs.detach()[kept].float().flatten(1).cpu().numpy()
        y = targets.detach()[kept].reshape(-1).cpu()
        self._rows.append((X, (y.double() if y.is_floating_point() else y.long()).numpy()))
        self._n += len(X)

    def taken(self) -> tuple[Array, Array] | None:
        """Return the rows and their targets; None if there are too few to say anything."""
        rows, self._rows = self._rows, []
        shapes = {X.shape[1] for X, _ in rows}
        if self._n < MOST_ROWS // 4 or len(shapes) != 1:
            return None
        return np.concatenate([X for X, _ in rows]), np.concatenate([y for _, y in rows])
