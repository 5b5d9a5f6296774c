"""Some layers from their tensors to rows of a report: what one process does at a time.

`analyze_batch` is a pure function of layers and options, and both can be pickled: any executor can
map it. Rows do not depend on which layers share a batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial

from pyspectra import ops
from pyspectra._support.blas_threads import holding_blas
from pyspectra.analysis import measurements
from pyspectra.analysis.engine import Engine, Matrices, Read, host_engine
from pyspectra.analysis.layer_fits import layer_fits
from pyspectra.analysis.layer_spectra import Taken, solve, solve_at_once, take_in
from pyspectra.analysis.rows import Spectrum, layer_report
from pyspectra.analysis.side_by_side import side_by_side
from pyspectra.analysis.work import BYTES, DRAWS, GRAM, SOLVE, Spent, ignore, is_small, work_of
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights import Layer, SkippedLayer
from pyspectra.weights.matricize import matrix_shape

Outcome = LayerReport | SkippedLayer

# Small layers do not wait for others to be solved, but rows and fits for the end of their batch: as
# if so much of their Gram matrices waited.
SMALL_SHARE = 1 / 16


def gram_elements(layer: Layer, options: AnalyzeOptions) -> int:
    """Elements of the Gram matrices of a layer and of its permutations."""
    _, M, rf = matrix_shape(layer)
    return M * M * rf * (1 + measurements.n_replicas(M, rf, options))


def waiting_elements(layer: Layer, options: AnalyzeOptions) -> int:
    """Elements of the Gram matrices of a layer that wait on the CPU until others have been made."""
    # With method "svd" there are none.
    return 0 if is_small(layer) or options.method == "svd" else gram_elements(layer, options)


def split(
    layers: Sequence[Layer], options: AnalyzeOptions, capacity: int, *, shares_threads: bool = False
) -> list[tuple[Layer, ...]]:
    """Cut layers into batches, in order, whose Gram matrices have at most `capacity` elements.

    A layer that has more makes a batch of its own. Where threads are shared, as an engine says it,
    small layers count less.
    """
    batches: list[list[Layer]] = []
    free = 0.0
    for layer in layers:
        share = SMALL_SHARE if shares_threads and is_small(layer) else 1.0
        needed = share * gram_elements(layer, options)
        if needed > free:
            batches.append([])
            free = capacity
        batches[-1].append(layer)
        free -= needed
    return [tuple(batch) for batch in batches]


def analyze_batch(layers: Sequence[Layer], options: AnalyzeOptions) -> list[Outcome]:
    """Analyse some layers on the CPU.

    Parameters
    ----------
    layers : sequence of Layer
        Weights that have matrices (`pyspectra.weights.matricize.matrix_shape`).
    options : AnalyzeOptions

    Returns
    -------
    list of LayerReport and SkippedLayer
        For each of `layers`, in order: its row, or a row for each slice with ``pool=False``, or why
        there is none.
    """
    return [row for rows in analyze_each(layers, options) for row in rows]


def analyze_each(layers: Sequence[Layer], options: AnalyzeOptions) -> list[list[Outcome]]:
    """Do what `analyze_batch` does, and return a list for each layer."""
    engine = host_engine([sum(waiting_elements(layer, options) for layer in layers)])
    with contextlib.closing(engine.reads(layers)) as reads:
        return run_batch(layers, reads, engine, options, ignore)


def run_batch(
    layers: Sequence[Layer],
    reads: Iterator[Read],
    engine: Engine,
    options: AnalyzeOptions,
    spent: Spent,
) -> list[list[Outcome]]:
    """Analyse some layers with an engine: their spectra, then the fits of all of them together.

    `reads` yields what reads each of them, in order. `spent` hears of all the work of each
    (`pyspectra.analysis.work.work_of`) as it is done. Returns the rows of each layer.
    """
    works = [work_of(layer, options) for layer in layers]
    engine.clear()
    found = _spectra(layers, reads, works, engine, options, spent)
    rows = [row for rows in found if not isinstance(rows, SkippedLayer) for row in rows]
    draws = sum(work[DRAWS] for work in works) / max(options.bootstrap, 1)
    fits = layer_fits(rows, options, lambda made: spent({DRAWS: made * draws}))
    reports = iter([layer_report(row, fit, options) for row, fit in zip(rows, fits, strict=True)])
    spent({SOLVE: 0.0})  # the rest of it
    return [
        [one] if isinstance(one, SkippedLayer) else [next(reports) for _ in one] for one in found
    ]


def _spectra(
    layers: Sequence[Layer],
    reads: Iterator[Read],
    works: Sequence[dict[str, float]],
    engine: Engine,
    options: AnalyzeOptions,
    spent: Spent,
) -> list[list[Spectrum] | SkippedLayer]:
    """Return the spectra of each layer, or why it has none.

    Small layers are worked on side by side; the others one after the other, and solved together.
    """
    small = [engine.shares_threads and is_small(layer) for layer in layers]
    items = (
        (layer, read if side else partial(_heard, read, work[BYTES], spent))
        # `reads` goes on with the next batch.
        for layer, side, work, read in zip(layers, small, works, reads, strict=False)
    )

    def done(first: int, number: int) -> None:
        layer, work = layers[first + number], works[first + number]
        kinds = (BYTES, GRAM, SOLVE) if small[first + number] else (GRAM,)
        spent({kind: work[kind] for kind in kinds}, layer.name)

    found: list[list[Spectrum] | SkippedLayer | Taken] = []
    at_once = partial(solve_at_once, engine, options)
    for side, group in itertools.groupby(small):
        first, count = len(found), len(list(group))
        together = _together(count) if side else 0
        # BLAS's threads change last bits, and would go with what other layers hold it to.
        with holding_blas(1) if side else contextlib.nullcontext():
            found += side_by_side(at_once, items, together, partial(done, first))
            for number in range(together, count):
                found.append((at_once if side else partial(take_in, engine, options))(next(items)))
                done(first, number)
    solved = iter(solve([one for one in found if isinstance(one, Taken)], engine, options))
    spent({SOLVE: sum(work[SOLVE] for side, work in zip(small, works, strict=True) if not side)})
    return [next(solved) if isinstance(one, Taken) else one for one in found]


def _heard(read: Read, stored: float, spent: Spent) -> Matrices:
    try:
        return read()
    finally:
        spent({BYTES: stored})


def _together(count: int) -> int:
    """How many of so many layers are worked on side by side; each of the others by all threads.

    The last few would leave most threads without work.
    """
    threads = ops.get_num_threads()
    rest = count % threads
    return count - rest if 2 * rest <= threads else count
