"""Is the model evaluated as it is used: in evaluation mode, without a graph, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Evaluation, Retained
from pyspectra.training.rules.registry import listed, rule


@dataclass(frozen=True)
class EvaluationThresholds:
    """Thresholds of the rules of evaluation.

    Attributes
    ----------
    repeat_difference : float
        Two passes over one batch agree within this, relative to the largest output: rounding of
        float32 in a fixed order of summation is far below.
    row_difference : float
        A row alone and the same row in a batch agree within this. Looser: another batch size means
        another order of summation, and TF32 or bfloat16 keep three digits.
    """

    repeat_difference: float = 1e-6
    row_difference: float = 1e-2


@rule("D06", "train_mode_at_eval", needs=Evaluation, explains=("suspicious_validation",))
def train_mode_at_eval(facts: Evaluation, thresholds: EvaluationThresholds) -> Iterator[Finding]:
    """Dropout or batch norm were active while the model was evaluated."""
    repeat, rows = _repeats_differ(facts, thresholds), _rows_differ(facts, thresholds)
    if not facts.in_training_mode and (not repeat or facts.draws):
        return  # a model that samples from what it predicts does so in evaluations, too
    names = listed(facts.in_training_mode)
    who = (
        f"{names} {'was' if len(facts.in_training_mode) == 1 else 'were'} in training mode during "
        "evaluation"
        if names
        else "The model is in eval mode, but does not behave so"
    )
    shown = ""
    if repeat:
        shown = f"; two passes over one batch differ by {facts.difference:.2g}"
    elif rows:
        shown = f"; a row alone and in its batch differ by {facts.batch_difference:.2g}"
    yield Finding(
        code="train_mode_at_eval",
        severity="error" if repeat or rows else "warning",
        where=facts.in_training_mode[0] if len(facts.in_training_mode) == 1 else None,
        step=facts.step,
        value=facts.difference if repeat else facts.batch_difference,
        threshold=thresholds.repeat_difference if repeat or not rows else thresholds.row_difference,
        message=f"{who}{shown}.",
        advice=(
            "call model.eval() before evaluation, and model.train() after it",
            "use torch.nn.Dropout modules, or pass training=self.training to the function",
            "Watch(allow={'mc_dropout'}) where dropout is meant to be active",
        ),
        evidence={"modules": tuple(facts.in_training_mode)},
    )


def _repeats_differ(facts: Evaluation, thresholds: EvaluationThresholds) -> bool:
    return facts.difference is not None and facts.difference > thresholds.repeat_difference


def _rows_differ(facts: Evaluation, thresholds: EvaluationThresholds) -> bool:
    by = facts.batch_difference
    return by is not None and by > thresholds.row_difference


@rule("D08b", "batch_mixing", needs=Evaluation, explains=("not_learning", "plateau",
      "labels_carry_no_information", "not_comparable", "initial_loss"))  # fmt: skip
def rows_are_mixed(facts: Evaluation, thresholds: EvaluationThresholds) -> Iterator[Finding]:
    """The output of a row depends on the other rows of its batch."""
    if facts.in_training_mode or _repeats_differ(facts, thresholds) or facts.draws:
        return
    if _rows_differ(facts, thresholds):
        yield Finding(
            code="batch_mixing",
            severity="error",
            where="outputs",
            step=facts.step,
            value=facts.batch_difference,
            threshold=thresholds.row_difference,
            message=(
                "The output of a row depends on the other rows of its batch: alone it differs by "
                f"{facts.batch_difference:.2g}."
            ),
            advice=(
                "check view, reshape and transpose, and batch_first: they may take rows for times",
                "check the dimension of softmax and of normalisations",
                "batch norm without running statistics, or a model that compares rows, does so",
            ),
        )


@rule("D07", "grad_enabled_at_eval", needs=Evaluation, severity="info")
def grad_enabled_at_eval(facts: Evaluation, thresholds: EvaluationThresholds) -> Iterator[Finding]:
    """The loss of an evaluation carries a graph."""
    if facts.loss_has_graph:
        yield Finding(
            code="grad_enabled_at_eval",
            severity="info",
            step=facts.step,
            message="The loss of an evaluation has a graph, which costs memory.",
            advice=("evaluate under torch.no_grad()",),
        )


@rule("D08", "tensor_retained", needs=Retained, severity="warning")
def tensor_retained(facts: Retained, thresholds: EvaluationThresholds) -> Iterator[Finding]:
    """A metric keeps the graph that made it alive."""
    yield Finding(
        code="tensor_retained",
        severity="warning",
        where=facts.name,
        step=facts.step,
        message=(
            f"The metric {facts.name!r} was given with its graph (shape {facts.shape}), which "
            "would grow the memory with each step; it was detached."
        ),
        advice=("give loss.detach() or loss.item()",),
    )
