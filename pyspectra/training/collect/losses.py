"""Losses and other scalars of the steps: kept on their device, fetched together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra.training.collect.forward import classes_last
from pyspectra.training.rules.facts import ClassOrder, LossBatches, NonFinite, TargetRange
from pyspectra.types import FloatArray

MOST_TARGETS = 1 << 17
"""Targets that are looked at to learn the frequencies of classes."""


class ScalarBuffer:
    """Scalars of several names, one of each in a step."""

    def __init__(self, *names: str) -> None:
        self._waiting: dict[str, list[Any]] = {name: [] for name in names}
        self._values: dict[str, list[float]] = {name: [] for name in names}

    def add(self, **values: Any) -> None:
        """Add one value of each name: a number, a tensor, or None."""
        for name, waiting in self._waiting.items():
            value = values.get(name)
            if isinstance(value, Tensor):
                value = value.detach()
                if value.dim():
                    value = value.float().mean()
            waiting.append(0.0 if value is None else value)

    def fetch(self) -> None:
        """Wait for what is still on a device, once for all."""
        waiting = [(n, k, v) for n, vs in self._waiting.items() for k, v in enumerate(vs)]
        tensors = [v for _, _, v in waiting if isinstance(v, Tensor)]
        fetched: list[float] = []
        if tensors:
            device = tensors[0].device
            same = [t.to(device=device, dtype=torch.float32) for t in tensors]
            fetched = torch.stack(same).cpu().double().tolist()
        numbers = iter(fetched)
        for name, _, value in waiting:
            self._values[name].append(next(numbers) if isinstance(value, Tensor) else float(value))
        for values in self._waiting.values():
            values.clear()

    def __getitem__(self, name: str) -> FloatArray:
        return np.asarray(self._values[name], dtype=np.float64)


def finite_mark(value: Any) -> Tensor | None:
    """Return a scalar that is finite where all of a tensor is, without waiting for it."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
        return None
    # Two numbers that NaN and infinity come through to, without a copy or an overflow.
    low, high = value.detach().aminmax()
    return low * 0 + high * 0


def first_non_finite(buffer: ScalarBuffer, start: int) -> NonFinite | None:
    """Return where NaN or infinity came in first, of inputs, targets, outputs and loss."""
    losses = buffer["loss"]
    bad = {
        place: np.flatnonzero(~np.isfinite(buffer[place]))
        for place in ("inputs", "targets", "outputs", "loss")
    }
    known = {place: int(k[0]) for place, k in bad.items() if len(k)}
    if not known:
        return None
    first = min(known.values())
    place = next(place for place, k in known.items() if k == first)
    before = losses[:first][np.isfinite(losses[:first])]
    grew = len(before) > 1 and float(np.abs(before[-10:]).max()) > 10 * abs(float(before[0]))
    value = losses[first]
    what = "Inf" if place == "loss" and np.isinf(value) else "NaN"
    return NonFinite(step=start + first, place=place, what=what, grew=grew)


LEAST_BATCH = 8
"""Labels of a batch before its classes are compared with those of others."""

_REACH = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0),
          "relu": (0.0, math.inf)}  # fmt: skip


def _entropy(classes: np.ndarray[Any, Any]) -> float:
    _, counts = np.unique(classes, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())


class Targets:
    """Frequencies of classes, or the variance of values, in the targets that were seen."""

    def __init__(self) -> None:
        self._seen: list[np.ndarray[Any, Any]] = []
        self._n = 0
        self._single = True

    def add(self, targets: Any) -> None:
        """Look at the targets of a batch."""
        if isinstance(targets, Tensor) and self._n < MOST_TARGETS and targets.numel():
            values = targets.detach().reshape(-1)[:65536].float().cpu().numpy()
            whole = not targets.is_floating_point()
            self._single = self._single and targets.dim() == 1
            self._seen.append(values.astype(np.int64) if whole else values.astype(np.float64))
            self._n += len(values)

    @property
    def n(self) -> int:
        """Targets seen."""
        return self._n

    def order(self, step: int) -> ClassOrder | None:
        """Return how classes are spread over the batches seen; None of values and of sequences."""
        batches = [v for v in self._seen if v.dtype.kind == "i" and len(v) >= LEAST_BATCH]
        if not self._single or len(batches) != len(self._seen) or not batches:
            return None
        within = np.array([_entropy(v) for v in batches], dtype=np.float64)
        return ClassOrder(step, within, _entropy(np.concatenate(batches)))

    def beyond(self, step: int, operation: str) -> TargetRange | None:
        """Return how many of the targets an operation cannot reach; None of classes."""
        reach = _REACH.get(operation)
        if reach is None or not self._seen or self._seen[0].dtype.kind == "i":
            return None
        values = np.concatenate(self._seen)
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = reach
        slack = 1e-3 * float(np.abs(values).max())
        outside = float(((values < low - slack) | (values > high + slack)).mean())
        ends = float(values.min()), float(values.max())
        return TargetRange(step, operation, low, high, *ends, outside)

    @property
    def majority(self) -> float | None:
        """Share of the most frequent class; None of values."""
        values = np.concatenate(self._seen) if self._seen else np.empty(0)
        if values.dtype.kind != "i" or not len(values):
            return None
        return float(np.unique(values, return_counts=True)[1].max() / len(values))

    def baseline(self, kind: str | None) -> float | None:
        """Return the loss of predicting frequencies, or the mean; None where not known."""
        if not self._seen:
            return None
        values = np.concatenate(self._seen)
        if kind in ("cross_entropy", "nll") and values.dtype.kind == "i":
            _, counts = np.unique(values[values >= 0], return_counts=True)
            p = counts / max(counts.sum(), 1)
            return float(-(p * np.log(p)).sum())
        if kind in ("bce", "bce_logits"):
            if values.min() < 0 or values.max() > 1:
                return None  # the loss was taken against something else
            p1 = float(np.clip(values.mean(), 1e-12, 1 - 1e-12))
            return float(-(p1 * np.log(p1) + (1 - p1) * np.log(1 - p1)))
        return float(values.var()) if kind == "mse" else None


def loss_batches(step: int, kind: str, batches: list[tuple[Any, Any]]) -> LossBatches:
    """Return what entered the loss in the first batches, one row for each sample."""
    outputs, targets = [], []
    for given, target in batches:
        scores = classes_last(given, target) if kind in ("cross_entropy", "nll") else None
        if scores is None and kind in ("cross_entropy", "nll") and given.dim() > 2:
            scores = given.movedim(1, -1)  # where torch's own losses have their classes
        out = given if scores is None else scores.reshape(-1, scores.shape[-1])
        outputs.append(out[:4096].double().cpu().numpy())
        if isinstance(target, Tensor):
            targets.append(target.detach().reshape(-1)[:65536].cpu().numpy())
    return LossBatches(step, kind, outputs, targets)
