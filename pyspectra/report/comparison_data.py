"""What a comparison of two models found, as one value; its views are made from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_choice
from pyspectra._support.cached import cached_property
from pyspectra.report.columns import as_column, fitted
from pyspectra.report.compared_layers import COLUMNS, LayerComparison, MeanShift, mean_shift
from pyspectra.report.data import ReportData
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.histogram import AlphaHistogram, alpha_histogram
from pyspectra.types import Value

# A pair whose weights correlate more than this, in the median layer, is one model and what became
# of it. Independent models correlate by some hundredths, a tuned one by 0.9 and more; between lie
# networks that were trained far from where they began.
RELATED = 0.5


@dataclass(frozen=True)
class Outliers:
    """The layers of one model whose alpha is outside the typical range, judged or not.

    Attributes
    ----------
    above, below : tuple of str
        Their labels, those that are too small to tell included.
    """

    above: tuple[str, ...]
    below: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonData(Value):
    """The values of a comparison; the views (table, sentences, plots, pages) are made from it.

    Attributes
    ----------
    a, b : ReportData
    names : tuple of two str
        What the models are called in sentences.
    layers : tuple of LayerComparison
        The layers that both have, in the order of the first.
    only_in_a, only_in_b : tuple of str
        Names of the layers that the other model lacks, whether they were analysed or not.
    equal_architecture : bool
        Whether both have the same layers, of the same kinds and shapes.
    notes : tuple of str
        What was done to names so that they agree.
    correlation : float
        Median over the layers of the correlation of the weights; NaN if it was not taken.
    difference : ReportData or None
        The report of the second less the first, where their weights correlate.
    """

    a: ReportData
    b: ReportData
    names: tuple[str, str]
    layers: tuple[LayerComparison, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    equal_architecture: bool
    notes: tuple[str, ...] = ()
    correlation: float = math.nan
    difference: ReportData | None = None

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[LayerComparison]:
        return iter(self.layers)

    def __reversed__(self) -> Iterator[LayerComparison]:
        return reversed(self.layers)

    # Beside an array a comparison is one thing, not a sequence whose entries numpy would compare.
    __array_ufunc__ = None

    def __contains__(self, layer: object) -> bool:
        """Tell whether both models have a layer of this name, or whether this is a row."""
        if isinstance(layer, str):
            return any(layer in (row.a.label, row.b.label) for row in self.layers)
        return layer in self.layers

    def __getitem__(self, name: str) -> Any:
        """Return the layer of that name in either model, or a column: ``found["alpha_shift"]``.

        A name that both a layer and a column have is refused: `layer` and `column` tell them apart.
        """
        if name not in {column.name for column in COLUMNS}:
            return self.layer(name)
        if name in self:
            raise KeyError(
                f"{name!r} is a layer and a column: write .layer({name!r}) or .column({name!r})"
            )
        return self.column(name)

    def layer(self, name: str) -> LayerComparison:
        """Return the layer of that name in either model.

        Raises
        ------
        KeyError
            If the models do not share such a layer.
        """
        for row in self.layers:
            if name in (row.a.label, row.b.label):
                return row
        raise KeyError(f"Comparison: no layer {name!r} is in both models.")

    def column(self, name: str) -> np.ndarray | list[Any]:
        """Return a column of the table: an array where all values are numbers, else a list.

        Raises
        ------
        ArgumentValueError
            If there is no such column.
        """
        check_choice("Comparison", "column", name, tuple(column.name for column in COLUMNS))
        (column,) = (column for column in COLUMNS if column.name == name)
        return as_column([column.value(row) for row in self.layers])

    @property
    def reports(self) -> tuple[ReportData, ReportData]:
        """Both models' reports."""
        return self.a, self.b

    @cached_property
    def compared(self) -> tuple[LayerComparison, ...]:
        """The layers whose alpha says something in both models; nothing counts twice."""
        wholes = {id(row) for row in self.a.wholes}
        return tuple(x for x in self.layers if x.is_compared and id(x.a) in wholes)

    @property
    def is_related(self) -> bool:
        """Whether one was trained from the other, or both from a third, by their weights."""
        return self.correlation > RELATED

    @cached_property
    def fitted_alphas(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Alpha of every layer with a fit, in each model, judged or not; nothing counts twice."""
        first, second = (
            tuple(row.alpha for row in report.wholes if fitted(row)) for report in (self.a, self.b)
        )
        return first, second

    @cached_property
    def histogram(self) -> AlphaHistogram:
        """How many layers have which alpha in each model, in the same bins."""
        return alpha_histogram(*self.fitted_alphas)

    @cached_property
    def outliers(self) -> tuple[Outliers, Outliers]:
        """The layers outside of the typical range of alpha in each model."""
        first, second = map(_outliers, (self.a, self.b))
        return first, second

    @cached_property
    def intruders(self) -> tuple[LayerComparison, ...]:
        """The layers that have intruder dimensions."""
        return tuple(x for x in self.layers if x.n_intruders)

    @cached_property
    def alpha_shift(self) -> MeanShift:
        """The mean difference of alpha, over `compared`."""
        return mean_shift([x.alpha_shift for x in self.compared])

    @cached_property
    def log_spectral_norm_shift(self) -> MeanShift:
        """The mean difference of log10 of the spectral norm, over all layers of both."""
        return self._mean_of("log_spectral_norm_shift")

    @cached_property
    def log_norm_shift(self) -> MeanShift:
        """The mean difference of log10 of the squared Frobenius norm, over all layers of both."""
        return self._mean_of("log_norm_shift")

    @cached_property
    def log_stable_rank_shift(self) -> MeanShift:
        """The mean difference of log10 of the stable rank, over all layers of both."""
        wholes = {id(row) for row in self.a.wholes}
        ratios = [x.stable_rank_ratio for x in self.layers if id(x.a) in wholes]
        return mean_shift([math.log10(x) for x in ratios if 0.0 < x < math.inf])

    def _mean_of(self, name: str) -> MeanShift:
        wholes = {id(row) for row in self.a.wholes}
        shifts = [getattr(x, name) for x in self.layers if id(x.a) in wholes]
        return mean_shift([x for x in shifts if math.isfinite(x)])

    def summary(self) -> dict[str, float]:
        """Return the main numbers: means of both models, differences, and their intervals."""
        alpha, norm, whole = self.alpha_shift, self.log_spectral_norm_shift, self.log_norm_shift
        rank = self.log_stable_rank_shift
        n = len(self.compared)
        return {
            "n_layers": len(self.layers),
            "n_compared": n,
            **self._of_fitted(),
            "n_only_in_a": len(self.only_in_a),
            "n_only_in_b": len(self.only_in_b),
            "alpha_a": sum(x.a.alpha for x in self.compared) / n if n else math.nan,
            "alpha_b": sum(x.b.alpha for x in self.compared) / n if n else math.nan,
            "alpha_shift": alpha.mean,
            "alpha_shift_low": alpha.low,
            "alpha_shift_high": alpha.high,
            "alpha_shift_fit_stderr": self._fit_stderr(),
            "n_lower": sum(x.change == "lower" for x in self.compared),
            "n_higher": sum(x.change == "higher" for x in self.compared),
            "log_spectral_norm_shift": norm.mean,
            "log_spectral_norm_shift_low": norm.low,
            "log_spectral_norm_shift_high": norm.high,
            "log_norm_shift": whole.mean,
            "log_norm_shift_low": whole.low,
            "log_norm_shift_high": whole.high,
            "stable_rank_ratio": 10.0**rank.mean,
            "stable_rank_ratio_low": 10.0**rank.low,
            "stable_rank_ratio_high": 10.0**rank.high,
            "correlation": self.correlation,
            "n_intruders": sum(x.n_intruders for x in self.layers),
        }

    def _of_fitted(self) -> dict[str, float]:
        """Return what WeightWatcher looks at: means and outliers of all that has a fit."""
        found: dict[str, float] = {}
        for side, alphas, out in zip("ab", self.fitted_alphas, self.outliers, strict=True):
            found[f"n_fitted_{side}"] = len(alphas)
            found[f"alpha_fitted_{side}"] = sum(alphas) / len(alphas) if alphas else math.nan
            found[f"n_above_{side}"] = len(out.above)
            found[f"n_below_{side}"] = len(out.below)
        return found

    def _fit_stderr(self) -> float:
        """Standard error of the mean shift of these very layers, from the errors of fits."""
        n = len(self.compared)
        squares = sum(x.alpha_shift_stderr**2 for x in self.compared)
        return math.sqrt(squares) / n if n else math.nan

    @property
    def files(self) -> tuple[str, ...]:
        """What was read, which no view may be written over."""
        return (*self.a.files, *self.b.files)

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the layers in their order, each with what it is in one sentence."""
        return {column.name: column.help for column in COLUMNS}

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each layer."""
        return [{column.name: column.value(x) for column in COLUMNS} for x in self.layers]


def _outliers(report: ReportData) -> Outliers:
    rows = [row for row in report.wholes if fitted(row)]
    return Outliers(
        tuple(row.label for row in rows if row.alpha > THRESHOLDS.alpha_high),
        tuple(row.label for row in rows if row.alpha < THRESHOLDS.alpha_low),
    )
