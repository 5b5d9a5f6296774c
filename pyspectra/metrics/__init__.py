"""Statistics to scalars: every module here registers the metrics of one family."""

from pyspectra.metrics import detx, norms, rank, tail  # noqa: F401  (registers them)
from pyspectra.metrics.registry import METRICS, Spectrum, evaluate, metric

__all__ = ["METRICS", "Spectrum", "evaluate", "metric"]
