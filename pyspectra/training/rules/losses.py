"""Does the loss get what it expects: probabilities or logits, shapes, class numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra._support.text import counted
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import LossBatches, LossGraph, LossShapes
from pyspectra.training.rules.registry import rule
from pyspectra.types import FloatArray

EXPLAINED = ("not_learning", "plateau", "initial_loss", "vanishing_gradient", "update_ratio",
             "underfitting", "accuracy_paradox", "stopped_early", "zero_gradient")  # fmt: skip


@dataclass(frozen=True)
class LossThresholds:
    """Thresholds of the rules of losses.

    Attributes
    ----------
    sum_tolerance : float
        Probabilities of a row sum to one within this: rounding of float16 rows.
    batches : int
        Batches that must agree. House convention: one batch may look like probabilities by chance.
    least_samples : int
        Outputs between 0 and 1 are taken for a second sigmoid on at least this many samples.
    """

    sum_tolerance: float = 1e-3
    batches: int = 2
    least_samples: int = 64


def softmax_floor(n_classes: int) -> float:
    """Return the least cross-entropy of outputs that went through a softmax before it.

    Notes
    -----
    The best outputs are 1 for the class and 0 for the others:
    ``-ln(e / (e + K - 1)) = ln(e + K - 1) - 1``.
    """
    return math.log(math.e + n_classes - 1) - 1


def _finding(step: int, message: str, *advice: str, severity: str = "error",
             value: float | None = None, **evidence: object) -> Finding:  # fmt: skip
    return Finding(
        code="loss_input",
        severity=severity,
        where="outputs",
        step=step,
        value=value,
        message=message,
        advice=advice,
        evidence=evidence,
    )


def _softmax_twice(step: int, n_classes: int | None) -> Finding:
    floor = None if n_classes is None else softmax_floor(n_classes)
    limit = (
        "" if floor is None else f": the loss cannot fall below {floor:.4f} for {n_classes} classes"
    )
    return _finding(
        step,
        "Outputs are already probabilities (rows sum to 1); CrossEntropyLoss applies softmax "
        f"again{limit}.",
        "return logits and leave the softmax to the loss",
        "or use NLLLoss on log_softmax",
        value=floor,
        problem="softmax_twice",
        floor=floor,
        n_classes=n_classes,
    )


def _sigmoid_twice(step: int) -> Finding:
    return _finding(
        step,
        "Outputs lie between 0 and 1 already; BCEWithLogitsLoss applies a sigmoid again.",
        "return logits and leave the sigmoid to the loss",
        "or use BCELoss",
        problem="sigmoid_twice",
        severity="warning",
    )


@rule("D05", "loss_input", needs=LossGraph, explains=EXPLAINED)
def loss_input_of_graph(facts: LossGraph, thresholds: LossThresholds) -> Iterator[Finding]:
    """The operation before the loss is one that the loss applies by itself.

    The rule reads the graph, so that it needs neither outputs nor targets.
    """
    if facts.kind == "cross_entropy" and "softmax" in facts.before:
        yield _softmax_twice(facts.step, facts.n_classes)
    if facts.kind == "bce_logits" and "sigmoid" in facts.before:
        yield _sigmoid_twice(facts.step)
    if facts.kind == "cross_entropy" and "log_softmax" in facts.before:
        yield _log_softmax_twice(facts.step)
    if facts.kind == "nll" and "softmax" in facts.before:
        yield _log_missing(facts.step, "softmax, not log_softmax, was")
    if facts.over_batch:
        yield _over_the_batch_finding(facts.step)
    if facts.kind == "cross_entropy" and facts.before and facts.before[0] in _CUT:
        yield _cut_scores(facts.step, facts.before[0])


@rule("D08d", "loss_sign", needs=LossGraph, severity="warning",
      explains=(*EXPLAINED, "divergence", "not_comparable"))  # fmt: skip
def wrong_sign(facts: LossGraph, thresholds: LossThresholds) -> Iterator[Finding]:
    """The negative of a loss of the model's own output is minimised, or the loss is maximised."""
    kind = facts.negated or facts.kind
    if kind is None or (facts.negated is not None) == facts.maximized:
        return
    how = "its negative is minimised" if facts.negated else "the optimizer maximises it"
    yield Finding(
        code="loss_sign",
        severity="warning",
        where="loss",
        step=facts.step,
        message=f"The loss is {kind} of the model's outputs, but {how}: training makes it worse.",
        advice=(
            "remove the minus sign before the loss",
            "remove maximize=True from the optimizer",
            "where a model is to unlearn, Watch(ignore={'loss_sign'})",
        ),
    )


