"""A report by roles or by blocks: a report of each, and a row of numbers for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pyspectra.errors import missing_dependency
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import HEAVY_TAIL, LIGHT_TAIL, UNJUDGED, is_judged
from pyspectra.types import Status

if TYPE_CHECKING:
    import pandas

__all__ = ["GROUPINGS", "GROUP_COLUMNS", "Groups"]

OTHER = "other"


def _block_of(row: LayerReport) -> str:
    return OTHER if row.block is None else f"{row.stack}.{row.block}".lstrip(".")


# What rows can be grouped by, and what the group of a row is called.
GROUPINGS: dict[str, Callable[[LayerReport], str]] = {
    "role": lambda row: row.role or OTHER,
    "block": _block_of,
    "stack": lambda row: row.stack or OTHER,
    "kind": lambda row: row.kind,
}


class _Part(Protocol):
    @property
    def wholes(self) -> tuple[LayerReport, ...]: ...


R = TypeVar("R", bound=_Part)

GROUP_COLUMNS: dict[str, str] = {
    "group": "Name of the group.",
    "n_layers": "Number of its layers, without parts of layers that count themselves.",
    "n_judged": "Number of layers whose alpha is judged, and enters the next three.",
    "alpha": "Mean of alpha over the judged layers.",
    "alpha_min": "Least alpha of the judged layers.",
    "alpha_max": "Largest alpha of the judged layers.",
    "n_heavy": "Number of layers with a heavy tail.",
    "n_light": "Number of layers with a light tail.",
    "n_unjudged": "Number of layers that have a fit and whose alpha says nothing.",
    "n_failed": "Number of layers without a fit.",
    "log_norm": "Mean of log10 of the squared Frobenius norm.",
    "stable_rank": "Mean stable rank.",
}
"""The columns of `Groups.rows`, each with what it is."""


class Groups(Mapping[str, R], Generic[R]):
    """The rows of a report in groups: a mapping from the name of a group to the report of it.

    Parameters
    ----------
    by : str
        What they were grouped by.
    reports : mapping of str to Report
        One for each group, in the order in which the groups begin in the model.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> names = [f"layers.{i}.self_attn.{x}_proj.weight" for i in range(2) for x in "qk"]
    >>> roles = ps.analyze({name: rng.standard_normal((30, 20)) for name in names}).by("role")
    >>> list(roles), len(roles["q"]), roles.rows()[0]["n_layers"]
    (['q', 'k'], 2, 2)
    """

    def __init__(self, by: str, reports: Mapping[str, R]) -> None:
        self.by = by
        self._reports = dict(reports)

    def __getitem__(self, name: str) -> R:
        return self._reports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}: {len(part.wholes)}" for name, part in self._reports.items())
        return f"<Groups by {self.by}: {listed}>"

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each group, with the columns of `GROUP_COLUMNS`."""
        return [_row(name, part.wholes) for name, part in self._reports.items()]

    def to_pandas(self) -> pandas.DataFrame:
        """Return `rows` as a pandas DataFrame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise missing_dependency("pandas", "Groups.to_pandas", extra="pandas") from error
        return pandas.DataFrame(self.rows(), columns=list(GROUP_COLUMNS))


def _row(name: str, layers: tuple[LayerReport, ...]) -> dict[str, Any]:
    fitted = [layer for layer in layers if layer.status is Status.OK]
    alphas = [layer.alpha for layer in fitted if is_judged(layer)]
    warnings = [layer.warning for layer in fitted]
    return {
        "group": name,
        "n_layers": len(layers),
        "n_judged": len(alphas),
        "alpha": _mean(alphas),
        "alpha_min": min(alphas, default=math.nan),
        "alpha_max": max(alphas, default=math.nan),
        "n_heavy": warnings.count(HEAVY_TAIL.word),
        "n_light": warnings.count(LIGHT_TAIL.word),
        "n_unjudged": sum(warnings.count(problem.word) for problem in UNJUDGED),
        "n_failed": len(layers) - len(fitted),
        "log_norm": _mean([layer.metrics.get("log_norm", math.nan) for layer in layers]),
        "stable_rank": _mean([layer.metrics.get("stable_rank", math.nan) for layer in layers]),
    }


def _mean(values: list[float]) -> float:
    known = [value for value in map(float, values) if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
