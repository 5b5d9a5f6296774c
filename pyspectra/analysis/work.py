"""How much work the layers of an analysis are: what its progress and its order go by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pyspectra import ops
from pyspectra._support.dtypes import BY_NAME
from pyspectra._support.progress import Work
from pyspectra.analysis import measurements
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights import Layer
from pyspectra.weights.matricize import matrix_shape

__all__ = [
    "GUESSES",
    "KINDS",
    "Spent",
    "by_size",
    "flops",
    "ignore",
    "is_small",
    "work_in_words",
    "work_of",
    "work_of_all",
]

BYTES, GRAM, SOLVE, DRAWS = "bytes", "gram", "solve", "draws"

# Seconds for one byte, one operation of a Gram matrix or of its eigenvalues, and one eigenvalue of
# a replicate of the bootstrap, on two cores of 2023 (AVX-512). Rates are measured as work goes on.
GUESSES = {BYTES: 0.5e-9, GRAM: 1.2e-11, SOLVE: 2.0e-11, DRAWS: 2e-8}
KINDS = tuple(GUESSES)

# Layers of more entries are worked on alone, by all threads together; of the others there are never
# more in memory than have so many together.
SMALL, TOGETHER = 2**22, 2**26

# Small matrices are solved more slowly: as if each had so many rows more.
EXTRA_ROWS = 120


class Spent(Protocol):
    """Hears that the time since its last call went into some work, and on which layer."""

    def __call__(self, work: Mapping[str, float], label: str = "", /) -> None:
        """Add work that is done."""


def ignore(_work: Mapping[str, float], _label: str = "", /) -> None:
    """Take no notice."""


def work_of(layer: Layer, options: AnalyzeOptions) -> dict[str, float]:
    """Return how much work of each kind one layer is."""
    N, M, rf = matrix_shape(layer)
    matrices = rf * (1 + measurements.n_replicas(M, rf, options))
    stored = BY_NAME[layer.dtype].bits / 8
    return {
        BYTES: float(N * M * rf) * stored,
        GRAM: float(N * M * M * matrices),
        SOLVE: 4.0 / 3.0 * M * M * (M + EXTRA_ROWS) * matrices,
        DRAWS: float(options.bootstrap * M * rf),
    }


def work_of_all(layers: Iterable[Layer], options: AnalyzeOptions) -> dict[str, float]:
    """Return how much work of each kind layers are together."""
    works = [work_of(layer, options) for layer in layers]
    return {kind: sum(work[kind] for work in works) for kind in KINDS}


def is_small(layer: Layer) -> bool:
    """Tell whether a layer is worth one thread only, so that others can be worked on beside it."""
    N, M, rf = matrix_shape(layer)
    return M < ops.SPREAD_ORDER and N * M * rf <= min(SMALL, TOGETHER // ops.get_num_threads())


def flops(work: Mapping[str, float]) -> float:
    """Return how many operations that is, in Gram matrices and in eigenvalues."""
    return work[GRAM] + work[SOLVE]


def work_in_words(layers: Sequence[Layer], options: AnalyzeOptions) -> Work:
    """Return the work of layers for a progress bar."""
    totals = work_of_all(layers, options)

    def words(done: Mapping[str, float]) -> str:
        read, solved = done[BYTES] / 1e9, flops(done) / 1e9
        of_bytes, of_flops = totals[BYTES] / 1e9, flops(totals) / 1e9
        return f"{read:.1f}/{of_bytes:.1f} GB, {solved:,.0f}/{of_flops:,.0f} Gflop"

    return Work(totals, GUESSES, words, BYTES)


def by_size(layers: Sequence[Layer], size: Callable[[Layer], int]) -> list[int]:
    """Return the numbers of layers in the order in which they are solved, the largest first.

    What takes most room is done when there is most; batches hold matrices of one order, which
    occupy all cores to their end; and what comes last is short.
    """
    return sorted(range(len(layers)), key=lambda i: (-size(layers[i]), i))
