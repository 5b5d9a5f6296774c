"""Two models side by side: differences with errors, and a ranking only where one can be had."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from pyspectra._support.arguments import check_output
from pyspectra._support.cached import cached_property
from pyspectra._support.files import write_text
from pyspectra._support.text import printable
from pyspectra.errors import missing_dependency
from pyspectra.report.compared_layers import (
    COLUMNS,
    DIFFERS,
    FEWEST,
    LEVEL,
    LayerComparison,
    MeanShift,
    mean_shift,
)
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import certainty, is_judged
from pyspectra.report.report import Report, plain
from pyspectra.types import Status, Value

if TYPE_CHECKING:
    import pandas
    from rich.console import Console

JSON_SCHEMA = "pyspectra.comparison/1"
NAMES_SHOWN = 5


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Value):
    """What `pyspectra.compare` returns: two reports, and what differs between them.

    Attributes
    ----------
    a, b : Report
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

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> comparison = ps.compare({"fc.weight": W}, {"fc.weight": 2 * W}, names=("old", "new"))
    >>> len(comparison), comparison.summary()["n_compared"]
    (1, 0)
    >>> comparison.ranking
    'No ranking: fewer than 3 layers can be compared.'
    """

    a: Report
    b: Report
    names: tuple[str, str]
    layers: tuple[LayerComparison, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    equal_architecture: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[LayerComparison]:
        return iter(self.layers)

    def __getitem__(self, name: str) -> LayerComparison:
        """Return the layer of that name in either model."""
        for row in self.layers:
            if name in (row.a.label, row.b.label):
                return row
        raise KeyError(f"Comparison: no layer {name!r} is in both models.")

    @cached_property
    def compared(self) -> tuple[LayerComparison, ...]:
        """The layers whose alpha says something in both models; nothing counts twice."""
        wholes = {id(row) for row in self.a.wholes}
        return tuple(x for x in self.layers if x.is_compared and id(x.a) in wholes)

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

    def _mean_of(self, name: str) -> MeanShift:
        wholes = {id(row) for row in self.a.wholes}
        shifts = [getattr(x, name) for x in self.layers if id(x.a) in wholes]
        return mean_shift([x for x in shifts if math.isfinite(x)])

    def summary(self) -> dict[str, float]:
        """Return the main numbers: means of both models, differences, and their intervals."""
        alpha, norm, whole = self.alpha_shift, self.log_spectral_norm_shift, self.log_norm_shift
        n = len(self.compared)
        return {
            "n_layers": len(self.layers),
            "n_compared": n,
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
        }

    def _fit_stderr(self) -> float:
        """Standard error of the mean shift of these very layers, from the errors of fits."""
        n = len(self.compared)
        squares = sum(x.alpha_shift_stderr**2 for x in self.compared)
        return math.sqrt(squares) / n if n else math.nan

    @property
    def ranking(self) -> str:
        """Which model alpha would rank first, with what is known of such rankings; or why none."""
        return " ".join(_ranking(self))

    @property
    def text(self) -> str:
        """A few sentences: what differs, how sure that is, outliers, and a ranking or none."""
        return " ".join([*_differences(self), *_outliers(self), *_ranking(self), LIMIT])

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return (
            f"<Comparison of {self.names[0]} and {self.names[1]}: {len(self.layers)} layers, "
            f"{len(self.compared)} compared>"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each layer."""
        return [{column.name: column.value(x) for column in COLUMNS} for x in self.layers]

    def to_pandas(self) -> pandas.DataFrame:
        """Return the layers as a pandas DataFrame.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise missing_dependency("pandas", "Comparison.to_pandas", extra="pandas") from error
        return pandas.DataFrame(self.rows(), columns=[column.name for column in COLUMNS])

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return the layers as CSV, and write them to `path` if one is given."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [column.name for column in COLUMNS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return self._written("Comparison.to_csv", path, out.getvalue())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the eigenvalues as plain values; NaN and infinity become None."""
        found: dict[str, Any] = plain(
            {
                "schema": JSON_SCHEMA,
                "names": self.names,
                "sources": [self.a.source, self.b.source],
                "options": self.a.options.to_dict(),
                "notes": self.notes,
                "equal_architecture": self.equal_architecture,
                "only_in_a": self.only_in_a,
                "only_in_b": self.only_in_b,
                "verdicts": [self.a.verdict.label, self.b.verdict.label],
                "text": self.text,
                "ranking": self.ranking,
                "summary": self.summary(),
                "layers": self.rows(),
            }
        )
        return found

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path` if one is given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        return self._written("Comparison.to_json", path, text)

    def _written(self, function: str, path: str | PathLike[str] | None, text: str) -> str:
        if path is not None:
            read = (*self.a.files, *self.b.files)
            write_text(check_output(function, "path", path, read), text)
        return text

    def print(self, console: Console | None = None) -> None:
        """Print the table of layers and the sentences.

        Parameters
        ----------
        console : rich.console.Console, optional
            The terminal or file to print to; standard output by default.
        """
        from rich.console import Console

        from pyspectra.report.comparison_table import render

        render(self, Console() if console is None else console)


# --- words --------------------------------------------------------------------------------------

LIMIT = "Spectra are no measurement of accuracy: only a test set is."

KNOWN = (
    "Among runs of small networks that differed in learning rate, number of epochs or share of "
    "wrong labels, the one with the lower mean alpha mostly had the better test score; where they "
    "differed in weight decay, mostly the worse one. The larger norm of the weights kept its sign."
)


def _differences(found: Comparison) -> Iterator[str]:
    first, second = map(printable, found.names)
    n, alpha = len(found.compared), found.alpha_shift
    yield (
        f"{n} of {len(found.layers)} layers that {first} and {second} share show structure and a "
        "tail in both."
    )
    lawless = sum("no power law" in (x.a.warning, x.b.warning) for x in found.compared)
    if lawless:
        yield (
            f"In {lawless} of them the tail follows no power law in one or both (p <= 0.1): alpha "
            "then says no more than how steep it is."
        )
    if n:
        means = found.summary()
        sentence = (
            f"Their mean alpha is {means['alpha_a']:.2f} in {first} and {means['alpha_b']:.2f} in "
            f"{second}, a difference of {alpha.mean:+.2f}"
        )
        if math.isfinite(alpha.low):
            sentence += f" ({LEVEL:.0%} interval over layers {alpha.low:+.2f} to {alpha.high:+.2f})"
        yield f"{sentence}; it is lower in {alpha.n_lower} layers and higher in {alpha.n_higher}."
        yield from _beyond_error(found)
    for quantity, norm in (
        ("the spectral norm", found.log_spectral_norm_shift),
        ("the squared Frobenius norm", found.log_norm_shift),
    ):
        if norm.n:
            interval = (
                f" (interval {norm.low:+.2f} to {norm.high:+.2f})" if norm.n >= FEWEST else ""
            )
            yield f"log10 of {quantity} differs by {norm.mean:+.2f} on average{interval}."
    for name, side in ((first, "a"), (second, "b")):
        only = [x.a.label for x in found.layers if x.change == f"structure in {side} only"]
        if only:
            yield f"Only {name} shows structure in {_listed(only)}."


def _beyond_error(found: Comparison) -> Iterator[str]:
    sure = sorted((x for x in found.compared if x.p_value <= DIFFERS), key=_least_likely)
    if not sure:
        yield f"In no layer does alpha differ by more than the error of its fits (p > {DIFFERS:g})."
        return
    listed = _listed([f"{x.a.label} ({_with_error(x)})" for x in sure])
    noun = "layer" if len(sure) == 1 else "layers"
    yield (
        f"By more than the error of the fits (p <= {DIFFERS:g} after Bonferroni) alpha differs in "
        f"{len(sure)} {noun}: {listed}."
    )


def _least_likely(row: LayerComparison) -> float:
    return -abs(row.alpha_shift) / row.alpha_shift_stderr


def _with_error(row: LayerComparison) -> str:
    return f"{row.alpha_shift:+.2f}, error {row.alpha_shift_stderr:.2f}"


def _outliers(found: Comparison) -> Iterator[str]:
    """Name the layers outside 2 to 6, those that are not judged included."""
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    for name, report in zip(found.names, (found.a, found.b), strict=True):
        fitted = [x for x in report.wholes if x.status is Status.OK]
        for out, bound in (
            ([x for x in fitted if x.alpha > high], f"above {high:g}"),
            ([x for x in fitted if x.alpha < low], f"below {low:g}"),
        ):
            if out:
                listed = _listed([f"{x.label} ({x.alpha:.2f}, {_said_of(x)})" for x in out])
                yield f"Outliers of {printable(name)}, alpha {bound}: {listed}."


def _said_of(row: LayerReport) -> str:
    return certainty(row) if is_judged(row) else row.warning


def _ranking(found: Comparison) -> Iterator[str]:
    if not found.equal_architecture:
        yield "No ranking: the architectures differ, and so does what alpha says."
    elif len(found.compared) < FEWEST:
        yield f"No ranking: fewer than {FEWEST} layers can be compared."
    elif not found.alpha_shift.is_clear:
        yield "No ranking: the mean difference of alpha lies within its error."
    else:
        lower = printable(found.names[0 if found.alpha_shift.mean > 0.0 else 1])
        yield f"{lower} has the lower mean alpha. {KNOWN}"


def _listed(words: Sequence[str]) -> str:
    shown = [printable(word) for word in words[:NAMES_SHOWN]]
    more = len(words) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")
