"""Metrics of classification, from a confusion matrix and bins of confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyspectra._support.arguments import check_choice, check_count
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.metric_kinds import MetricKind, register
from pyspectra.training.metrics.arrays import as_array
from pyspectra.training.metrics.calibration import expected_error, width_bins

__all__ = ["Classification", "ClassificationSums", "classification_metric"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass
class ClassificationSums:
    """What is kept of the batches.

    Attributes
    ----------
    confusion : ndarray of int64, shape (K, K)
        How often the class of the row was taken for that of the column.
    positive : bool
        Whether precision, recall and F1 are those of class 1, and not means over the classes.
    bin_counts : ndarray of int64, shape (n_bins,)
        Samples whose confidence is in a bin.
    bin_confidence, bin_correct : ndarray of float64, shape (n_bins,)
        Sums over these of the confidence, and of whether the prediction was right.
    """

    confusion: Integers
    positive: bool
    bin_counts: Integers
    bin_confidence: Floats
    bin_correct: Floats

    @property
    def hits(self) -> Integers:
        """Samples of each class that were taken for it."""
        return self.confusion.diagonal()

    def of_classes(self, share: Floats) -> float:
        """Return what a value for each class comes to: that of class 1, or the mean.

        A class that was neither seen nor predicted does not count.
        """
        if self.positive:
            return float(share[1])
        counted = (self.confusion.sum(axis=0) + self.confusion.sum(axis=1)) > 0
        return float(share[counted].mean())


_METRICS: dict[str, Callable[[ClassificationSums], float]] = {}


def classification_metric(
    *,
    better: Literal["lower", "higher"] = "higher",
    unit: str = "share",
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[[ClassificationSums], float]], Callable[[ClassificationSums], float]]:
    """Register a function of `ClassificationSums` as the metric of its name; see `MetricKind`."""

    def add(
        function: Callable[[ClassificationSums], float],
    ) -> Callable[[ClassificationSums], float]:
        register(MetricKind(function.__name__, better, unit, "mean", aliases))
        _METRICS[function.__name__] = function
        return function

    return add


def _shares(part: Any, whole: Any) -> Floats:
    """Return part / whole, and 0 where there is nothing."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    shares: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return shares


@classification_metric(aliases=("acc",))
def accuracy(sums: ClassificationSums) -> float:
    """Return the share of samples that were taken for their class."""
    return float(sums.hits.sum() / sums.confusion.sum())


@classification_metric()
def balanced_accuracy(sums: ClassificationSums) -> float:
    """Return the mean recall of the classes that there are samples of."""
    support = sums.confusion.sum(axis=1)
    return float(_shares(sums.hits, support)[support > 0].mean())


@classification_metric()
def precision(sums: ClassificationSums) -> float:
    """Return the share that is of a class, of what was taken for it."""
    return sums.of_classes(_shares(sums.hits, sums.confusion.sum(axis=0)))


@classification_metric(aliases=("sensitivity",))
def recall(sums: ClassificationSums) -> float:
    """Return the share that was taken for its class, of the samples of it."""
    return sums.of_classes(_shares(sums.hits, sums.confusion.sum(axis=1)))


@classification_metric(aliases=("true_positive_rate",))
def tpr(sums: ClassificationSums) -> float:
    """Return the true positive rate: another name for the recall."""
    return recall(sums)


@classification_metric(aliases=("f1_score", "fscore"))
def f1(sums: ClassificationSums) -> float:
    """Return the harmonic mean of precision and recall, of each class before the mean of these."""
    both = sums.confusion.sum(axis=0) + sums.confusion.sum(axis=1)
    return sums.of_classes(_shares(2 * sums.hits, both))


@classification_metric(better="lower", unit="ece", aliases=("calibration_error",))
def ece(sums: ClassificationSums) -> float:
    """Return the expected calibration error: how far confidence is from how often it was right."""
    if sums.bin_counts.sum() == 0:
        return math.nan  # only classes came, and no probabilities
    return expected_error(sums.bin_counts, sums.bin_confidence, sums.bin_correct)


