"""What is measured of a layer besides its eigenvalues: one record each.

The entries of a layer are in memory for a moment; whatever a metric needs of them is taken then, by
a function with `@of_entries`. What follows from the spectrum and from what was taken is a function
with `@of_spectrum`. Both store their value under a name, where metrics (`Spectrum.measured`) and
the row of the report (`LayerReport.measured`) find it; nothing else has to know of it.

Permutations of the entries (`randomize`) are spectra of their own: they are solved together with
the layer's, and their eigenvalues are handed to the functions of the second kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._support.cached import cached_property
from pyspectra._support.random import Purpose, random_key
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import (
    marchenko_pastur,
    null_test,
    randomize,
    structures,
)
from pyspectra.spectra.eigenvectors import EigenvectorStatistics, eigenvector_statistics
from pyspectra.spectra.estimators import Estimator, parse_estimator
from pyspectra.spectra.farms import fit_windows
from pyspectra.spectra.margins import Margins, margins
from pyspectra.spectra.null_test import NullTest
from pyspectra.types import ESD, FloatArray, MPFit, PowerLawFit
from pyspectra.weights import Layer
from pyspectra.weights.rounding import Change, low_rank

# What serves other measurements and is not kept in a report. The fit of sub-matrices becomes the
# row's own fit.
WINDOWS = "windows"
PASSING = (WINDOWS, "margins", "made", "zeros")


@dataclass(frozen=True)
class Entries:
    """The entries of one row of a report, while they are in memory.

    Attributes
    ----------
    matrices : sequence of HostArray
        The matrices of the row: all of the layer, or one slice of it with ``pool=False``.
    options : AnalyzeOptions
    change : Change or None
        How large the difference of two models is and what of it is rounding; None for stored
        weights.
    """

    matrices: Sequence[HostArray]
    options: AnalyzeOptions
    change: Change | None = None

    @cached_property
    def tested(self) -> Sequence[HostArray]:
        """The matrices that the test for structure looks at."""
        return null_test.tested(self.matrices)

    @cached_property
    def sample(self) -> tuple[float, float]:
        """Excess kurtosis and share of zeros of some of the entries."""
        return structures.sampled(self.matrices)

    @property
    def threshold(self) -> float:
        """What eigenvalues must exceed to enter a fit; 0 if only their ratios count."""
        return self.change.floor if self.change is not None else 0.0


@dataclass(frozen=True)
class Solved:
    """What is known of a row once its spectrum is.

    Attributes
    ----------
    esd : ESD
        The spectrum, with status ``OK``.
    replicas : sequence of ndarray
        Ascending eigenvalues of the permuted entries, one array a permutation.
    measured : Mapping
        What was taken from the entries, by name, and what has followed so far.
    label : str
        What tells the random numbers of the row from those of all others.
    seed : int
    entries : callable
        Reads the matrices of the row once more, for what cannot be told without them. Few
        measurements of few layers should want it.
    """

    esd: ESD
    replicas: Sequence[FloatArray]
    measured: Mapping[str, Any]
    label: str = ""
    seed: int = 0
    entries: Callable[[], Sequence[HostArray]] = tuple


Wanted = Callable[[AnalyzeOptions], bool]
_of_entries: dict[str, tuple[Wanted, Callable[[Entries], Any]]] = {}
_of_spectrum: dict[str, tuple[Wanted, Callable[[Solved], Any]]] = {}


def _always(_options: AnalyzeOptions) -> bool:
    return True


def _option(name: str | None) -> Wanted:
    return _always if name is None else lambda options: bool(getattr(options, name))


def of_entries(
    name: str, *, option: str | None = None, wanted: Wanted | None = None
) -> Callable[[Callable[[Entries], Any]], Callable[[Entries], Any]]:
    """Register what is taken from the entries: always, with an `option`, or where `wanted`."""

    def register(function: Callable[[Entries], Any]) -> Callable[[Entries], Any]:
        _of_entries[name] = wanted or _option(option), function
        return function

    return register


def of_spectrum(
    name: str, *, option: str | None = None, wanted: Wanted | None = None
) -> Callable[[Callable[[Solved], Any]], Callable[[Solved], Any]]:
    """Register what follows from a spectrum: always, with an `option`, or where `wanted`."""

    def register(function: Callable[[Solved], Any]) -> Callable[[Solved], Any]:
        _of_spectrum[name] = wanted or _option(option), function
        return function

    return register


def take(entries: Entries) -> dict[str, Any]:
    """Take all that the options ask for from entries."""
    options = entries.options
    return {name: f(entries) for name, (wanted, f) in _of_entries.items() if wanted(options)}


def follow(solved: Solved, options: AnalyzeOptions) -> dict[str, Any]:
    """Return all that the options ask for that follows from a spectrum."""
    found: dict[str, Any] = {}
    measured = {**solved.measured}  # with what has followed so far
    solved = replace(solved, measured=measured)
    for name, (wanted, f) in _of_spectrum.items():
        if wanted(options):
            found[name] = measured[name] = f(solved)
    return found


# --- the measurements ---------------------------------------------------------------------------


@of_entries("kurtosis")
def kurtosis(entries: Entries) -> float:
    """Excess kurtosis of the entries of the row: a slice has a distribution of its own."""
    return entries.sample[0]


@of_entries("margins")
def row_margins(entries: Entries) -> Margins:
    """Sums over the entries that fix what a spectrum owes to their sizes."""
    return margins(entries.tested)


@of_entries("made")
def made(entries: Entries) -> str:
    """The structure that all entries have, as some initialisations make them."""
    return structures.made(entries.tested)


@of_entries("zeros")
def zeros(entries: Entries) -> float:
    """Share of the entries that are zero, for what it tells of a mask."""
    return entries.sample[1]


def _is_delta(options: AnalyzeOptions) -> bool:
    return options.base_model is not None


@of_entries("change", wanted=_is_delta)
def change(entries: Entries) -> Change | None:
    """How large a difference is, and what of it rounding explains."""
    return entries.change


@of_spectrum("change_rank", wanted=_is_delta)
def change_rank(solved: Solved) -> int:
    """The rank of a difference, where it is low and rounding explains the rest; else 0."""
    return low_rank(solved.esd, solved.measured["change"])


@of_entries("vectors", option="vectors")
def vectors(entries: Entries) -> EigenvectorStatistics | None:
    """How localised the eigenvectors are; None where a Gram matrix is not finite."""
    return eigenvector_statistics(entries.matrices)


def _fits_windows(options: AnalyzeOptions) -> bool:
    return parse_estimator(options.estimator, "analyze").name == "farms"


@of_entries(WINDOWS, wanted=_fits_windows)
def windows(entries: Entries) -> PowerLawFit:
    """The fit of the pooled eigenvalues of sub-matrices."""
    farms = parse_estimator(entries.options.estimator, "analyze")
    return fit_windows(entries.matrices, farms, Estimator("ww"), threshold=entries.threshold)


@of_spectrum("null")
def null(solved: Solved) -> NullTest:
    """The test for structure, and the structures that have a name."""
    return null_test.decide(
        solved.esd,
        solved.measured["margins"],
        solved.measured["made"],
        solved.measured["zeros"],
        solved.measured["kurtosis"],
        solved.entries,
        random_key(Purpose.NULL, solved.seed, solved.label),
    )


@of_spectrum("mp", option="mp_fit")
def mp(solved: Solved) -> MPFit:
    """The Marchenko-Pastur law of the bulk, and the test for randomness."""
    excess = solved.measured["kurtosis"]
    esd = solved.esd
    # The eigenvalue of a single column is the sum of its squares, whatever their signs.
    reach = 1.0 if esd.M == 1 else solved.measured["null"].reach
    return marchenko_pastur.fit(
        esd.evals, esd.N, esd.M, mp="robust", reach=0.0 if math.isnan(reach) else reach,
        kurtosis=excess if math.isfinite(excess) else 0.0,
    )  # fmt: skip


@of_spectrum("randomized", option="randomize")
def randomized(solved: Solved) -> randomize.Randomized:
    """The spectrum of the permuted entries."""
    return randomize.randomized(solved.replicas, solved.esd.N, solved.esd.M, solved.entries)


# --- permutations -------------------------------------------------------------------------------


def n_replicas(M: int, rf: int, options: AnalyzeOptions) -> int:
    """How often the entries of a layer of `rf` matrices with shorter side `M` are permuted."""
    if not options.randomize:
        return 0
    return randomize.n_replicas(M * rf if options.pool else M)


def permuted(
    layer: Layer, slices: Sequence[HostArray], M: int, options: AnalyzeOptions
) -> Iterator[HostArray]:
    """Yield the matrices with their entries permuted, one permutation of all after the other."""
    for replica in range(n_replicas(M, len(slices), options)):
        for i, X in enumerate(slices):
            key = randomize.permutation_key(options.seed, layer.name, i, replica)
            yield ops.permute(X, key)
