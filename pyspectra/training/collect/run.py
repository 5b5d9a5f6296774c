"""All that is collected of a run, as facts for the rules."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra.training.collect.batches import BatchSums, RowSample
from pyspectra.training.collect.entering import norm_state
from pyspectra.training.collect.forward import (
    ForwardCollector,
    classes_last,
    first_tensor,
    unwrapped,
)
from pyspectra.training.collect.gradients import StaleGradients
from pyspectra.training.collect.graph import entrance, loss_graph
from pyspectra.training.collect.initial import (
    hidden_parameters,
    parameters_of,
    weight_summaries,
    with_activations,
)
from pyspectra.training.collect.losses import (
    ScalarBuffer,
    Targets,
    finite_mark,
    first_non_finite,
    loss_batches,
)
from pyspectra.training.collect.origin import origin
from pyspectra.training.collect.steps import StepCollector, bad_gradient, without_gradient
from pyspectra.training.processes import Alone
from pyspectra.training.rules import facts as f
from pyspectra.training.rules.splits import agreement
from pyspectra.types import FloatArray, StepStatistics

FIRST_STEPS = 4
KEPT_CHECKS = 100
LEAST_EPOCHS = 5
LEAST_STEPS = 200
LABEL_EPOCHS = 3
COUNT_EVERY = 5
"""Steps between two looks at activations, at least, where steps are looked at more often."""


@dataclass(frozen=True)
class Plan:
    """When a run is looked at, and what is known of it beforehand.

    Attributes
    ----------
    every : int
        Steps between two looks at all parameters.
    steps_per_epoch : int or None
    warmup : int
        Steps in which no statistical rule speaks.
    pretrained : bool
    ignore_params, sparse : tuple of str
        As for `Watch`.
    """

    every: int
    steps_per_epoch: int | None
    warmup: int
    pretrained: bool
    ignore_params: tuple[str, ...]
    sparse: tuple[str, ...]

    def looks_at(self, step: int) -> bool:
        """Tell whether a step is one that is looked at: closely at first."""
        return step <= FIRST_STEPS or (step <= 100 and step % 10 == 0) or step % self.every == 0


class RunCollector:
    """The collectors of one run.

    Parameters
    ----------
    model : torch.nn.Module
    optimizers : list of torch.optim.Optimizer
    kind : str or None
        Kind of the loss, if it was given.
    plan : Plan
    processes : Alone or Group, optional
        The processes among which parameters may be sharded.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: list[Any],
        kind: str | None,
        plan: Plan,
        processes: Alone | None = None,
    ) -> None:
        self.model, self.kind, self.plan, self._optimizers = model, kind, plan, optimizers
        names = {id(p): name for name, p in unwrapped(model).named_parameters()}
        self.step = self._n_epochs = 0
        self._epoch_steps = plan.steps_per_epoch
        self._rising = False
        self._checks: list[deque[f.StepRows]] = [deque(maxlen=KEPT_CHECKS) for _ in optimizers]
        self._n_warm = [0 for _ in optimizers]
        self._gradient_norms: deque[float] = deque(maxlen=KEPT_CHECKS)
        self._buffer = ScalarBuffer("loss", "inputs", "targets", "outputs")
        self._targets = Targets()
        self._sums, self._rows = BatchSums(), RowSample()
        self._batches: list[tuple[Any, Any]] = []
        self._graph: f.LossGraph | None = None
        self._reported_non_finite = False
        self._origin: f.NonFinite | None = None
        self._agreement: float | None = None
        self._learning_rates: deque[float] = deque(maxlen=KEPT_CHECKS)
        self._stale = [StaleGradients(o, names) for o in optimizers]
        self._collectors = [
            StepCollector(o, names, plan.looks_at, plan.sparse, processes) for o in optimizers
        ]
        self._backwards: list[f.Backwards] = []
        self._modes: list[f.StepMode] = []
        self._step_handles = [
            o.register_step_post_hook(self._after_step(k)) for k, o in enumerate(optimizers)
        ]
        self._step_handles += [o.register_step_pre_hook(self._before_step) for o in optimizers]
        self.forward = ForwardCollector(model, names, self._counts_now, self._due)
        self._parameters = parameters_of(unwrapped(model), optimizers, plan.ignore_params, 0)
        first: list[object] = [self._parameters]
        self._initial = weight_summaries(unwrapped(model))
        first.append(f.InitialWeights(0, self._initial))
        self.pending = first

    # --- when to look ---------------------------------------------------------------------------

    def _done(self) -> int:
        """Steps of the optimizer that has made the most."""
        return max(c.n_steps for c in self._collectors)

    def _samples_now(self) -> bool:
        return self._done() % max(1, self.plan.every // 5) == 0

    def _counts_now(self) -> bool:
        return self._done() % max(COUNT_EVERY, self.plan.every // 5) == 0

    def _due(self) -> bool:
        return self.plan.looks_at(self._done() + 1)

    def _before_step(self, *_: Any) -> None:
        """Find where a NaN comes from while the weights are still those that made it."""
        mark, self.forward.mark = self.forward.mark, None
        if mark is None or self._reported_non_finite or self._origin is not None:
            return
        if not bool(torch.isfinite(mark)):
            self._origin = origin(self.model, self.forward, self._done() + 1)

    def _after_step(self, k: int) -> Any:
        def after(*_: Any) -> None:
            collector, stale = self._collectors[k], self._stale[k]
            self._backwards += stale.taken(collector.n_steps)
            ahead = collector.n_steps + 1
            stale.active = ahead <= 10 or ahead % self.plan.every == 0
            if not self.model.training and self.forward.dependent:
                self._modes.append(f.StepMode(collector.n_steps, False, self.forward.dependent))

        return after

    # --- the loop -------------------------------------------------------------------------------

    def batch(
        self, loss: Any, inputs: Any, targets: Any, outputs: Tensor | None, given: bool
    ) -> None:
        """Look at a batch that is done; `given` says that the loop itself handed the outputs on."""
        self.step = self._done()
        inputs = first_tensor(self.forward.inputs if inputs is None else inputs)
        self._sums.add(inputs)
        self._buffer.add(
            loss=loss,
            inputs=finite_mark(inputs),
            targets=finite_mark(targets),
            outputs=finite_mark(outputs),
        )
        if self._graph is None and isinstance(loss, Tensor) and loss.grad_fn is not None:
            self._graph = loss_graph(loss, self.step, self.forward.output_node, self._optimizers)
            self.kind = self.kind or self._graph.kind
            self.pending.append(self._graph)
        if self.plan.looks_at(self.step) or self._samples_now():
            self._targets.add(targets)
            if self._n_epochs == 0:
                self._rows.add(inputs, targets)
        if len(self._batches) < 2 and outputs is not None:
            self._batches.append((outputs.detach(), targets))
            # Outputs may be changed by the loop before the loss; a loss without a graph was named.
            traced = isinstance(loss, Tensor) and loss.grad_fn is not None
            how = entrance(loss, outputs) if traced else "same"
            if not given or self.kind is None or how is None:
                return
            if len(self._batches) == 2:
                self.pending.append(loss_batches(self.step, self.kind, self._batches))
            if isinstance(targets, Tensor) and how == "same":
                shapes = tuple(outputs.shape), tuple(targets.shape)
                self.pending.append(f.LossShapes(self.step, self.kind, *shapes))

    def take(self) -> list[object]:
        """Return the facts since the last call; those of a step that was looked at among them."""
        facts: list[object] = [*self.pending, *self._backwards, *self._modes[:1]]
        self.pending, self._backwards, self._modes = [], [], []
        taken = [c.take() for c in self._collectors]
        for k, rows in enumerate(taken):
            if rows is not None:
                self._checks[k].append(rows)
                self._n_warm[k] += self.step > self.plan.warmup
        if any(rows is not None for rows in taken):
            facts += self._check(taken)
        return facts

    def end_epoch(self, least_samples: int, least_batches: int) -> list[object]:
        """Return the facts of an epoch; counters of units go on until they have seen enough."""
        self._buffer.fetch()
        losses = self._buffer["loss"]
        self._n_epochs += 1
        self._epoch_steps = self.plan.steps_per_epoch or self.step // self._n_epochs
        curve = self._curve(losses)
        activations = self.forward.activations
        facts = [*self.take(), *activations.units(self.step, curve), curve]
        facts.append(dataclasses.replace(self._parameters, curve=curve))
        known = self._sums.taken(self.step), *self._of_data()
        facts += [x for x in known if x is not None]
        if activations.n_batches >= least_batches and activations.n_samples >= least_samples:
            facts.append(activations.scales(self.step))
            activations.reset()
        return facts

    def _of_data(self) -> list[object | None]:
        """Return what is known by now of inputs and targets."""
        graph, seen = self._graph, self.forward
        known: list[object | None] = [
            seen.activations.first_inputs(self.step),
            seen.entering.taken(self.step),
            norm_state(unwrapped(self.model), self.step),
        ]
        if graph is not None and graph.kind in ("mse", "l1", "smooth_l1", "huber") and graph.before:
            known.append(self._targets.beyond(self.step, graph.before[0]))
        elif self.kind in ("cross_entropy", "nll"):
            known.append(self._targets.order(self.step))
        return known

    def dynamics(self) -> dict[str, Any]:
        """Return the learning rate and, of a step that was looked at, how large it was."""
        rate = self._collectors[0].optimizer.param_groups[0].get("lr")
        values = {} if rate is None else {"lr": rate}
        rows = [t.statistics for c in self._collectors for t in c.peek() or () if t.statistics]
        if rows:
            weights = math.hypot(*(s.param_norm for s in rows))
            values["grad_norm"] = math.hypot(*(s.grad_norm for s in rows))
            if weights > 0:
                updates = (s.update_norm for s in rows if _is_known(s))
                values["update_ratio"] = math.hypot(*updates) / weights
        return values

    def last_slope(self) -> float | None:
        """Return the gradient times the update of the last step; None if it was not looked at."""
        rows = [t for c in self._collectors for t in c.peek() or ()]
        known = [t.statistics for t in rows if t.statistics is not None and _is_known(t.statistics)]
        dots = [s.grad_dot_update for s in known]
        return float(sum(dots)) if dots else None

    def labels(self, curves: f.Curves) -> list[object]:
        """Return, after the first epochs, what is known of whether the labels can be learned."""
        if self._n_epochs < LABEL_EPOCHS:
            return []
        if self._n_epochs == LABEL_EPOCHS:
            rows = self._rows.taken()
            self._agreement = None if rows is None else agreement(*rows)
        majority = self._targets.majority
        return [f.LabelEvidence(self.step, curves, majority, self._agreement)]

    @property
    def objective(self) -> bool:
        """Whether the loss is one that is known, and minimised by a single optimizer."""
        return self.kind is not None and len(self._collectors) == 1

    @property
    def baseline(self) -> float | None:
        """Loss of predicting class frequencies, or the mean, of the targets that were seen."""
        return self._targets.baseline(self.kind)

    def close(self) -> None:
        """Remove all hooks."""
        for collector in self._collectors:
            collector.close()
        for stale in self._stale:
            stale.close()
        self.forward.close()
        for handle in self._step_handles:
            handle.remove()

    # --- facts ----------------------------------------------------------------------------------

    def _check(self, taken: Sequence[f.StepRows | None]) -> list[object]:
        self._buffer.fetch()
        losses = self._buffer["loss"]
        facts: list[object] = []
        if not self._reported_non_finite:
            bad = first_non_finite(self._buffer, 1) or bad_gradient(taken, self.step)
            if bad is not None:
                self._reported_non_finite = True
                facts.append(self._named(bad))
        self._rising = self._rates_rise(taken)
        curve = self._curve(losses)
        for checks, n_warm, rows in zip(self._checks, self._n_warm, taken, strict=True):
            if rows is not None:
                facts.append(f.RecentSteps(self.step, list(checks), curve, n_warm))
        facts += [self._norms(taken, curve), curve]
        facts += self._first_checks(losses)
        return facts

    def _named(self, bad: f.NonFinite) -> f.NonFinite:
        """Return it with the module that it came from, where a second pass can tell."""
        if bad.place not in ("outputs", "loss"):
            return bad
        if self._origin is None or self._origin.step > bad.step:
            return bad
        return dataclasses.replace(self._origin, grew=bad.grew)

    def _curve(self, losses: FloatArray) -> f.LossCurve:
        return f.LossCurve(
            losses,
            warmup=self.plan.warmup,
            baseline=self.baseline,
            window=min(max(20, self.plan.every), 100),
            least=LEAST_STEPS if self._n_epochs < LEAST_EPOCHS else LEAST_STEPS // 4,
            rates_rise=self._rising,
            epoch_steps=self._epoch_steps,
        )

    def _first_checks(self, losses: FloatArray) -> list[object]:
        facts: list[object] = []
        seen = self.forward.activations
        if self.step == 1 and seen.follows and not self.plan.pretrained:
            rows = with_activations(self._initial, seen.follows, seen.normalized)
            facts.append(f.InitialWeights(1, rows))
        if self.step == 1 and self.kind == "cross_entropy" and len(losses):
            classes = self._n_classes()
            if classes:
                facts.append(
                    f.InitialLoss(
                        float(losses[0]), classes, self.baseline,
                        self._targets.n, self.plan.pretrained,
                    )
                )  # fmt: skip
        entered = seen.first_inputs(self.step)
        facts += [] if entered is None else [entered]
        if self.step == 3:
            hidden = hidden_parameters(unwrapped(self.model), self._optimizers, self.step)
            facts += [] if hidden is None else [hidden]
            still = without_gradient(self._checks)
            if still:
                facts.append(f.InitialWeights(3, self._initial, still))
            self.forward.keep = False
        return facts

    def _n_classes(self) -> int:
        if self._graph is not None and self._graph.n_classes:
            return self._graph.n_classes
        outputs, targets = self._batches[0] if self._batches else (None, None)
        if outputs is None or outputs.dim() < 2:
            return 0
        scores = classes_last(outputs, targets)
        return int(outputs.shape[1] if scores is None else scores.shape[-1])

    def _rates_rise(self, taken: Sequence[f.StepRows | None]) -> bool:
        rates = [t.lr for rows in taken if rows for t in rows]
        if rates:
            self._learning_rates.append(max(rates))
        known = list(self._learning_rates)
        # A warm-up: what was not learned at small rates says nothing yet.
        return len(known) > 1 and float(np.mean(known)) < 0.5 * max(known) == known[-1] * 0.5

    def _norms(self, taken: Sequence[f.StepRows | None], curve: f.LossCurve) -> f.GradientNorms:
        squares = sum(
            t.statistics.grad_norm**2
            for rows in taken
            if rows
            for t in rows
            if t.statistics is not None
        )
        if self.step > self.plan.warmup:
            self._gradient_norms.append(float(np.sqrt(squares)))
        return f.GradientNorms(self.step, np.asarray(self._gradient_norms, float), curve)


def _is_known(s: StepStatistics) -> bool:
    """Tell whether the update of a parameter was seen: NaN after a gradient of numbers was not."""
    return not (math.isnan(s.update_norm) and math.isfinite(s.grad_norm))