_CUT = {"sigmoid": "between 0 and 1", "tanh": "between -1 and 1", "relu": "at 0 or above"}


def _cut_scores(step: int, operation: str) -> Finding:
    return _finding(
        step,
        f"The scores given to CrossEntropyLoss come from {operation}, which holds them "
        f"{_CUT[operation]}: no class can be sure, or ruled out.",
        f"leave {operation} after the last layer out: the loss applies a softmax by itself",
        "use BCEWithLogitsLoss where several classes may hold at once",
        severity="warning",
        problem=f"{operation}_before_softmax",
    )


def _log_softmax_twice(step: int) -> Finding:
    return _finding(
        step,
        "Outputs are log-probabilities already; CrossEntropyLoss applies log_softmax again, which "
        "changes nothing.",
        "use NLLLoss, or return logits",
        severity="info",
        problem="log_softmax_twice",
    )


def _log_missing(step: int, got: str) -> Finding:
    return _finding(
        step,
        f"NLLLoss expects log-probabilities, but {got} given to it.",
        "apply log_softmax before NLLLoss",
        "or use CrossEntropyLoss on logits",
        problem="log_softmax_missing",
    )


@rule("D05", "loss_input", needs=LossBatches, explains=EXPLAINED)
def loss_input(facts: LossBatches, thresholds: LossThresholds) -> Iterator[Finding]:
    """Outputs or targets are not what the loss expects, by their values in each of two batches."""
    check = _CHECKS.get(facts.kind)
    if check is None or len(facts.outputs) < thresholds.batches:
        return
    yield from check(facts, thresholds)
    yield from _labels(facts)


def _labels(facts: LossBatches) -> Iterator[Finding]:
    if facts.kind not in ("cross_entropy", "nll") or not facts.targets:
        return
    n_classes = facts.outputs[0].shape[1] if facts.outputs[0].ndim > 1 else 0
    labels = [t for t in facts.targets if t.dtype.kind in "iu"]
    outside = sum(int(((t < 0) | (t >= n_classes)).sum() - (t == -100).sum()) for t in labels)
    if labels and outside > 0 and n_classes:
        yield _finding(
            facts.step,
            f"{counted(outside, 'label lies', 'labels lie')} outside 0 to {n_classes - 1}, the "
            "range of the outputs.",
            "count classes from 0",
            "give the last layer as many outputs as there are classes",
            value=float(outside),
            problem="label_out_of_range",
        )


def _sums_to_one(outputs: FloatArray, axis: int, tolerance: float) -> bool:
    inside = bool(((outputs >= -1e-6) & (outputs <= 1 + 1e-6)).all())
    return inside and bool((np.abs(outputs.sum(axis) - 1) < tolerance).all())


def _matrices(facts: LossBatches) -> list[FloatArray]:
    return [o for o in facts.outputs if o.ndim == 2 and o.size]


def _check_cross_entropy(facts: LossBatches, thresholds: LossThresholds) -> Iterator[Finding]:
    batches = _matrices(facts)
    if len(batches) < thresholds.batches:
        return
    tolerance = thresholds.sum_tolerance
    k = batches[0].shape[1]
    if k == 1:
        yield _finding(
            facts.step,
            "There is one output for each sample, and the softmax of one number is always 1: the "
            "loss is constant.",
            "use BCEWithLogitsLoss for one output",
            "or give the last layer one output for each class",
            problem="softmax_of_one",
        )
    elif all(_sums_to_one(o, 1, tolerance) for o in batches):
        yield _softmax_twice(facts.step, k)
    elif all(_over_the_batch(o, tolerance) for o in batches):
        yield _over_the_batch_finding(facts.step)
    elif all(_are_log_probabilities(o, tolerance) for o in batches):
        yield _log_softmax_twice(facts.step)


def _over_the_batch(outputs: FloatArray, tolerance: float) -> bool:
    return len(outputs) > 1 and _sums_to_one(outputs, 0, tolerance)


def _over_the_batch_finding(step: int) -> Finding:
    return _finding(
        step,
        "The softmax runs over the batch: columns sum to 1, rows do not.",
        "apply it over the classes, dim=1",
        "return logits where the loss is CrossEntropyLoss",
        problem="softmax_over_batch",
    )


