"""Statistics to scalars: every module here registers the metrics of one family."""

from pyspectra.metrics import (  # noqa: F401  (registers them)
    detx,
    norms,
    randomness,
    rank,
    tail,
    vectors,
)
from pyspectra.metrics.registry import METRICS, Spectrum, evaluate, metric

__all__ = ["METRICS", "Spectrum", "evaluate", "metric"]
