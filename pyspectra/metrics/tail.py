"""Metrics that join the tail exponent with the scale of a layer.

References
----------
Martin, Peng, Mahoney, "Predicting trends in the quality of state-of-the-art neural networks without
access to training or testing data", Nature Communications 12 (2021).
"""

from __future__ import annotations

import numpy as np

from pyspectra.metrics.registry import Spectrum, metric
from pyspectra.types import FloatArray


def log_power_sum(evals: FloatArray, alpha: float) -> float:
    """log10 of sum(lambda ** alpha), by log-sum-exp: a plain sum overflows for large alpha."""
    exponents = alpha * np.log10(evals)
    largest = exponents.max()
    if np.isposinf(largest):  # a zero eigenvalue to a negative power
        return float(largest)
    return float(largest + np.log10((10.0 ** (exponents - largest)).sum()))


@metric("alpha_weighted")
def alpha_weighted(s: Spectrum) -> float:
    """Alpha * log10(lambda_max)."""
    return s.fit.alpha * s.log_lambda_max


@metric("log_alpha_norm")
def log_alpha_norm(s: Spectrum) -> float:
    """log10 of sum(lambda ** alpha), the log of the alpha-Schatten norm to the power alpha."""
    return log_power_sum(s.evals, s.fit.alpha)