class Classification:
    """Accuracy, precision, recall, F1, confusion matrix and calibration, batch by batch.

    Parameters
    ----------
    n_classes : int
        How many classes there are.
    average : {"auto", "macro", "positive"}
        What precision, recall and F1 are: means over the classes, or those of class 1 of two.
        ``"auto"`` is ``"positive"`` for two classes, else ``"macro"``.
    n_bins : int
        Bins of confidence, for the calibration.
    ignore : int, optional
        A label that does not count, as -100 for tokens that are not to be predicted.

    Examples
    --------
    >>> from pyspectra.training.metrics import Classification
    >>> metrics = Classification(3)
    >>> metrics.update([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]], [0, 2])
    >>> metrics.compute()["accuracy"]
    0.5
    >>> metrics.confusion.tolist()  # of class 2, one sample was taken for 1
    [[1, 0, 0], [0, 0, 0], [0, 1, 0]]

    References
    ----------
    M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI (2015), for the expected calibration error.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        average: Literal["auto", "macro", "positive"] = "auto",
        n_bins: int = 15,
        ignore: int | None = -100,
    ) -> None:
        name = "Classification"
        self.n_classes = check_count(name, "n_classes", n_classes, least=2)
        chosen = check_choice(name, "average", average, ("auto", "macro", "positive"))
        if chosen == "positive" and self.n_classes != 2:
            requirement = "go with two classes if it is 'positive'"
            raise ArgumentValueError(name, "average", requirement, f"{self.n_classes} classes")
        self._positive = self.n_classes == 2 and chosen != "macro"
        self._n_bins = check_count(name, "n_bins", n_bins)
        self._ignore = ignore
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        K, bins = self.n_classes, self._n_bins
        self._sums = ClassificationSums(
            np.zeros((K, K), np.int64), self._positive, np.zeros(bins, np.int64), np.zeros(bins),
            np.zeros(bins),
        )  # fmt: skip

    def update(self, predictions: Any, targets: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        predictions : array-like or tensor
            Scores of shape (n, n_classes): probabilities, or logits where some are outside of
            [0, 1]; of two classes also probabilities or logits of class 1, of shape (n,); or
            classes, integers of shape (n,). Further dimensions of both count as samples, with the
            classes last.
        targets : array-like or tensor of int, shape (n,)
            The classes.

        Raises
        ------
        TypeError, ValueError
            If shapes do not fit, or a class is out of range.
        """
        name = "Classification.update"
        labels = as_array(name, "targets", targets)
        scores = as_array(name, "predictions", predictions)
        if labels.dtype.kind != "i":
            raise ArgumentTypeError(name, "targets", "be integers", f"{labels.dtype}")
        with_classes = scores.dtype.kind == "f" and scores.shape == (*labels.shape, self.n_classes)
        if not with_classes and scores.shape != labels.shape:
            requirement = f"have the shape {(*labels.shape, self.n_classes)} or {labels.shape}"
            raise ArgumentValueError(name, "predictions", requirement, f"{scores.shape}")
        labels = labels.reshape(-1)
        scores = scores.reshape((-1, self.n_classes) if with_classes else -1)
        if self._ignore is not None:
            kept = labels != self._ignore
            labels, scores = labels[kept], scores[kept]
        self._check_range(name, "targets", labels)
        if len(labels) == 0:
            return
        if scores.dtype.kind == "i":
            self._check_range(name, "predictions", scores)
            self._count(labels, scores)
        elif with_classes:
            shares = _softmax(scores)
            chosen = scores.argmax(axis=1)
            self._count(labels, chosen)
            self._calibrate(shares.max(axis=1), chosen == labels)
        else:
            self._of_class_one(name, scores, labels)

    def _of_class_one(self, name: str, scores: Floats, labels: Integers) -> None:
        if self.n_classes != 2:
            requirement = "be classes, or scores of every class"
            raise ArgumentTypeError(name, "predictions", requirement, "one float a sample")
        inside = np.all((scores >= 0) & (scores <= 1))
        shares = scores if inside else 0.5 * (1 + np.tanh(scores / 2))
        self._count(labels, (shares > 0.5).astype(np.int64))
        self._calibrate(shares, labels == 1)

    def _check_range(self, name: str, argument: str, classes: Integers) -> None:
        outside = classes[(classes < 0) | (classes >= self.n_classes)]
        if len(outside):
            requirement = f"be classes from 0 to {self.n_classes - 1}"
            raise ArgumentValueError(name, argument, requirement, f"{outside[0]}")

    def _count(self, labels: Integers, chosen: Integers) -> None:
        K = self.n_classes
        self._sums.confusion += np.bincount(labels * K + chosen, minlength=K * K).reshape(K, K)

    def _calibrate(self, confidence: Floats, correct: NDArray[np.bool_]) -> None:
        finite = np.isfinite(confidence)
        confidence, correct = confidence[finite], correct[finite]
        bins = width_bins(confidence, self._n_bins)
        sums, n = self._sums, self._n_bins
        sums.bin_counts += np.bincount(bins, minlength=n)
        sums.bin_confidence += np.bincount(bins, confidence, n)
        sums.bin_correct += np.bincount(bins, correct, n)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name; all NaN if there was no sample."""
        if self.n == 0:
            return dict.fromkeys(_METRICS, math.nan)
        return {name: function(self._sums) for name, function in _METRICS.items()}

    @property
    def n(self) -> int:
        """Samples so far."""
        return int(self._sums.confusion.sum())

    @property
    def confusion(self) -> Integers:
        """How often the class of the row was taken for that of the column; int64, (K, K)."""
        return self._sums.confusion.copy()

    @property
    def calibration(self) -> dict[str, NDArray[Any]]:
        """Bins of confidence: ``count``, mean ``confidence``, share ``correct``; NaN if empty."""
        sums = self._sums
        with np.errstate(invalid="ignore"):
            confidence = sums.bin_confidence / sums.bin_counts
            correct = sums.bin_correct / sums.bin_counts
        return {"count": sums.bin_counts.copy(), "confidence": confidence, "correct": correct}

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Return ``support``, ``precision``, ``recall`` and ``f1`` of each class."""
        sums = self._sums
        support, predicted = sums.confusion.sum(axis=1), sums.confusion.sum(axis=0)
        return {
            "support": support,
            "precision": _shares(sums.hits, predicted),
            "recall": _shares(sums.hits, support),
            "f1": _shares(2 * sums.hits, support + predicted),
        }

    def merge(self, other: Classification) -> None:
        """Add the batches of another, as of another rank.

        Raises
        ------
        TypeError, ValueError
            If it is no `Classification`, or of other classes or bins.
        """
        name = "Classification.merge"
        if not isinstance(other, Classification):
            got = f"an object of type {type(other).__name__}"
            raise ArgumentTypeError(name, "other", "be a Classification", got)
        own, others = (self.n_classes, self._n_bins), (other.n_classes, other._n_bins)
        if own != others:
            requirement = f"have {own[0]} classes and {own[1]} bins"
            raise ArgumentValueError(name, "other", requirement, f"{others[0]} and {others[1]}")
        self._sums.confusion += other._sums.confusion
        self._sums.bin_counts += other._sums.bin_counts
        self._sums.bin_confidence += other._sums.bin_confidence
        self._sums.bin_correct += other._sums.bin_correct


def _softmax(scores: Floats) -> Floats:
    """Return probabilities: the scores if all are within [0, 1], else their softmax."""
    if np.all((scores >= 0) & (scores <= 1)):
        return scores
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
