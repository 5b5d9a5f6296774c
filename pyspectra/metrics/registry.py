"""The registry of per-layer metrics. Adding one: a function with `@metric` in a family's module."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyspectra._support.cached import cached_property
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status

# An eigenvalue has three digits if it is so many times its bound.
RESOLVED = 1000.0
EPSILON = float(np.finfo(np.float64).eps)


def hard_rank(evals: FloatArray, N: int) -> int:
    """#(sigma > sigma_max N eps) for ascending squared singular values, of one spectrum in a row.

    The sum over the rows.
    """
    sigma = np.sqrt(evals)
    return int(np.count_nonzero(sigma > sigma[..., -1:] * N * EPSILON))


@dataclass(frozen=True)
class Spectrum:
    """What a metric may look at: the ESD of a layer, the fit of its tail, what several share.

    Attributes
    ----------
    esd : ESD
        The spectrum, with status ``OK``; metrics are not evaluated otherwise.
    fit : PowerLawFit
        Its numbers are NaN where the fit failed; a metric of them is NaN then.
    rank_side : int
        The N of the rank tolerance ``sigma_max * N * eps``.
    measured : Mapping
        What was measured besides (`pyspectra.analysis.measurements`), by name.
    """

    esd: ESD
    fit: PowerLawFit
    rank_side: int
    measured: Mapping[str, Any] = field(default_factory=dict)

    def measurement(self, name: str) -> Any:
        """Return what was measured under a name; ValueError if nobody has."""
        if name not in self.measured:
            raise ValueError(f"metric: needs the measurement {name!r}, which was not taken.")
        return self.measured[name]

    @property
    def evals(self) -> FloatArray:
        """Ascending eigenvalues."""
        return self.esd.evals

    @cached_property
    def resolved(self) -> bool:
        """Whether the smallest eigenvalue has three digits at least."""
        return bool(RESOLVED * self.esd.bound <= min(e[0] for e in self.esd.matrix_evals))

    @property
    def has_tail(self) -> bool:
        """Whether the fit succeeded."""
        return self.fit.status is Status.OK

    @cached_property
    def lambda_max(self) -> float:
        """Largest eigenvalue."""
        return float(self.evals[-1])

    @cached_property
    def norm(self) -> float:
        """Sum of the eigenvalues."""
        return float(self.evals.sum())

    @cached_property
    def rank(self) -> int:
        """Hard rank of the pooled spectrum."""
        return hard_rank(self.evals, self.rank_side)

    @cached_property
    def log_lambda_max(self) -> float:
        """log10 of the largest eigenvalue."""
        return float(np.log10(self.lambda_max))


MetricFunction = Callable[[Spectrum], "float | int"]


@dataclass(frozen=True)
class Metric:
    """A named function of a `Spectrum`; `group` is the analyze() option that asks for it.

    `small_end`: it tells of the smallest eigenvalues, and is NaN where they are not resolved.
    """

    name: str
    function: MetricFunction
    group: str
    small_end: bool = False


METRICS: dict[str, Metric] = {}


def metric(
    name: str, *, group: str = "default", small_end: bool = False
) -> Callable[[MetricFunction], MetricFunction]:
    """Register a function as the metric `name`, evaluated whenever its `group` is asked for."""

    def register(function: MetricFunction) -> MetricFunction:
        if name in METRICS:
            raise ValueError(f"metric: there is one called {name!r} already.")
        METRICS[name] = Metric(name, function, group, small_end)
        return function

    return register


def evaluate(spectrum: Spectrum, groups: Collection[str] = ("default",)) -> dict[str, float | int]:
    """Evaluate every registered metric of `groups`, in order of registration.

    A zero matrix has log10(0) = -inf and 0/0 = NaN where the formula says so, without warnings.
    """
    chosen = [m for m in METRICS.values() if m.group in groups]
    with np.errstate(all="ignore"):
        return {
            m.name: math.nan if m.small_end and not spectrum.resolved else m.function(spectrum)
            for m in chosen
        }
