"""What rules of data and of trials read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pyspectra.types import FloatArray

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Inputs:
    """What enters the model, before training.

    Attributes
    ----------
    X : ndarray, shape (n, ...)
    normalization : (mean, std) or None
        What a pretrained model expects of each channel of X (n, C, H, W).
    """

    X: Array
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Labels:
    """Targets; `n_outputs` of the model where it is known."""

    y: Array
    n_outputs: int | None = None
    X: Array | None = None


@dataclass(frozen=True)
class Split:
    """Training and validation data."""

    X: Array
    y: Array | None
    X_val: Array
    y_val: Array | None


@dataclass(frozen=True)
class BatchSize:
    """Sizes of the training."""

    n: int
    batch: int
    epochs: int | None = None
    batch_norm: bool = False


@dataclass(frozen=True)
class OverfitTrial:
    """Losses of a training on a single batch.

    Attributes
    ----------
    losses : ndarray of float64
    baseline : float or None
    kind : str or None
        Kind of the loss.
    slope : float or None
        Mean sign of the gradient times the update over the first steps: -1 for descent.
    n_classes : int or None
    accuracy : float or None
        Accuracy on the batch at the end; None unless the model is a classifier.
    """

    losses: FloatArray
    baseline: float | None
    kind: str | None
    slope: float | None = None
    n_classes: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class InputTrial:
    """Losses of the same training on one batch, and on that batch with its inputs set to zero."""

    real: FloatArray
    zeroed: FloatArray


@dataclass(frozen=True)
class Augmented:
    """What a trained classifier says of samples, and of the same samples augmented.

    Attributes
    ----------
    clean, augmented : ndarray of int, shape (K, K)
        Confusion matrices: rows are true classes, columns predicted ones.
    """

    clean: Array
    augmented: Array


@dataclass(frozen=True)
class HeldOut:
    """Probabilities for samples that the model was not trained on.

    Attributes
    ----------
    probabilities : ndarray of float, shape (n, K)
    labels : ndarray of int, shape (n,)
    """

    probabilities: FloatArray
    labels: Array


@dataclass(frozen=True)
class BatchMixing:
    """Largest gradient of the first output with respect to another row, and that row."""

    gradient: float
    row: int | None


@dataclass(frozen=True)
class Reduction:
    """The loss of a batch, and of the batch twice over."""

    once: float
    twice: float


@dataclass(frozen=True)
class FirstInputs:
    """What enters the first layer with weights, in the first batches of a training.

    Attributes
    ----------
    X : ndarray, shape (n, features) or (n, C, H, W)
        Normalisations and scalings within the model, before that layer, are done.
    normalized : bool
        A normalisation follows the layer, which takes care of any scale.
    """

    step: int
    X: Array
    normalized: bool = False


@dataclass(frozen=True)
class InputMoments:
    """Mean and standard deviation of each feature, or channel, of training and of evaluations.

    Attributes
    ----------
    mean, std : ndarray
        Of batches of training.
    val_mean, val_std : ndarray
        Of batches of evaluations.
    """

    step: int
    mean: FloatArray
    std: FloatArray
    val_mean: FloatArray
    val_std: FloatArray


@dataclass(frozen=True)
class ClassOrder:
    """How the classes of the labels are spread over the batches of an epoch.

    Attributes
    ----------
    entropies : ndarray
        Entropy of the classes within each batch that was looked at, in nats.
    overall : float
        Entropy of the classes in all of them.
    """

    step: int
    entropies: FloatArray
    overall: float


@dataclass(frozen=True)
class TargetRange:
    """How many targets lie where the last operation of the model cannot reach.

    Attributes
    ----------
    operation : str
        ``"sigmoid"``, ``"tanh"``, ``"relu"`` or ``"softmax"``.
    low, high : float
        What it can give.
    smallest, largest : float
        The targets.
    outside : float
        Share of the targets beyond it.
    """

    step: int
    operation: str
    low: float
    high: float
    smallest: float
    largest: float
    outside: float


@dataclass(frozen=True)
class NormState:
    """Batch norms with running statistics, at an evaluation.

    Attributes
    ----------
    rows : sequence of (str, float, int)
        Name, momentum, and the batches that it has followed.
    """

    step: int
    rows: Sequence[tuple[str, float, int]]
