"""What a classifier says of each class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Array, Augmented, Classes, HeldOut
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class ClassThresholds:
    """Thresholds of the rules of classes.

    Attributes
    ----------
    paradox_accuracy : float
        Below this nobody is deceived by an accuracy. House convention.
    paradox_steps : int
        Steps in which rare classes need not have been found yet.
    paradox_support : int
        Samples of a class that must be there before its recall counts.
    paradox_errors : float
        Standard errors by which an accuracy must exceed the share of the largest class.
    augmented_support : int
        Samples of a class before its recall under augmentation counts.
    augmented_drop : float
        Recall that an augmentation may cost a class. House convention.
    augmented_share : float
        Share of the new errors of a class that go to one other, where the label has changed.
    confident : float
        Probability above which a model is sure, of a sample that it was not trained on.
    contradicted : float
        Share of the sure samples whose label the model contradicts.
    """

    paradox_accuracy: float = 0.8
    paradox_steps: int = 100
    paradox_support: int = 20
    paradox_errors: float = 2.0
    augmented_support: int = 30
    augmented_drop: float = 0.3
    augmented_share: float = 0.5
    confident: float = 0.9
    contradicted: float = 0.05


@rule("D25", "accuracy_paradox", needs=Classes, severity="warning")
def accuracy_paradox(facts: Classes, thresholds: ClassThresholds) -> Iterator[Finding]:
    """The accuracy is high because one class is common, while others are not found."""
    counts = facts.confusion.astype(np.float64)
    support, n = counts.sum(1), counts.sum()
    if n == 0 or (support > 0).sum() < 2 or facts.step < thresholds.paradox_steps:
        return
    accuracy, majority = float(np.trace(counts) / n), float(support.max() / n)
    present = support > 0
    recall = np.divide(np.diag(counts), support, out=np.zeros_like(support), where=present)
    balanced = float(recall[present].mean())
    judged = support >= thresholds.paradox_support
    never = np.flatnonzero(judged & (recall == 0))
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    spread = math.sqrt(sum(r * (1 - r) / s for r, s in zip(recall, support, strict=True) if s > 0))
    k = int(present.sum())
    chance = balanced <= 1 / k + 3 * spread / k
    # The majority's share alone is no evidence where all classes are found.
    common = accuracy <= majority + thresholds.paradox_errors * error and balanced < 0.75
    if accuracy < thresholds.paradox_accuracy or not (chance or len(never) or common):
        return
    if judged.sum() < 2:
        return
    worst = int(np.flatnonzero(judged)[np.argmin(recall[judged])])
    missed = "is never predicted" if recall[worst] == 0 else f"has recall {recall[worst]:.2g}"
    yield Finding(
        code="accuracy_paradox",
        severity="warning",
        where=f"class {worst}",
        step=facts.step,
        value=balanced,
        threshold=1 / k,
        message=(
            f"The accuracy is {accuracy:.3g} and the majority class has {majority:.3g} of the "
            f"samples, but the balanced accuracy is {balanced:.3g}: class {worst} {missed}."
        ),
        advice=(
            "weight the classes in the loss, or sample them evenly",
            "report balanced accuracy and F1",
            "begin with the logarithms of the class shares as the last bias",
        ),
        evidence={"accuracy": accuracy, "majority": majority, "recall": tuple(recall.tolist())},
    )


@rule("D30", "augmentation_changes_label", needs=Augmented, severity="warning")
def augmentation_changes_label(facts: Augmented, thresholds: ClassThresholds) -> Iterator[Finding]:
    """Augmented samples of a class are taken for those of one other class."""
    clean, augmented = facts.clean.astype(np.float64), facts.augmented.astype(np.float64)
    for c in range(len(clean)):
        before, after = clean[c], augmented[c]
        if min(before.sum(), after.sum()) < thresholds.augmented_support:
            continue
        recalls = before[c] / before.sum(), after[c] / after.sum()
        new = np.maximum(after / after.sum() - before / before.sum(), 0.0)
        new[c] = 0.0
        if recalls[0] - recalls[1] < thresholds.augmented_drop or new.sum() == 0:
            continue
        taken = int(np.argmax(new))
        if new[taken] / new.sum() <= thresholds.augmented_share:
            continue
        yield Finding(
            code="augmentation_changes_label",
            severity="warning",
            where=f"class {c}",
            value=recalls[0] - recalls[1],
            threshold=thresholds.augmented_drop,
            message=(
                f"The recall of class {c} falls from {recalls[0]:.2g} to {recalls[1]:.2g} under "
                f"augmentation; {100 * new[taken] / new.sum():.0f} % of the new errors go to class "
                f"{taken}."
            ),
            advice=(f"limit rotations and flips of class {c}", "augment each class by itself"),
            evidence={"taken_for": taken},
        )


@rule("D31", "label_noise", needs=HeldOut, severity="info")
def label_noise(facts: HeldOut, thresholds: ClassThresholds) -> Iterator[Finding]:
    """A model that was not trained on them is sure that some labels are wrong."""
    sure = facts.probabilities.max(1) > thresholds.confident
    if not sure.any():
        return
    wrong = sure & (facts.probabilities.argmax(1) != facts.labels)
    share = float(wrong.sum() / sure.sum())
    if share > thresholds.contradicted:
        yield Finding(
            code="label_noise",
            severity="info",
            where="targets",
            value=share,
            threshold=thresholds.contradicted,
            message=(
                f"Of {int(sure.sum())} samples that the model is sure of, without having been "
                f"trained on them, {int(wrong.sum())} have another label "
                f"({100 * share:.1f} %)."
            ),
            advice=(
                "look at the samples in the evidence, the surest first",
                "hand the probabilities to cleanlab: OutOfFold.to_cleanlab()",
            ),
            evidence={"rows": _surest(facts, wrong)},
        )


def _surest(facts: HeldOut, wrong: Array, most: int = 100) -> tuple[int, ...]:
    rows = np.flatnonzero(wrong)
    order = np.argsort(-facts.probabilities[rows].max(1), kind="stable")
    return tuple(rows[order][:most].tolist())
