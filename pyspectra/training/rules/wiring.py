"""Is the loop wired up: gradients cleared, parameters given to the optimizer, steps that move them.

These rules are exact: what they find is wrong whatever the model and the data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pyspectra._support.text import counted
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Backwards, Parameters, RecentSteps, StepMode, TensorStep
from pyspectra.training.rules.learning import LearningThresholds, is_stuck
from pyspectra.training.rules.registry import listed, rule

NOT_LEARNING = ("not_learning", "plateau", "vanishing_gradient", "update_ratio", "stopped_early")

IN_LISTS = "hold layers in nn.ModuleList: parameters() does not see those in plain lists"


@dataclass(frozen=True)
class WiringThresholds(LearningThresholds):
    """Thresholds of the rules of wiring.

    Attributes
    ----------
    consecutive_steps : int
        Steps in a row without a gradient or a change. Three, since the gradient of LoRA's A is
        zero in the first step, when B is zero; SageMaker Debugger's UnchangedTensor waits for
        three, too.
    frozen_share : float
        A note is made where a smaller share of the elements is trainable. House convention.
    felt : float
        A step has no effect where rate times gradient exceeds this share of the weights and they do
        not move: float32 rounds below 6e-8.
    """

    consecutive_steps: int = 3
    frozen_share: float = 0.01
    felt: float = 1e-6


@rule("D01", "stale_gradient", needs=Backwards, explains=("exploding_gradient", "oscillation",
      "divergence", "loss_spike", "update_ratio", "not_learning"))  # fmt: skip
def stale_gradient(facts: Backwards, thresholds: WiringThresholds) -> Iterator[Finding]:
    """Gradients of the step before were not cleared.

    Between two steps of an optimizer at least one backward pass must find ``.grad`` empty. The
    first interval has no step before it, and gradient accumulation has its first pass.
    """
    if facts.step >= 2 and 0 < facts.n_backwards == facts.n_stale:
        yield Finding(
            code="stale_gradient",
            severity="error",
            step=facts.step,
            value=float(facts.n_stale),
            threshold=0.0,
            message=(
                "Gradients of the previous step were still in `.grad` when backward ran; step "
                f"{facts.step} applied their sum."
            ),
            advice=(
                "call optimizer.zero_grad() once for each step",
                "where gradients are accumulated on purpose, step once for several backward passes",
            ),
            evidence={"backward_passes": facts.n_backwards, "parameter": facts.parameter},
        )


@rule("D02", "parameter_not_optimized", needs=Parameters, explains=NOT_LEARNING)
def parameter_not_optimized(facts: Parameters, thresholds: WiringThresholds) -> Iterator[Finding]:
    """Trainable parameters are in no group of the optimizer."""
    lost = [row for row in facts.rows if row.trainable and not row.optimized]
    if lost:
        names = [row.name for row in lost]
        hidden = all(row.hidden for row in lost)
        yield Finding(
            code="parameter_not_optimized",
            # A network of another kind may stand in a list on purpose.
            severity="warning" if hidden else "error",
            where=names[0] if len(names) == 1 else None,
            step=facts.step,
            value=float(len(lost)),
            threshold=0.0,
            message=(
                f"{counted(len(lost), 'trainable tensor is', 'trainable tensors are')} in no "
                f"parameter group and will never change: {listed(names)}."
            ),
            advice=(
                *((IN_LISTS,) if hidden else ()),
                "build the optimizer after replacing a head and after `.to()`",
                "add them with optimizer.add_param_group()",
                "call requires_grad_(False) on them if they are meant to stay",
            ),
            evidence={"names": tuple(names), "elements": sum(row.n for row in lost)},
        )


@rule("D03", "no_gradient", needs=RecentSteps, explains=NOT_LEARNING)
def no_gradient(facts: RecentSteps, thresholds: WiringThresholds) -> Iterator[Finding]:
    """Parameters of the optimizer are not connected to the loss."""
    k = thresholds.consecutive_steps
    lost = _in_each(facts, k, lambda t: t.statistics is None)
    if lost:
        names = [t.name for t in lost]
        yield Finding(
            code="no_gradient",
            severity="info" if all(t.sparse for t in lost) else "error",
            where=names[0] if len(names) == 1 else None,
            step=facts.step,
            value=float(len(names)),
            threshold=0.0,
            message=(
                f"{counted(len(names), 'tensor', 'tensors')} of the optimizer got no gradient in "
                f"{k} consecutive steps: {listed(names)}."
            ),
            advice=(
                "is it used in forward, and does the loss depend on it",
                "look for detach(), .item(), numpy() or no_grad() between it and the loss",
                "call requires_grad_(False) on it if it is not meant to be trained",
            ),
            evidence={"names": tuple(names)},
        )


@rule("D03", "zero_gradient", needs=RecentSteps, explains=NOT_LEARNING)
def zero_gradient(facts: RecentSteps, thresholds: WiringThresholds) -> Iterator[Finding]:
    """The gradient of whole matrices is exactly zero, step after step."""
    k = thresholds.consecutive_steps
    lost = _in_each(
        facts,
        k,
        lambda t: len(t.shape) >= 2 and t.statistics is not None and t.statistics.grad_norm == 0.0,
    )
    if lost:
        names = [t.name for t in lost]
        yield Finding(
            code="zero_gradient",
            severity="info" if all(t.sparse for t in lost) else "error",
            where=names[0] if len(names) == 1 else None,
            step=facts.step,
            value=0.0,
            threshold=0.0,
            message=(
                f"The gradient of {counted(len(names), 'matrix was', 'matrices was')} exactly zero "
                f"in {k} consecutive steps: {listed(names)}."
            ),
            advice=(
                *(("lower the learning rate: it was not zero before",) if facts.step > 10 else ()),
                "initialise with He's scheme if weights start at zero or constant before a ReLU",
                "look for units that are all dead, or saturated to the last bit, after them",
                "look for detach(), rounding or argmax between them and the loss",
            ),
            evidence={"names": tuple(names)},
        )


@rule("D04", "step_has_no_effect", needs=RecentSteps, explains=NOT_LEARNING)
def step_has_no_effect(facts: RecentSteps, thresholds: WiringThresholds) -> Iterator[Finding]:
    """The gradient is not zero, the learning rate is not zero, and the weights do not change."""
    k = thresholds.consecutive_steps

    def stuck(t: TensorStep) -> bool:
        s = t.statistics
        return (
            s is not None
            and not t.masked
            and t.lr > 0
            and s.n_non_finite == 0
            and s.grad_norm > 0
            and s.update_norm == 0
            # A step that is below the rounding of the weights is a small one, not a missing one.
            and t.lr * s.grad_norm > thresholds.felt * s.param_norm
            and t.dtype in ("float32", "float64")
        )

    lost = _in_each(facts, k, stuck)
    if lost:
        names = [t.name for t in lost]
        worst = lost[0].statistics
        assert worst is not None
        yield Finding(
            code="step_has_no_effect",
            severity="error",
            where=names[0] if len(names) == 1 else None,
            step=facts.step,
            value=0.0,
            threshold=0.0,
            message=(
                f"The gradient of {names[0]} is {worst.grad_norm:.3g}, but it did not change in "
                f"{k} steps at learning rate {lost[0].lr:g}"
                + (f"; nor did {len(names) - 1} others." if len(names) > 1 else ".")
            ),
            advice=(
                "build the optimizer after `.to()` and after wrapping: it may hold other tensors",
                "look for steps that are skipped, and for a mask that covers the tensor",
                "compare the learning rate with the precision of the weights",
            ),
            evidence={"names": tuple(names)},
        )


@rule("D04", "almost_all_frozen", needs=Parameters, severity="warning", explains=NOT_LEARNING)
def almost_all_frozen(facts: Parameters, thresholds: WiringThresholds) -> Iterator[Finding]:
    """Next to nothing of the model is trainable: a note, and a warning where nothing is learned."""
    total = sum(row.n for row in facts.rows)
    trainable = [row for row in facts.rows if row.trainable]
    n = sum(row.n for row in trainable)
    if total and n < thresholds.frozen_share * total:
        yield Finding(
            code="almost_all_frozen",
            severity="warning" if is_stuck(facts.curve, thresholds) else "info",
            step=facts.step,
            value=n / total,
            threshold=thresholds.frozen_share,
            message=(
                f"Only {100 * n / total:.2g} % of the elements are trainable: "
                f"{listed(row.name for row in trainable) or 'none'}."
            ),
            advice=("intended for adapters; else unfreeze the head at least",),
            evidence={"names": tuple(row.name for row in trainable)},
        )


@rule("D06b", "eval_mode_at_train", needs=StepMode, severity="warning")
def eval_mode_at_train(facts: StepMode, thresholds: WiringThresholds) -> Iterator[Finding]:
    """The optimizer stepped while the whole model was in evaluation mode."""
    if not facts.training and facts.dependent:
        yield Finding(
            code="eval_mode_at_train",
            severity="warning",
            step=facts.step,
            message=(
                "The optimizer stepped while the model was in eval mode, in which dropout is off "
                f"and batch norm has fixed statistics: {listed(facts.dependent)}."
            ),
            advice=(
                "call model.train() after each evaluation",
                "to freeze batch norm alone, call eval() on those modules only",
            ),
            evidence={"modules": tuple(facts.dependent)},
        )


def _in_each(
    facts: RecentSteps, k: int, holds: Callable[[TensorStep], bool]
) -> Sequence[TensorStep]:
    """Return the tensors of which something holds in each of the last `k` steps."""
    if len(facts.steps) < k:
        return ()
    found = [t for t in facts.steps[-1] if holds(t)]
    if not found:  # as nearly always
        return ()
    before = [{t.name: t for t in step} for step in facts.steps[-k:-1]]
    return [t for t in found if all(t.name in s and holds(s[t.name]) for s in before)]
