"""Calibration: whether what a classifier is sure of is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from pyspectra._support.arguments import check_choice, check_count, check_flag
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.metrics.arrays import as_array

__all__ = ["Calibration", "calibration", "expected_error", "fit_temperature", "width_bins"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How good and how honest the probabilities of a classifier are.

    Attributes
    ----------
    accuracy : float
        Share of the samples whose most probable class is right.
    nll : float
        Mean negative log-likelihood of the right class, in nats: the cross-entropy.
    brier : float
        Mean over samples of the sum over classes of (p - [class is right])^2, from 0 to 2.
    ece : float
        Expected calibration error.
    count : ndarray of int64, shape (n_bins,)
        Samples in each bin of confidence.
    confidence, correct : ndarray of float64, shape (n_bins,)
        Mean confidence of these, and the share that is right; NaN in an empty bin.

    Examples
    --------
    >>> from pyspectra.training.metrics import calibration
    >>> said = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]
    >>> found = calibration(said, [0, 1, 1], logits=False)
    >>> round(found.accuracy, 3), round(found.brier, 3), round(found.ece, 3)
    (0.667, 0.573, 0.333)
    """

    accuracy: float
    nll: float
    brier: float
    ece: float
    count: Integers
    confidence: Floats
    correct: Floats


def calibration(
    outputs: Any,
    targets: Any,
    *,
    logits: bool = True,
    n_bins: int = 15,
    bins: Literal["width", "mass"] = "width",
    ignore: int | None = -100,
) -> Calibration:
    """Return how good and how honest the probabilities of a classifier are.

    Parameters
    ----------
    outputs : array or tensor, shape (..., K)
        Of each sample, the classes last.
    targets : array or tensor of int, shape (...)
        The right classes.
    logits : bool
        Whether `outputs` are logits; probabilities otherwise.
    n_bins : int
        Bins of confidence, which is the largest probability of a sample.
    bins : {"width", "mass"}
        Bins of equal width, as usual, or of equal numbers of samples: where most samples are nearly
        sure, the former hold nearly all in the last bin.
    ignore : int, optional
        A label whose samples do not count.

    Returns
    -------
    Calibration

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, a class is out of range, numbers are not finite, or no sample counts.

    Notes
    -----
    ECE = sum over bins of (samples in the bin / samples) |share that is right - mean confidence|.
    Bin i of equal width holds confidences from i / n_bins to below (i + 1) / n_bins, 1 in the last
    one, as in `Classification`, whose figure this is batch by batch. Bins of equal mass cut the
    sorted samples into parts that differ by one at most; equal confidences may be in two bins.
    A probability of 0 of the right class counts as the least number above 0.

    ECE depends on the bins, and is above 0 for a perfectly calibrated model too, by chance: by up
    to 0.4 sqrt(bins / samples). NLL and Brier score need no bins, and judge accuracy as well.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017, arXiv
    1706.04599. Brier, "Verification of forecasts expressed in terms of probability", Monthly
    Weather Review 78 (1950). Bins of equal mass: Nixon et al., 2019, arXiv 1904.01685.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training.metrics import calibration
    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    >>> found = calibration(logits, [0, 1, 1, 1])  # surer than it is right
    >>> found.accuracy, round(found.ece, 2)
    (0.75, 0.22)
    """
    name = "calibration"
    n_bins = check_count(name, "n_bins", n_bins)
    bins = check_choice(name, "bins", bins, ("width", "mass"))  # type: ignore[assignment]
    x, y = _samples(name, "outputs", outputs, targets, ignore)
    if check_flag(name, "logits", logits):
        log_p = _log_softmax(x)
        p = np.exp(log_p)
    else:
        if (x < 0).any() or not np.allclose(x.sum(axis=1), 1.0, atol=1e-3):
            raise ArgumentValueError(name, "outputs", "be probabilities", "other numbers",
                                     "logits=True")  # fmt: skip
        p, log_p = x, np.log(np.maximum(x, np.finfo(np.float64).tiny))
    rows = np.arange(len(y))
    right = np.zeros_like(p)
    right[rows, y] = 1.0
    chosen = p.argmax(axis=1)
    confidence, correct = p[rows, chosen], (chosen == y).astype(np.float64)
    number = width_bins(confidence, n_bins) if bins == "width" else _mass_bins(confidence, n_bins)
    count = np.bincount(number, minlength=n_bins)
    sure: Floats = np.bincount(number, confidence, n_bins).astype(np.float64)
    hits: Floats = np.bincount(number, correct, n_bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean_confidence, mean_correct = sure / count, hits / count
    return Calibration(
        accuracy=float(correct.mean()),
        nll=float(-log_p[rows, y].mean()),
        brier=float(((p - right) ** 2).sum(axis=1).mean()),
        ece=expected_error(count, sure, hits),
        count=count,
        confidence=mean_confidence,
        correct=mean_correct,
    )


def width_bins(confidence: Floats, n_bins: int) -> Integers:
    """Return the bin of equal width that each confidence is in."""
    return np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)


