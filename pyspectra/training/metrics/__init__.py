"""Metrics that are updated batch by batch, in numpy: the same numbers as torchmetrics gives.

A metric is one function with one record. To add one, write a function of the sums under
`regression_metric` or `classification_metric`, and test it.
"""

from __future__ import annotations

from pyspectra.training.metrics.calibration import Calibration, calibration, fit_temperature
from pyspectra.training.metrics.classification import Classification
from pyspectra.training.metrics.objects import computed, gathered
from pyspectra.training.metrics.regression import Regression

__all__ = [
    "Calibration",
    "Classification",
    "Regression",
    "calibration",
    "computed",
    "fit_temperature",
    "gathered",
]
