"""Counters of one activation: which units are ever active, saturated, how spread."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyspectra.training.rules.facts import LossCurve, Units

MOST_OF_IMAGES, MOST_OF_SEQUENCES = 1 << 20, 1 << 16
"""Elements of an activation that are looked at in a pass; of larger ones a part is."""


SATURATED = 5.0
"""Beyond it, before a tanh or sigmoid, the slope is below a percent."""


class Counter:
    """Counts units of one activation over batches: those ever active, and those saturated."""

    def __init__(self, activation: str) -> None:
        self.activation = activation
        self.n_samples = self.n_batches = 0
        self.alive: Tensor | None = None
        self.saturated: Tensor | None = None
        self.variance: Tensor | None = None
        self.is_output = False

    def add(self, out: Tensor, channel: int) -> None:
        """Count a batch; `channel` is the axis of the units."""
        values, channel = _some(out.detach(), channel)
        dims = [d for d in range(values.dim()) if d != channel]
        if self.activation in ("tanh", "sigmoid"):
            limit = math.tanh(SATURATED) if self.activation == "tanh" else 1 / (1 + math.exp(-5))
            far = values.abs() > limit if self.activation == "tanh" else (
                (values > limit) | (values < 1 - limit)
            )  # fmt: skip
            share = far.float().mean(dims)
            self.saturated = share if self.saturated is None else self.saturated + share
            alive = torch.ones_like(share, dtype=torch.bool)
        elif self.activation in ("gelu", "silu"):
            rms = values.float().pow(2).mean().sqrt()
            alive = (values.abs() >= 1e-3 * rms).any(dims[0]) if len(dims) == 1 else _any(
                values.abs() >= 1e-3 * rms, dims
            )  # fmt: skip
        else:
            alive = _any(values > 0, dims)
        if self.alive is None or self.alive.shape != alive.shape:
            self.alive, self.n_samples, self.n_batches = alive, 0, 0
        else:
            self.alive = self.alive | alive
        variance = values.float().var()
        self.variance = variance if self.variance is None else self.variance + variance
        self.n_samples += values.shape[0]
        self.n_batches += 1

    def units(self, name: str, step: int, curve: LossCurve | None) -> Units:
        """Return what was counted so far."""
        assert self.alive is not None
        saturated = 0
        if self.saturated is not None:
            saturated = int((self.saturated / self.n_batches > 0.95).sum())
        std = math.sqrt(float(self.variance) / self.n_batches) if self.variance is not None else 0.0
        return Units(
            step=step,
            name=name,
            activation=self.activation,
            n_samples=self.n_samples,
            n_batches=self.n_batches,
            n_units=self.alive.numel(),
            n_dead=int((~self.alive).sum()),
            n_saturated=saturated,
            std=std,
            curve=curve,
            is_output=self.is_output,
        )


def _some(values: Tensor, channel: int) -> tuple[Tensor, int]:
    """Return all of an activation, or evenly spaced samples of a large one, and its channels."""
    if channel == values.dim() - 1 and values.dim() > 2 and values.is_contiguous():
        positions = values.view(-1, values.shape[-1])  # those of a sequence are samples
        return positions[:: math.ceil(values.numel() / MOST_OF_SEQUENCES)], 1
    return values[:: math.ceil(values.numel() / MOST_OF_IMAGES)], channel


def _any(mask: Tensor, dims: list[int]) -> Tensor:
    for d in sorted(dims, reverse=True):
        mask = mask.any(d)
    return mask
