"""What became of the spectra of a model from checkpoint to checkpoint, as one value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspectra._support.cached import cached_property
from pyspectra.report.columns import fitted
from pyspectra.report.comparison_data import ComparisonData
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import has_tail
from pyspectra.types import Value

# What is followed of a layer, besides alpha: metrics of a report.
FOLLOWED = ("log_norm", "log_spectral_norm", "stable_rank", "matrix_rank")

COLUMNS = {
    "checkpoint": "Name of the checkpoint.",
    "step": "Its step, by the number in its name, or its place.",
    "name": "Name of the layer in the first checkpoint that has it.",
    "kind": "Kind of layer.",
    "stack": "Beginning of its name, up to the number of its block.",
    "block": "Number of its block in the stack, as its name has it.",
    "role": "What it does, told from its name: q, up, head.",
    "shape": "Shape of its tensor.",
    "status": "What became of the spectrum and its fit.",
    "alpha": "Tail exponent.",
    "alpha_stderr": "Its standard error.",
    "log_norm": "log10 of the squared Frobenius norm.",
    "log_spectral_norm": "log10 of the largest singular value.",
    "stable_rank": "Stable rank.",
    "matrix_rank": "Rank of its matrices.",
    "warning": "What is to be said of the layer; may be empty.",
}


@dataclass(frozen=True, eq=False)
class LayerTrajectory(Value):
    """One layer from checkpoint to checkpoint.

    Attributes
    ----------
    name : str
        Its label in the first checkpoint that has it.
    rows : tuple of (LayerReport or None)
        Its row in each checkpoint; None where it is missing.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> (layer,) = ps.compare([{"fc.weight": c * W} for c in (1.0, 10.0, 100.0)]).layers
    >>> layer.name, [round(x, 6) for x in layer.shifts("log_spectral_norm")]
    ('fc', [0.0, 1.0, 2.0])
    """

    name: str
    rows: tuple[LayerReport | None, ...]

    @property
    def first(self) -> LayerReport:
        """The row in the first checkpoint that has the layer."""
        return next(row for row in self.rows if row is not None)

    @property
    def is_whole(self) -> bool:
        """Whether every checkpoint has the layer."""
        return all(row is not None for row in self.rows)

    @property
    def alpha(self) -> tuple[float, ...]:
        """Alpha in each checkpoint; NaN without one."""
        return tuple(math.nan if row is None else row.alpha for row in self.rows)

    @property
    def alpha_stderr(self) -> tuple[float, ...]:
        """Standard error of alpha in each checkpoint."""
        return tuple(math.nan if row is None else row.fit.alpha_stderr for row in self.rows)

    @property
    def has_tail(self) -> tuple[bool, ...]:
        """Whether alpha describes something, in each checkpoint."""
        return tuple(row is not None and has_tail(row) for row in self.rows)

    def values(self, metric: str) -> tuple[float, ...]:
        """Return a metric of the layer in each checkpoint, such as ``"log_norm"``; NaN if none."""
        return tuple(
            math.nan if row is None else float(row.metrics.get(metric, math.nan))
            for row in self.rows
        )

    def shifts(self, metric: str) -> tuple[float, ...]:
        """Return the differences of a metric from its first value."""
        found = self.values(metric)
        first = next((x for x in found if math.isfinite(x)), math.nan)
        return tuple(x - first for x in found)


@dataclass(frozen=True, eq=False, repr=False)
class TrajectoryData(Value):
    """The values of a trajectory; the views (table, sentences, plots, pages) are made from it.

    Attributes
    ----------
    reports : tuple of ReportData
        One for each checkpoint, oldest first.
    names : tuple of str
        What the checkpoints are called.
    steps : tuple of float
        Their steps, by the numbers in their names, or 0, 1, 2 and so on.
    layers : tuple of LayerTrajectory
        Every layer that some checkpoint has, in the order of the first, then those that came later.
    ends : ComparisonData
        The last checkpoint against the first.
    notes : tuple of str
        What was done to names so that they agree.
    """

    reports: tuple[ReportData, ...]
    names: tuple[str, ...]
    steps: tuple[float, ...]
    layers: tuple[LayerTrajectory, ...]
    ends: ComparisonData
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.reports)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[LayerTrajectory]:
        return iter(self.layers)

    def __reversed__(self) -> Iterator[LayerTrajectory]:
        return reversed(self.layers)

    def __getitem__(self, name: str) -> LayerTrajectory:
        """Return the layer of that name, by its name in any checkpoint."""
        for layer in self.layers:
            if name in (layer.name, *(row.label for row in layer.rows if row is not None)):
                return layer
        raise KeyError(f"Trajectory: no layer {name!r} is in any checkpoint.")

    @cached_property
    def followed(self) -> tuple[LayerTrajectory, ...]:
        """The layers whose alpha says something in every checkpoint; nothing counts twice."""
        wholes = [{id(row) for row in report.wholes} for report in self.reports]
        return tuple(
            layer
            for layer in self.layers
            if all(layer.has_tail)
            and all(id(row) in own for row, own in zip(layer.rows, wholes, strict=True))
        )

    @cached_property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """The layers that some checkpoints lack -> the names of these checkpoints."""
        return {
            layer.name: tuple(
                name for name, row in zip(self.names, layer.rows, strict=True) if row is None
            )
            for layer in self.layers
            if not layer.is_whole
        }

    def summary(self) -> list[dict[str, Any]]:
        """Return one dict for each checkpoint: means over layers, outliers and the verdict.

        ``alpha`` is the mean over the layers whose alpha says something in every checkpoint
        (`followed`), so that it is one of the same layers throughout; ``alpha_fitted`` that over
        all layers with a fit. The norms and ranks are means over all layers of the checkpoint.
        """
        return [self._summary(place, report) for place, report in enumerate(self.reports)]

    def _summary(self, place: int, report: ReportData) -> dict[str, Any]:
        alphas = [row.alpha for row in report.wholes if fitted(row)]
        means = {
            name: _mean([float(row.metrics.get(name, math.nan)) for row in report.wholes])
            for name in FOLLOWED
        }
        return {
            "checkpoint": self.names[place],
            "step": self.steps[place],
            "n_layers": len(report.wholes),
            "n_followed": len(self.followed),
            "alpha": _mean([layer.alpha[place] for layer in self.followed]),
            "n_fitted": len(alphas),
            "alpha_fitted": _mean(alphas),
            "n_above": sum(alpha > THRESHOLDS.alpha_high for alpha in alphas),
            "n_below": sum(alpha < THRESHOLDS.alpha_low for alpha in alphas),
            **means,
            "verdict": report.verdict.label,
        }

    @property
    def files(self) -> tuple[str, ...]:
        """What was read, which no view may be written over."""
        return tuple(file for report in self.reports for file in report.files)

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the table, each with what it is in one sentence."""
        return dict(COLUMNS)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each layer of each checkpoint that has it, in this order."""
        return [
            self._row(place, layer)
            for place in range(len(self.reports))
            for layer in self.layers
            if layer.rows[place] is not None
        ]

    def _row(self, place: int, layer: LayerTrajectory) -> dict[str, Any]:
        row = layer.rows[place]
        assert row is not None
        return {
            "checkpoint": self.names[place],
            "step": self.steps[place],
            "name": layer.name,
            "kind": row.kind,
            "stack": row.stack,
            "block": row.block,
            "role": row.role,
            "shape": "x".join(map(str, row.shape)),
            "status": str(row.status),
            "alpha": row.alpha,
            "alpha_stderr": row.fit.alpha_stderr,
            **{name: float(row.metrics.get(name, math.nan)) for name in FOLLOWED},
            "warning": row.warning,
        }


def _mean(values: list[float]) -> float:
    kept = [x for x in values if math.isfinite(x)]
    return sum(kept) / len(kept) if kept else math.nan
