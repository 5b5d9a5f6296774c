"""The layers of two models side by side: the values of a comparison.

`COLUMNS` lists its columns as records, like those of a report. A difference is always that of the
second model from the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra._support.cached import cached_property
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import NO_STRUCTURE, has_tail
from pyspectra.spectra import distance
from pyspectra.types import Status, Value

if TYPE_CHECKING:
    from pyspectra.spectra.intruders import Intruders

LEVEL = 0.95
DISTANCES: Mapping[str, distance.MatrixDistance] = {
    "ks": distance.kolmogorov_smirnov,
    "wasserstein": distance.wasserstein,
    "js": distance.jensen_shannon,
}
# A layer differs where p, times the number of layers compared, is at most this.
DIFFERS = 0.01
# A mean over fewer layers has no interval worth the name.
FEWEST = 3


@dataclass(frozen=True, eq=False)
class LayerComparison(Value):
    """One layer of two models.

    Attributes
    ----------
    a, b : LayerReport
        Its rows in the two reports.
    n_compared : int
        Layers whose alpha is compared, by which `p_value` is multiplied (Bonferroni).
    correlation : float
        Pearson's correlation of the weights themselves; NaN for different shapes, or if it was not
        taken.
    intruders : Intruders or None
        Directions of the second model that the first lacks, where one was trained from the other.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> (row,) = ps.compare({"fc.weight": W}, {"fc.weight": 2 * W}).layers
    >>> round(row.log_spectral_norm_shift, 3), row.change
    (0.301, 'no structure in either')
    """

    a: LayerReport
    b: LayerReport
    n_compared: int = 1
    correlation: float = math.nan
    intruders: Intruders | None = None

    @property
    def is_compared(self) -> bool:
        """Whether alpha says something in both models, be it only how steep the tail is."""
        return has_tail(self.a) and has_tail(self.b)

    @property
    def alpha_shift(self) -> float:
        """Alpha of the second model less that of the first."""
        return self.b.alpha - self.a.alpha

    @property
    def alpha_shift_stderr(self) -> float:
        """Standard error of `alpha_shift`, from the errors of the two fits."""
        return math.hypot(self.a.fit.alpha_stderr, self.b.fit.alpha_stderr)

    @property
    def p_value(self) -> float:
        """P-value of "one alpha", times the number of layers; NaN where alpha is not compared."""
        if not self.is_compared or not self.alpha_shift_stderr > 0.0:
            return math.nan
        z = abs(self.alpha_shift) / self.alpha_shift_stderr
        return min(1.0, self.n_compared * math.erfc(z / math.sqrt(2.0)))

    @property
    def log_spectral_norm_shift(self) -> float:
        """Difference of log10 of the spectral norm; NaN without spectra."""
        return _metric(self.b, "log_spectral_norm") - _metric(self.a, "log_spectral_norm")

    @property
    def log_norm_shift(self) -> float:
        """Difference of log10 of the sum of the eigenvalues; NaN without spectra."""
        return _metric(self.b, "log_norm") - _metric(self.a, "log_norm")

    @property
    def stable_rank_ratio(self) -> float:
        """Stable rank of the second model over that of the first; NaN without spectra."""
        first, second = _metric(self.a, "stable_rank"), _metric(self.b, "stable_rank")
        return second / first if first > 0.0 else math.nan

    @property
    def rank_shift(self) -> float:
        """Difference of the ranks of the matrices; NaN without spectra."""
        return _metric(self.b, "matrix_rank") - _metric(self.a, "matrix_rank")

    @property
    def n_intruders(self) -> int:
        """Number of intruder dimensions; 0 where none were looked for."""
        return self.intruders.n if self.intruders is not None else 0

    @cached_property
    def distances(self) -> Mapping[str, float]:
        """Distances between the two spectra by name; NaN where one cannot be formed.

        ``"ks"`` (Kolmogorov-Smirnov) and ``"wasserstein"`` (earth mover's, in units of the
        eigenvalues) compare spectra of any two shapes, ``"js"`` (Jensen-Shannon) those of one
        length; see `pyspectra.distances`.
        """
        x, y = self.a.esd, self.b.esd
        if x.status is not Status.OK or y.status is not Status.OK:
            return dict.fromkeys(DISTANCES, math.nan)
        one_length = len(x.evals) == len(y.evals)
        return {
            name: between(x.evals, y.evals) if one_length or name != "js" else math.nan
            for name, between in DISTANCES.items()
        }

    @property
    def change(self) -> str:
        """What is to be said of alpha: lower, higher, within its error, or why it is not."""
        if self.is_compared:
            if not self.p_value <= DIFFERS:
                return "within its error"
            return "lower" if self.alpha_shift < 0.0 else "higher"
        if any(row.status is not Status.OK for row in (self.a, self.b)):
            return "no fit"
        silent = [row for row in (self.a, self.b) if not has_tail(row)]
        if any(row.warning != NO_STRUCTURE.word for row in silent):
            return "not compared"
        if len(silent) == 2:
            return "no structure in either"
        return "structure in b only" if silent[0] is self.a else "structure in a only"


def _metric(row: LayerReport, name: str) -> float:
    return float(row.metrics.get(name, math.nan))


@dataclass(frozen=True)
class Column:
    """One column of a comparison: its name, the value of a layer, and what it is."""

    name: str
    value: Callable[[LayerComparison], Any]
    help: str


COLUMNS = (
    Column("name", lambda r: r.a.label, "Name of the layer in the first model."),
    Column("name_b", lambda r: r.b.label, "Its name in the second."),
    Column("kind", lambda r: r.a.kind, "Kind of layer."),
    Column("stack", lambda r: r.a.stack, "Beginning of its name, up to the number of its block."),
    Column("block", lambda r: r.a.block, "Number of its block in the stack, as its name has it."),
    Column("role", lambda r: r.a.role, "What it does, told from its name: q, up, head."),
    Column("shape", lambda r: "x".join(map(str, r.a.shape)), "Shape of its tensor."),
    Column("shape_b", lambda r: "x".join(map(str, r.b.shape)), "The same in the second."),
    Column("alpha_a", lambda r: r.a.alpha, "Tail exponent in the first model."),
    Column("alpha_b", lambda r: r.b.alpha, "Tail exponent in the second."),
    Column("alpha_shift", lambda r: r.alpha_shift, "The second less the first."),
    Column("alpha_shift_stderr", lambda r: r.alpha_shift_stderr,
           "Standard error of the shift, from those of the two fits."),
    Column("p_value", lambda r: r.p_value, "P-value of one alpha, times the number of layers."),
    Column("change", lambda r: r.change, "What is to be said of alpha."),
    Column("log_spectral_norm_shift", lambda r: r.log_spectral_norm_shift,
           "Difference of log10 of the spectral norm."),
    Column("log_norm_shift", lambda r: r.log_norm_shift,
           "Difference of log10 of the squared Frobenius norm."),
    Column("stable_rank_a", lambda r: _metric(r.a, "stable_rank"),
           "Stable rank in the first model."),
    Column("stable_rank_b", lambda r: _metric(r.b, "stable_rank"), "Stable rank in the second."),
    Column("rank_a", lambda r: _metric(r.a, "matrix_rank"),
           "Rank of its matrices in the first model."),
    Column("rank_b", lambda r: _metric(r.b, "matrix_rank"), "The same in the second."),
    Column("ks", lambda r: r.distances["ks"],
           "Kolmogorov-Smirnov distance between the two spectra."),
    Column("wasserstein", lambda r: r.distances["wasserstein"],
           "Earth mover's distance between them, in units of the eigenvalues."),
    Column("js", lambda r: r.distances["js"],
           "Jensen-Shannon distance between them, where they have one length."),
    Column("correlation", lambda r: r.correlation, "Correlation of the weights themselves."),
    Column("n_intruders", lambda r: r.intruders.n if r.intruders else math.nan,
           "Intruder dimensions, where one model was trained from the other."),
    Column("warning_a", lambda r: r.a.warning, "What is to be said of it in the first model."),
    Column("warning_b", lambda r: r.b.warning, "What is to be said of it in the second."),
)  # fmt: skip


@dataclass(frozen=True)
class MeanShift:
    """The mean of a difference over layers.

    Attributes
    ----------
    n : int
        Number of layers.
    mean : float
    low, high : float
        95 % interval from the spread over the layers (Student's t); NaN for fewer than 3.
    n_lower, n_higher : int
        Number of layers where the second model has less, and where it has more.
    """

    n: int
    mean: float
    low: float
    high: float
    n_lower: int
    n_higher: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0


def mean_shift(shifts: Sequence[float]) -> MeanShift:
    """Return the mean of some differences, with its interval."""
    from scipy.special import stdtrit

    n = len(shifts)
    mean = sum(shifts) / n if n else math.nan
    half = math.nan
    if n >= FEWEST:
        variance = sum((x - mean) ** 2 for x in shifts) / (n - 1)
        half = float(stdtrit(n - 1, 0.5 + LEVEL / 2.0)) * math.sqrt(variance / n)
    return MeanShift(
        n,
        mean,
        mean - half,
        mean + half,
        sum(x < 0.0 for x in shifts),
        sum(x > 0.0 for x in shifts),
    )
