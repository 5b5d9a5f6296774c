"""Spectra of the weights while they train: every so many steps, or for a share of the time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from pyspectra.analysis.executor import outcomes
from pyspectra.analysis.work import ignore
from pyspectra.errors import PyspectraError
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.training.collect.steps import is_local
from pyspectra.training.rules.facts import LayerSpectrum
from pyspectra.weights import Layer, open_weights
from pyspectra.weights.matricize import matrix_shape

OPTIONS = AnalyzeOptions(goodness=False)  # nothing that is followed over time reads it
WITH_TRAPS = AnalyzeOptions(randomize=True, goodness=False)

OUTLIERS = 3.0
"""Weight of the largest entry in the bound of `_may_have_traps`."""

AGREE_EVERY = 10
"""Steps between two agreements of all processes on which layers the time allows."""

Clock = Callable[[], float]
Agree = Callable[[int], int]


@dataclass(frozen=True)
class SpectraPlan:
    """When spectra are measured.

    Attributes
    ----------
    every : int or None
        Steps between two rounds of all layers.
    budget : float or None
        Share of the time that they may take; layers are then measured in turn. None sets no bound:
        a round is measured at once.
    """

    every: int | None = None
    budget: float | None = None

    @property
    def wanted(self) -> bool:
        """Whether spectra are measured at all."""
        return self.every is not None or self.budget is not None


@dataclass(frozen=True)
class _Turn:
    """What is measured together: a layer, or a sharded tensor with the layers that it makes."""

    name: str
    layers: Callable[[], Sequence[Layer]]


class SpectraCollector:
    """Measure layers of a model in turn.

    Nothing of the model is changed, and no generator is drawn from: permutations have keys of their
    own, which depend on the names of the layers alone.

    Parameters
    ----------
    model : torch.nn.Module
        The model without its wrappers.
    plan : SpectraPlan
    measures : bool
        Whether this process measures; False where another does, and this one only hands over its
        part of what is sharded.
    agree : callable, optional
        Returns the count of the process that measures to all of them, where tensors are sharded.
    clock : callable
        Seconds.

    Attributes
    ----------
    seconds : float
        Seconds that measuring has taken so far.
    """

    def __init__(
        self,
        model: Any,
        plan: SpectraPlan,
        *,
        measures: bool = True,
        agree: Agree | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._model, self._plan, self._clock = model, plan, clock
        self._measures, self._agree = measures, agree
        self._queue: deque[_Turn] = deque()
        self._costs: dict[str, float] = {}
        self._frozen_done: set[str] = set()
        self._last_round = 0
        self._started = clock()
        self._sharded = any(not is_local(p) for p in model.parameters())
        self.seconds = 0.0

    def first(self, step: int) -> list[LayerSpectrum]:
        """Return the first round, before training; none where time is shared."""
        self._last_round = step
        return [] if self._plan.budget is not None else self._take(self._round(), step)

    def after(self, step: int) -> list[LayerSpectrum]:
        """Return what is measured after a step; usually nothing."""
        plan = self._plan
        if plan.budget is None:
            if plan.every is None or step - self._last_round < plan.every:
                return []
            self._last_round = step
            return self._take(self._round(), step)
        if not self._queue and (
            not self._costs or plan.every is None or step - self._last_round >= plan.every
        ):
            self._queue.extend(self._round())
            self._last_round = step
        if self._sharded and self._agree is not None:
            if step % AGREE_EVERY:
                return []
            n = self._agree(self._affordable(plan.budget))
        else:
            n = self._affordable(plan.budget)
        return self._take([self._queue.popleft() for _ in range(n)], step)

    def _affordable(self, budget: float) -> int:
        """Return how many of the next layers the time allows: by what they cost the last time."""
        left = budget * (self._clock() - self._started) - self.seconds
        usual = max(self._costs.values(), default=0.0)
        n = 0
        for turn in self._queue:
            left -= self._costs.get(turn.name, usual)
            if left < 0:
                break
            n += 1
            if turn.name not in self._costs:
                break  # what it costs is to be seen first
        return n

    # --- layers ---------------------------------------------------------------------------------

    def _round(self) -> list[_Turn]:
        """Return all layers; those that are frozen only once."""
        if self._sharded:
            turns = [
                (p.requires_grad, _Turn(name, _Gathered(name, p)))
                for name, p in self._model.named_parameters()
                if p.dim() >= 2 and p.is_floating_point()
            ]
        else:
            trainable = {name: p.requires_grad for name, p in self._model.named_parameters()}
            turns = [
                (trainable.get(layer.key, True), _Turn(layer.name, _Whole(layer)))
                for layer in open_weights(self._model).layers
            ]
        new = [turn for trains, turn in turns if trains or turn.name not in self._frozen_done]
        self._frozen_done |= {turn.name for trains, turn in turns if not trains}
        return new

    def _take(self, turns: Sequence[_Turn], step: int) -> list[LayerSpectrum]:
        rows: list[LayerSpectrum] = []
        # What is sharded is gathered one by one: all of it has no room on one device.
        for group in [[turn] for turn in turns] if self._sharded else [turns] if turns else []:
            began = self._clock()
            layers = [layer for turn in group for layer in turn.layers()]
            if self._measures:
                rows += measured(layers, step)
            took = self._clock() - began
            self.seconds += took
            for turn in group:
                self._costs[turn.name] = took / len(group)
        return rows


@dataclass(frozen=True)
class _Whole:
    layer: Layer

    def __call__(self) -> Sequence[Layer]:
        return (self.layer,)


@dataclass(frozen=True)
class _Gathered:
    """A tensor whose parts are in several processes: each of them takes part in the gathering."""

    name: str
    parameter: Any

    def __call__(self) -> Sequence[Layer]:
        with torch.no_grad():
            whole = self.parameter
            if not is_local(whole):
                whole = cast(Any, whole).full_tensor()
            return open_weights({self.name: whole.detach()}).layers


def measured(layers: Sequence[Layer], step: int) -> list[LayerSpectrum]:
    """Return the numbers of layers; none of a layer that cannot be read or is too small."""
    found: dict[str, LayerReport] = {}
    enough = [layer for layer in layers if _large_enough(layer)]
    suspect = {layer.name for layer in enough if _may_have_traps(layer)}
    for options in (OPTIONS, WITH_TRAPS):
        own = [x for x in enough if (x.name in suspect) == options.randomize]
        rows = outcomes(own, options, None, None, ignore)
        found |= {row.name: row for row in rows if isinstance(row, LayerReport)}
    return [spectrum_of(found[x.name], step) for x in enough if x.name in found]


def _large_enough(layer: Layer) -> bool:
    _, M, rf = matrix_shape(layer)
    return M * rf >= OPTIONS.min_evals


def _may_have_traps(layer: Layer) -> bool:
    """Tell whether the entries of a layer can make a strong trap: by their mean, or by a few.

    In random order, the largest singular value is at most that of the mean, which is
    ``|mean| sqrt(N M)``, plus that of the rest, which has the edge ``std (sqrt(N) + sqrt(M))`` and
    exceeds it by no more than a few of its largest entries (Bandeira, van Handel, Annals of
    Probability 44, 2016). To permute a layer costs more than all else.
    """
    try:
        W = layer.load()
    except PyspectraError:
        return False
    values = W.data if W.dtype in ("float32", "float64") else W.to_float64()
    N, M, _ = matrix_shape(layer)
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    flat = values.reshape(-1)
    # A product of the array with itself takes a fifth of the time of its standard deviation, and is
    # as good for a bound: the spread is compared with a mean or an entry of its own size.
    std = math.sqrt(max(float(flat @ flat) / flat.size - mean**2, 0.0))
    edge = std * (math.sqrt(N) + math.sqrt(M))
    largest = max(high - mean, mean - low)
    # A trap that rules tell of has many times the eigenvalue of the edge; NaN is none.
    return abs(mean) * math.sqrt(N * M) + OUTLIERS * largest > edge


def spectrum_of(row: LayerReport, step: int) -> LayerSpectrum:
    """Return what is followed over time of a row of a report."""
    error = THRESHOLDS.errors * row.fit.alpha_stderr
    metrics = row.metrics
    shuffled = row.randomized
    return LayerSpectrum(
        step=step,
        name=row.label,
        N=row.esd.N,
        M=row.esd.M,
        alpha=row.alpha,
        alpha_low=row.alpha - error,
        alpha_high=row.alpha + error,
        n_tail=row.n_tail,
        n_evals=len(row.esd.evals),
        stable_rank=float(metrics.get("stable_rank", math.nan)),
        spectral_norm=float(metrics.get("spectral_norm", math.nan)),
        random_p_value=float(metrics.get("random_p_value", math.nan)),
        n_traps=0 if shuffled is None else int(metrics["n_traps"]),
        trap_strength=math.nan
        if shuffled is None
        else float(shuffled.evals[-1]) / shuffled.mp.spike_threshold,
        kind=row.kind,
    )
