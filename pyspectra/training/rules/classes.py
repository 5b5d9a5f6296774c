"""What a classifier says of each class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Classes
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class ClassThresholds:
    """Thresholds of the rules of classes.

    Attributes
    ----------
    paradox_accuracy : float
        Below this nobody is deceived by an accuracy. House convention.
    paradox_support : int
        Samples of a class that must be there before its recall counts.
    paradox_errors : float
        Standard errors that an accuracy exceeds the share of the largest class by.
    """

    paradox_accuracy: float = 0.8
    paradox_support: int = 20
    paradox_errors: float = 2.0


@rule("D25", "accuracy_paradox", needs=Classes, severity="warning")
def accuracy_paradox(facts: Classes, thresholds: ClassThresholds) -> Iterator[Finding]:
    """The accuracy is high because one class is common, while others are not found."""
    counts = facts.confusion.astype(np.float64)
    support, n = counts.sum(1), counts.sum()
    if n == 0 or (support > 0).sum() < 2:
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
