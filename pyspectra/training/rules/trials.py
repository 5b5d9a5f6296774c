"""Trials before training: one batch by heart, rows that mix, and how the loss is reduced."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import BatchMixing, InputTrial, OverfitTrial, Reduction
from pyspectra.training.rules.losses import softmax_floor
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class TrialThresholds:
    """Thresholds of the rules of trials.

    Attributes
    ----------
    fitted_share : float
        A batch is known by heart below this share of the first cross-entropy.
    fitted_variance : float
        A batch is known by heart if a squared error is below this share of the targets' variance.
    exploded : float
        A loss that ends at so many times the first one has exploded.
    bouncing : float
        Autocorrelation of the changes of the loss, below which it bounces from step to step.
    ignored_level : float
        Level of Mann and Whitney's test that real inputs are learned otherwise than zeros.
    ignored_share : float
        Share of the losses, at the end, that the test compares.
    """

    fitted_share: float = 0.01
    fitted_variance: float = 1e-3
    exploded: float = 10.0
    bouncing: float = -0.3
    ignored_level: float = 0.01
    ignored_share: float = 0.2


@rule("D08d", "cannot_overfit_one_batch", needs=OverfitTrial, severity="warning")
def cannot_overfit_one_batch(facts: OverfitTrial, thresholds: TrialThresholds) -> Iterator[Finding]:
    """A single batch cannot be learned by heart: the loss rises, explodes, oscillates, plateaus."""
    verdict = overfit_verdict(facts, thresholds)
    if verdict == "fits":
        return
    ascent = verdict == "rises" and facts.slope is not None and facts.slope > 0.5
    first, last = float(facts.losses[0]), float(facts.losses[-1])
    advice = {
        "rises": ("check the sign of the loss, and `maximize`", "check the dimension of softmax",
                  "lower the learning rate"),
        "explodes": ("divide the learning rate by 10", "look for log, exp and divisions",
                     "scale the inputs"),
        "oscillates": ("divide the learning rate by 3", "look for labels that contradict"),
        "plateaus": ("raise the learning rate", "look for parameters without a gradient",
                     "check what the loss expects: logits or probabilities",
                     "take regularisation out"),
    }[verdict]  # fmt: skip
    at_floor = ""
    if verdict == "plateaus" and facts.n_classes and _at_floor(facts):
        floor = softmax_floor(facts.n_classes)
        at_floor = f", the floor {floor:.4f} of a softmax before the cross-entropy"
    how = "; updates follow the gradient upwards" if ascent else ""
    yield Finding(
        code="cannot_overfit_one_batch",
        severity="error" if ascent else "warning",
        where="loss",
        step=len(facts.losses),
        value=last,
        threshold=first * thresholds.fitted_share,
        message=(
            f"Trained on one batch, the loss {verdict}: from {first:.3g} to {last:.3g} in "
            f"{len(facts.losses)} steps{at_floor}{how}."
        ),
        advice=advice,
        evidence={"verdict": verdict, "slope": facts.slope},
    )


def _at_floor(facts: OverfitTrial) -> bool:
    """Tell whether a cross-entropy ends where a softmax before it holds it up."""
    if facts.kind != "cross_entropy" or not facts.n_classes:
        return False
    floor = softmax_floor(facts.n_classes)
    return abs(float(facts.losses[-1]) - floor) < 0.05 * floor


def overfit_verdict(facts: OverfitTrial, thresholds: TrialThresholds) -> str:
    """Return what a loss does on a single batch: one of five words."""
    losses = facts.losses
    first = float(losses[0])
    if not np.isfinite(losses).all() or float(losses[-1]) > thresholds.exploded * abs(first) + 1:
        return "explodes"
    if facts.accuracy == 1.0 and losses[-1] < losses[0] and not _at_floor(facts):
        return "fits"
    tail = losses[-max(len(losses) // 10, 5) :]
    if facts.kind == "mse" and facts.baseline is not None:
        goal = thresholds.fitted_variance * facts.baseline
    else:
        goal = thresholds.fitted_share * abs(first)
    if float(np.median(tail)) <= goal or float(tail.min()) <= goal:
        return "fits"
    half = losses[len(losses) // 2 :]
    noise = float(np.std(np.diff(losses))) if len(losses) > 2 else 0.0
    if float(np.median(tail)) > first + 3 * noise:
        return "rises"
    changes = np.diff(half)
    scatter = float(np.std(changes))
    if len(changes) > 8 and scatter > 0.02 * float(np.median(half)):
        centered = changes - changes.mean()
        lag = float((centered[1:] * centered[:-1]).mean() / max(centered.var(), 1e-300))
        if lag < thresholds.bouncing:
            return "oscillates"
    return "plateaus"


@rule("D08b", "batch_mixing", needs=BatchMixing)
def batch_mixing(facts: BatchMixing, thresholds: TrialThresholds) -> Iterator[Finding]:
    """The output of one row depends on the input of another, in evaluation mode."""
    if facts.row is not None and facts.gradient > 0:
        yield Finding(
            code="batch_mixing",
            severity="error",
            where="outputs",
            value=facts.gradient,
            threshold=0.0,
            message=f"Output 0 depends on input {facts.row} (gradient {facts.gradient:.2g}).",
            advice=(
                "check view, reshape and transpose: they may mix the rows",
                "check the dimension of softmax and of normalisations",
                "ignore it in contrastive models",
            ),
        )


@rule("D08c", "input_ignored", needs=InputTrial, severity="warning")
def input_ignored(facts: InputTrial, thresholds: TrialThresholds) -> Iterator[Finding]:
    """The model learns a batch no otherwise than the same batch with its inputs set to zero.

    TheDeepChecker intends this test, and runs it only where a loss was unstable.
    """
    n = max(int(thresholds.ignored_share * len(facts.real)), 5)
    real, zeroed = facts.real[-n:], facts.zeroed[-n:]
    if min(len(real), len(zeroed)) < 5 or not np.isfinite([*real, *zeroed]).all():
        return
    p = float(stats.mannwhitneyu(real, zeroed, alternative="two-sided", method="asymptotic").pvalue)
    if p > thresholds.ignored_level:
        yield Finding(
            code="input_ignored",
            severity="warning",
            where="inputs",
            value=p,
            threshold=thresholds.ignored_level,
            message=(
                f"Trained on one batch the loss comes to {np.median(real):.3g}, and to "
                f"{np.median(zeroed):.3g} with all inputs at zero: the inputs make no difference "
                f"(p = {p:.2g})."
            ),
            advice=(
                "is the input used in forward, or overwritten",
                "look for units that are dead from the first layer on",
                "look for inputs that the preprocessing makes constant",
            ),
        )


@rule("D11", "loss_reduction", needs=Reduction, severity="info")
def loss_reduction(facts: Reduction, thresholds: TrialThresholds) -> Iterator[Finding]:
    """The loss is a sum over the batch, not a mean."""
    if not (math.isfinite(facts.once) and math.isfinite(facts.twice)) or facts.once == 0:
        return
    ratio = facts.twice / facts.once
    if abs(ratio - 2) < 0.01:
        yield Finding(
            code="loss_reduction",
            severity="info",
            where="loss",
            value=ratio,
            threshold=1.0,
            message="The loss doubles with the batch: it is a sum, not a mean.",
            advice=("use reduction='mean'", "or divide the learning rate by the batch size"),
        )
