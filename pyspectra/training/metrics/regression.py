"""Metrics of regression, from sums that batches are added to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.training.metric_kinds import MetricKind, register
from pyspectra.training.metrics.arrays import as_array

__all__ = ["Regression", "RegressionSums", "regression_metric"]

Floats = NDArray[np.float64]


@dataclass
class RegressionSums:
    """What is kept of the batches.

    Attributes
    ----------
    n : int
        Samples.
    squared, absolute, relative : float
        Sums over all elements of the squared error, the absolute error, and the absolute error
        over the absolute target.
    greatest : float
        Greatest absolute error.
    residual : ndarray of float64, shape (n_outputs,)
        Sum of squared errors of each output.
    mean, deviation : ndarray of float64, shape (n_outputs,)
        Mean of the targets, and sum of their squared deviations from it.
    """

    n: int
    squared: float
    absolute: float
    relative: float
    greatest: float
    residual: Floats
    mean: Floats
    deviation: Floats

    @property
    def elements(self) -> int:
        """Samples times outputs."""
        return self.n * len(self.mean)


_METRICS: dict[str, Callable[[RegressionSums], float]] = {}


def regression_metric(
    *,
    better: Literal["lower", "higher"],
    unit: str = "target",
    combine: Literal["mean", "rms", "max", "last"] = "mean",
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[[RegressionSums], float]], Callable[[RegressionSums], float]]:
    """Register a function of `RegressionSums` as the metric of its name; see `MetricKind`."""

    def add(function: Callable[[RegressionSums], float]) -> Callable[[RegressionSums], float]:
        register(MetricKind(function.__name__, better, unit, combine, aliases))
        _METRICS[function.__name__] = function
        return function

    return add


@regression_metric(better="lower", unit="target^2", aliases=("mean_squared_error",))
def mse(sums: RegressionSums) -> float:
    """Return the mean squared error."""
    return sums.squared / sums.elements


@regression_metric(better="lower", combine="rms", aliases=("root_mean_squared_error",))
def rmse(sums: RegressionSums) -> float:
    """Return the root of the mean squared error, which is in the unit of the target."""
    return math.sqrt(mse(sums))


@regression_metric(better="lower", aliases=("mean_absolute_error",))
def mae(sums: RegressionSums) -> float:
    """Return the mean absolute error."""
    return sums.absolute / sums.elements


@regression_metric(
    better="lower", unit="relative", aliases=("mean_absolute_percentage_error",)
)  # fmt: skip
def mape(sums: RegressionSums) -> float:
    """Return the mean of the absolute error over the absolute target, as a share: 0.1 is 10 %."""
    return sums.relative / sums.elements


@regression_metric(better="lower", combine="max")
def max_error(sums: RegressionSums) -> float:
    """Return the greatest absolute error."""
    return sums.greatest


@regression_metric(better="higher", unit="share", aliases=("r2_score",))
def r2(sums: RegressionSums) -> float:
    """Return 1 less the share of the variance that is left, as mean over the outputs."""
    if sums.n < 2:
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        left = sums.residual / sums.deviation
    # A constant target has no variance to explain: all of it if there is no error, else none.
    left = np.where(sums.deviation > 0, left, np.where(sums.residual > 0, 1.0, 0.0))
    left = np.where(np.isfinite(sums.residual), left, np.nan)
    return float(np.mean(1.0 - left))


# Smaller targets count as this, as in torchmetrics: a relative error of zero has no meaning.
LEAST_TARGET = 1.17e-06


class Regression:
    """MSE, RMSE, MAE, MAPE, greatest error and R2 of predictions that come in batches.

    Examples
    --------
    >>> from pyspectra.training.metrics import Regression
    >>> metrics = Regression()
    >>> metrics.update([1.0, 2.0], [1.0, 4.0])
    >>> metrics.update([5.0], [5.0])
    >>> metrics.compute()["mae"]
    0.6666666666666666

    Notes
    -----
    Sums are float64, and means and deviations of the targets are merged by the formula of Chan,
    Golub and LeVeque, so that neither many batches nor targets far from zero cost digits.

    References
    ----------
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
    computing sample variances", COMPSTAT (1982).
    """

    def __init__(self) -> None:
        self._sums: RegressionSums | None = None

    def update(self, predictions: Any, targets: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        predictions, targets : array-like or tensor, shape (n,) or (n, n_outputs)
            Arrays of equal shape.

        Raises
        ------
        TypeError, ValueError
            If they hold no numbers, or differ in shape: ``(n, 1)`` against ``(n,)`` would compare
            every prediction with every target.
        """
        name = "Regression.update"
        y = as_array(name, "predictions", predictions).astype(np.float64, copy=False)
        t = as_array(name, "targets", targets).astype(np.float64, copy=False)
        if y.shape != t.shape:
            raise ArgumentValueError(
                name, "targets", f"have the shape of the predictions, {y.shape}", f"{t.shape}",
                hint="squeeze(-1) or unsqueeze(-1)",
            )  # fmt: skip
        if y.ndim == 0:
            y, t = y.reshape(1), t.reshape(1)
        if len(y) == 0:
            return
        y, t = y.reshape(len(y), -1), t.reshape(len(t), -1)
        if self._sums is not None and t.shape[1] != len(self._sums.mean):
            requirement = f"have {len(self._sums.mean)} outputs as before"
            raise ArgumentValueError(name, "targets", requirement, f"{t.shape[1]}")
        self._sums = _merged(self._sums, _sums_of(y, t))

    def compute(self) -> dict[str, float]:
        """Return the metrics by name; all NaN if there was no batch."""
        if self._sums is None:
            return dict.fromkeys(_METRICS, math.nan)
        return {name: function(self._sums) for name, function in _METRICS.items()}

    @property
    def n(self) -> int:
        """Samples so far."""
        return 0 if self._sums is None else self._sums.n

    def reset(self) -> None:
        """Forget all batches."""
        self._sums = None

    def merge(self, other: Regression) -> None:
        """Add the batches of another, as of another rank.

        Raises
        ------
        TypeError
            If it is no `Regression`.
        """
        if not isinstance(other, Regression):
            got = f"an object of type {type(other).__name__}"
            raise ArgumentTypeError("Regression.merge", "other", "be a Regression", got)
        if other._sums is not None:
            self._sums = _merged(self._sums, other._sums)


def _sums_of(y: Floats, t: Floats) -> RegressionSums:
    errors = y - t
    absolute = np.abs(errors)
    squared = errors * errors
    mean = t.mean(axis=0)
    return RegressionSums(
        n=len(t),
        squared=float(squared.sum()),
        absolute=float(absolute.sum()),
        relative=float((absolute / np.maximum(np.abs(t), LEAST_TARGET)).sum()),
        greatest=float(absolute.max()),
        residual=squared.sum(axis=0),
        mean=mean,
        deviation=((t - mean) ** 2).sum(axis=0),
    )


def _merged(a: RegressionSums | None, b: RegressionSums) -> RegressionSums:
    if a is None:
        return b
    n = a.n + b.n
    gap = b.mean - a.mean
    return RegressionSums(
        n=n,
        squared=a.squared + b.squared,
        absolute=a.absolute + b.absolute,
        relative=a.relative + b.relative,
        greatest=float(np.maximum(a.greatest, b.greatest)),  # NaN stays NaN
        residual=a.residual + b.residual,
        mean=a.mean + gap * (b.n / n),
        deviation=a.deviation + b.deviation + gap * gap * (a.n * b.n / n),
    )