def _are_log_probabilities(outputs: FloatArray, tolerance: float) -> bool:
    with np.errstate(over="ignore"):
        sums = np.exp(outputs).sum(1)
    return bool((outputs <= 1e-6).all()) and bool((np.abs(sums - 1) < tolerance).all())


def _check_nll(facts: LossBatches, thresholds: LossThresholds) -> Iterator[Finding]:
    batches = _matrices(facts)
    if len(batches) < thresholds.batches:
        return
    tolerance = thresholds.sum_tolerance
    over_batch = all(
        len(o) > 1 and (o <= 1e-6).all() and (np.abs(np.exp(o).sum(0) - 1) < tolerance).all()
        for o in batches
    )
    if over_batch:
        yield _over_the_batch_finding(facts.step)
    elif not any(_are_log_probabilities(o, tolerance) for o in batches):
        if all(_sums_to_one(o, 1, tolerance) for o in batches):
            yield _log_missing(facts.step, "probabilities were")
        else:
            yield _log_missing(facts.step, "values that do not sum to 1 as probabilities were")


def _check_bce(facts: LossBatches, thresholds: LossThresholds) -> Iterator[Finding]:
    lowest = min(float(o.min()) for o in facts.outputs)
    highest = max(float(o.max()) for o in facts.outputs)
    if lowest < 0 or highest > 1:
        yield _finding(
            facts.step,
            f"BCELoss expects probabilities, but outputs range from {lowest:.3g} to {highest:.3g}.",
            "use BCEWithLogitsLoss",
            "or apply a sigmoid before the loss",
            problem="not_probabilities",
        )
    yield from _softmax_of_one(facts)


def _softmax_of_one(facts: LossBatches) -> Iterator[Finding]:
    if all(o.size > 1 and bool((o == 1.0).all()) for o in facts.outputs):
        yield _finding(
            facts.step,
            "Every output is exactly 1, as of a softmax over a dimension of size 1.",
            "use a sigmoid for one output, or return logits",
            problem="softmax_of_one",
        )


def _check_bce_logits(facts: LossBatches, thresholds: LossThresholds) -> Iterator[Finding]:
    values = np.concatenate([o.ravel() for o in facts.outputs])
    inside = bool(((values >= 0) & (values <= 1)).all())
    both_sides = bool((values < 0.5).any() and (values > 0.5).any())
    if inside and both_sides and values.size >= thresholds.least_samples:
        yield _sigmoid_twice(facts.step)


_CHECKS: dict[str, Callable[[LossBatches, LossThresholds], Iterator[Finding]]] = {
    "cross_entropy": _check_cross_entropy,
    "nll": _check_nll,
    "bce": _check_bce,
    "bce_logits": _check_bce_logits,
}


def _broadcast(step: int, a: tuple[int, ...], b: tuple[int, ...] | None,
               c: tuple[int, ...]) -> Finding:  # fmt: skip
    against = "" if b is None else f" against targets of {b}"
    return Finding(
        code="loss_broadcast",
        severity="error",
        where="loss",
        step=step,
        message=(
            f"Predictions of shape {a}{against} are broadcast to {c}: the loss averages over all "
            "pairs."
        ),
        advice=("squeeze(-1) the predictions", "or unsqueeze(-1) the targets"),
        evidence={"prediction": a, "target": b, "result": c},
    )


@rule("D08a", "loss_broadcast", needs=LossShapes, explains=EXPLAINED)
def loss_broadcast(facts: LossShapes, thresholds: LossThresholds) -> Iterator[Finding]:
    """Predictions and targets of an elementwise loss differ in shape and broadcast."""
    if facts.kind not in ("mse", "l1", "smooth_l1", "huber", "bce_logits"):
        return
    if facts.prediction != facts.target:
        try:
            result = np.broadcast_shapes(facts.prediction, facts.target)
        except ValueError:  # torch refuses it as well
            return
        if () not in (facts.prediction, facts.target):
            yield _broadcast(facts.step, facts.prediction, facts.target, result)


@rule("D08a", "loss_broadcast", needs=LossGraph, explains=EXPLAINED)
def loss_broadcast_of_graph(facts: LossGraph, thresholds: LossThresholds) -> Iterator[Finding]:
    """The graph of the loss expands its predictions."""
    if facts.expanded is not None:
        before, after = facts.expanded
        yield _broadcast(facts.step, before, None, after)
