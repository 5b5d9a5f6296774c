"""Labels: their format and what they tell; rows of validation that training has seen."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyspectra._support.random import Purpose, generator
from pyspectra._support.text import counted
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import Array, LabelEvidence, Labels, Split
from pyspectra.training.rules.registry import listed, rule

MOST_ROWS = 2000
LEARNED = 0.02
"""Share of the baseline below which a validation loss is no guess any more."""


@dataclass(frozen=True)
class SplitThresholds:
    """Thresholds of the rules of labels and splits.

    Attributes
    ----------
    neighbours : int
        Neighbours whose labels are compared.
    permutations : int
        Shuffles of the labels that the agreement is compared with.
    agreement : float
        Standard deviations above the mean of the shuffles that labels with information reach.
    sure_agreement : float
        The same where validation at chance is held against it: twice as far. House convention.
    imbalance : float
        Largest over smallest class. SageMaker Debugger's 10.
    imbalance_support : int
        Samples for each class, on average, before it is judged.
    near_duplicate : float
        Cosine above which rows are nearly the same.
    learned_share : float
        Share by which a training loss must fall before labels are said to carry no information: so
        much was learned by heart.
    least_labels : int
        Samples of training below which what was learned by heart says nothing of the labels.
    chance_errors : float
        An accuracy counts as chance up to so many standard errors above the share of the largest
        class.
    """

    neighbours: int = 5
    permutations: int = 50
    agreement: float = 3.0
    sure_agreement: float = 6.0
    imbalance: float = 10.0
    imbalance_support: int = 50
    near_duplicate: float = 0.999
    learned_share: float = 0.2
    least_labels: int = 200
    chance_errors: float = 3.0


@rule("D23", "label_format", needs=Labels)
def label_format(facts: Labels, thresholds: SplitThresholds) -> Iterator[Finding]:
    """Labels are out of range, not finite, or more classes than outputs."""
    y = facts.y
    if y.dtype.kind == "f":
        bad = int((~np.isfinite(y)).sum())
        if bad:
            yield _label("error", f"{bad} targets are NaN or infinite.", "drop or fill them")
        return
    if y.dtype.kind not in "iu" or facts.n_outputs is None or y.ndim != 1:
        return
    outside = int(((y < 0) | (y >= facts.n_outputs)).sum()) - int((y == -100).sum())
    seen = len(np.unique(y[y >= 0]))
    if outside > 0:
        yield _label(
            "error",
            f"{counted(outside, 'label lies', 'labels lie')} outside 0 to {facts.n_outputs - 1}.",
            "count classes from 0", "give the model an output for each class",
        )  # fmt: skip
    elif seen < facts.n_outputs:
        yield _label(
            "info", f"The model has {facts.n_outputs} outputs, the data {seen} classes.",
            "one output for each class",
        )  # fmt: skip


def _label(severity: str, message: str, *advice: str) -> Finding:
    return Finding(code="label_format", severity=severity, where="targets", message=message,
                   advice=advice)  # fmt: skip


@rule("D24", "labels_carry_no_information", needs=Labels, severity="info")
def labels_carry_no_information(facts: Labels, thresholds: SplitThresholds) -> Iterator[Finding]:
    """Neighbours agree on the label no more than chance."""
    if facts.X is None or len(facts.X) < 50 or facts.X.dtype.kind not in "fiu":
        return
    z = agreement(facts.X, facts.y, thresholds.neighbours, thresholds.permutations)
    if z is not None and z < thresholds.agreement:
        yield Finding(
            code="labels_carry_no_information",
            severity="info",
            where="targets",
            value=z,
            threshold=thresholds.agreement,
            message=f"Neighbours agree on the label no more than chance (z = {z:.2g}).",
            advice=(
                "shuffle X and y together",
                "sort lists of files before they are joined",
                "check the key of the join",
            ),
        )


@rule("D24", "labels_carry_no_information", needs=LabelEvidence, severity="warning",
      explains=("overfitting", "not_learning", "plateau", "accuracy_paradox"))  # fmt: skip
def labels_are_learned_by_heart(
    facts: LabelEvidence, thresholds: SplitThresholds
) -> Iterator[Finding]:
    """Training gets better while validation stays at chance, whether neighbours agree or not."""
    curves, z = facts.curves, facts.agreement
    train = curves.get("train_loss")
    if 0 < curves.n_train < thresholds.least_labels:
        return
    if len(train) < 3 or not np.isfinite(train[[0, -1]]).all() or train[0] <= 0:
        return
    fell = 1 - float(train[-1]) / min(float(train[0]), curves.baseline or math.inf)
    if fell < thresholds.learned_share or not _at_chance(facts, thresholds):
        return
    if z is None or z < thresholds.agreement:
        where = "targets"
        neighbours = (
            "" if z is None else f"neighbours agree no more than chance (z = {z:.2g}), and "
        )
        message = f"Labels seem to have nothing to do with the inputs: {neighbours}validation is"
    elif z >= thresholds.sure_agreement:
        where = "validation"
        message = (
            "The labels of validation seem to have nothing to do with its inputs: in training "
            f"neighbours agree (z = {z:.2g}), and validation is"
        )
    else:
        return
    yield Finding(
        code="labels_carry_no_information",
        severity="warning",
        where=where,
        step=facts.step,
        value=z,
        threshold=thresholds.agreement,
        message=f"{message} at chance while the training loss fell by {100 * fell:.0f} %.",
        advice=(
            "shuffle X and y together",
            "sort lists of files before they are joined",
            "check the key of the join, and that validation is prepared as training is",
        ),
    )


def _at_chance(facts: LabelEvidence, thresholds: SplitThresholds) -> bool:
    """Tell whether no evaluation was better than a guess, by its accuracy and by its loss."""
    curves = facts.curves
    losses = curves.get("val_loss")
    losses = losses[np.isfinite(losses)]
    best = float(losses.min()) / curves.baseline if len(losses) and curves.baseline else math.nan
    if best < 1 - LEARNED:
        return False
    accuracy = curves.get("val_accuracy")
    accuracy = accuracy[np.isfinite(accuracy)]
    if len(accuracy) and facts.majority is not None and curves.n_val:
        p = facts.majority
        error = math.sqrt(p * (1 - p) / curves.n_val)
        return float(accuracy.max()) <= p + thresholds.chance_errors * error
    return best <= 2  # what is far above was measured otherwise


def agreement(
    X: Array, y: Array, k: int = 5, permutations: int = 50, seed: int = 0
) -> float | None:
    """Return how far the agreement of neighbours lies above chance, in standard deviations.

    Parameters
    ----------
    X : ndarray, shape (n, ...)
        Standardised here; at most 2000 rows of it are used.
    y : ndarray, shape (n,)
        Classes, or values whose differences are taken.
    k : int
        Neighbours of each row.
    permutations : int
        Shuffles of the labels.
    seed : int

    Returns
    -------
    float or None
        None for a single class.
    """
    rng = generator(Purpose.DATA, seed, "label information")
    rows = np.sort(rng.permutation(len(X))[:MOST_ROWS])
    A = X[rows].reshape(len(rows), -1).astype(np.float64)
    A = (A - A.mean(0)) / np.maximum(A.std(0), 1e-12)
    target = y[rows].reshape(len(rows), -1)[:, 0]
    if len(np.unique(target)) < 2:
        return None
    squares = (A * A).sum(1)
    distance = squares[:, None] + squares[None, :] - 2 * A @ A.T
    np.fill_diagonal(distance, np.inf)
    near = np.argpartition(distance, k, axis=1)[:, :k]

    def score(labels: Array) -> float:
        if labels.dtype.kind == "f":
            return -float(np.abs(labels[near] - labels[:, None]).mean())
        return float((labels[near] == labels[:, None]).mean())

    chance = np.array([score(rng.permutation(target)) for _ in range(permutations)])
    return (score(target) - float(chance.mean())) / max(float(chance.std()), 1e-12)


@rule("D25", "class_imbalance", needs=Labels, severity="info")
def class_imbalance(facts: Labels, thresholds: SplitThresholds) -> Iterator[Finding]:
    """Some classes are far rarer than others."""
    if facts.y.dtype.kind not in "iu" or facts.y.ndim != 1:
        return
    classes, counts = np.unique(facts.y, return_counts=True)
    if len(classes) < 2 or len(facts.y) < thresholds.imbalance_support * len(classes):
        return
    if len(classes) > len(facts.y) / 5:
        return  # counts, not classes
    ratio = float(counts.max() / counts.min())
    if ratio > thresholds.imbalance:
        rare = classes[np.argmin(counts)]
        yield Finding(
            code="class_imbalance",
            severity="info",
            where=f"class {rare}",
            value=ratio,
            threshold=thresholds.imbalance,
            message=f"The largest class has {ratio:.3g} times the samples of class {rare}.",
            advice=(
                "report balanced accuracy and F1",
                "weight the classes in the loss, or sample them evenly",
            ),
        )


@rule("D28", "leakage", needs=Split, severity="warning")
def leakage(facts: Split, thresholds: SplitThresholds) -> Iterator[Finding]:
    """Rows of validation are in the training data, too, or nearly."""
    train = {_digest(row) for row in facts.X}
    same = [i for i, row in enumerate(facts.X_val) if _digest(row) in train]
    within = 1 - len(train) / max(len(facts.X), 1)
    # Rows of few discrete values repeat by chance, and as often within the training data.
    share = len(same) / max(len(facts.X_val), 1)
    if same and share > 2 * within:
        yield _leak(len(same), same, "are also in the training data")
        return
    near = _near(facts, thresholds.near_duplicate)
    if near:
        yield _leak(len(near), near, "are nearly the same as rows of the training data")


def _leak(n: int, rows: list[int], what: str) -> Finding:
    return Finding(
        code="leakage",
        severity="warning",
        where="validation",
        value=float(n),
        threshold=0.0,
        message=f"{n} validation rows {what}: {listed(map(str, rows))}.",
        advice=("remove them", "split by group: patient, video, author"),
        evidence={"rows": tuple(rows)},
    )


def _digest(row: Array) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def _near(facts: Split, least: float) -> list[int]:
    if facts.X.dtype.kind != "f" or facts.X[0].size < 8:
        return []
    A, B = (x[:MOST_ROWS].reshape(min(len(x), MOST_ROWS), -1).astype(np.float64)
            for x in (facts.X, facts.X_val))  # fmt: skip
    center, scale = A.mean(0), np.maximum(A.std(0), 1e-12)
    A, B = ((x - center) / scale for x in (A, B))
    A /= np.maximum(np.linalg.norm(A, axis=1, keepdims=True), 1e-12)
    B /= np.maximum(np.linalg.norm(B, axis=1, keepdims=True), 1e-12)
    own = A @ A.T
    np.fill_diagonal(own, -1)
    rate = float((own.max(1) > least).mean())
    near = np.flatnonzero((B @ A.T).max(1) > least)
    # Data that repeat themselves within training do so across the split as well.
    return near.tolist() if len(near) > 2 * rate * len(B) else []