def _mass_bins(confidence: Floats, n_bins: int) -> Integers:
    number = np.empty(len(confidence), np.int64)
    number[np.argsort(confidence, kind="stable")] = np.arange(len(number)) * n_bins // len(number)
    return number


def expected_error(count: Integers, confidence: Floats, correct: Floats) -> float:
    """Return the expected calibration error, from the sums of each bin."""
    return float(np.abs(correct - confidence).sum() / count.sum())


def fit_temperature(logits: Any, targets: Any, *, ignore: int | None = -100) -> float:
    """Return the temperature that makes a classifier's logits most likely on validation data.

    Parameters
    ----------
    logits : array or tensor, shape (..., K)
        Of samples that the model was not trained on. Of an ensemble's mean of probabilities take
        the logarithm.
    targets : array or tensor of int, shape (...)
        The right classes.
    ignore : int, optional
        A label whose samples do not count.

    Returns
    -------
    float
        T: the probabilities are then ``softmax(logits / T)``. Above 1 where the model was too sure.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, numbers are not finite, or no finite temperature is best: where all
        samples are right, or the logits tell less than nothing of the classes.

    Notes
    -----
    The mean of -log softmax(z / T)_y is convex in 1 / T, so that its one minimum is where the
    derivative, the mean over samples of sum_k p_k z_k - z_y, is 0; it is found by bracketing, to
    some 1e-12. No temperature changes which class is the most probable one.

    References
    ----------
    Guo et al., ICML 2017, arXiv 1706.04599, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training.metrics import fit_temperature
    >>> logits = np.log([[0.8, 0.2]] * 5)
    >>> round(fit_temperature(3 * logits, [0, 0, 0, 0, 1]), 6)  # right in 80 %, as the logs say
    3.0
    """
    name = "fit_temperature"
    z, y = _samples(name, "logits", logits, targets, ignore)
    z = z - z[np.arange(len(y)), y][:, None]  # of the right class: 0
    scale = float(np.abs(z).max()) or 1.0
    z = z / scale

    def slope(inverse: float) -> float:
        return float((np.exp(_log_softmax(inverse * z)) * z).sum(axis=1).mean())

    if slope(0.0) >= 0.0:
        requirement, got = "tell something of the targets", "no more than a uniform guess"
        raise ArgumentValueError(name, "logits", requirement, got)
    if not z.max(axis=1).any():
        got, hint = "none", "take samples that were not trained on"
        raise ArgumentValueError(name, "targets", "hold some that the logits miss", got, hint)
    high = 1.0
    while slope(high) < 0.0:
        high *= 2.0
    return scale / float(brentq(slope, 0.0, high, xtol=1e-300, rtol=1e-13, maxiter=500))


def _samples(
    function: str, argument: str, outputs: Any, targets: Any, ignore: int | None
) -> tuple[Floats, Integers]:
    """Return rows of numbers and the class of each, those that count."""
    x, y = as_array(function, argument, outputs), as_array(function, "targets", targets)
    if y.dtype.kind != "i":
        raise ArgumentTypeError(function, "targets", "be integers", f"{y.dtype}")
    if x.ndim < 2 or x.shape[:-1] != y.shape:
        got = f"shapes {x.shape} and {y.shape}"
        raise ArgumentValueError(function, argument, "have a row of classes for each target", got)
    x, y = x.reshape(-1, x.shape[-1]).astype(np.float64, copy=False), y.reshape(-1)
    if ignore is not None:
        x, y = x[y != ignore], y[y != ignore]
    if not len(y):
        raise ArgumentValueError(function, "targets", "hold at least one sample", "none")
    if y.min() < 0 or y.max() >= x.shape[1]:
        got = f"classes from {y.min()} to {y.max()}"
        raise ArgumentValueError(function, "targets", f"lie in [0, {x.shape[1] - 1}]", got)
    if not np.isfinite(x).all():
        raise ArgumentValueError(function, argument, "be finite", "NaN or infinities")
    return x, y


def _log_softmax(z: Floats) -> Floats:
    z = z - z.max(axis=1, keepdims=True)
    logs: Floats = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return logs
