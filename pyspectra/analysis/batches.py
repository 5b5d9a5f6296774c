"""Some layers from their tensors to rows of a report: what one process does at a time.

`analyze_batch` is a pure function of layers and options, and both can be pickled: any executor can
map it. Rows do not depend on which layers share a batch.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.analysis import measurements
from pyspectra.analysis.engine import Engine, Matrices, Read, host_engine
from pyspectra.analysis.layer_fits import fit_options, layer_fits
from pyspectra.analysis.measurements import Entries, Solved
from pyspectra.analysis.rows import Spectrum, layer_report
from pyspectra.analysis.side_by_side import side_by_side
from pyspectra.analysis.work import BYTES, DRAWS, GRAM, SOLVE, Spent, ignore, is_small, work_of
from pyspectra.errors import PyspectraError
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import powerlaw
from pyspectra.spectra.fast import ALPHA_CHANGE, alpha_range
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, Skip, SkippedLayer
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.rounding import Change

Outcome = LayerReport | SkippedLayer

T = TypeVar("T")
R = TypeVar("R")

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


def n_evals(layer: Layer, options: AnalyzeOptions) -> int:
    """Number of eigenvalues of one row of a layer."""
    _, M, rf = matrix_shape(layer)
    return M * rf if options.pool else M


def gram_elements(layer: Layer, options: AnalyzeOptions) -> int:
    """Elements of the Gram matrices of a layer and of its permutations."""
    _, M, rf = matrix_shape(layer)
    return M * M * rf * (1 + measurements.n_replicas(M, rf, options))


def split(
    layers: Sequence[Layer], options: AnalyzeOptions, capacity: int
) -> list[tuple[Layer, ...]]:
    """Cut layers into batches, in order, whose Gram matrices have at most `capacity` elements.

    A layer that has more makes a batch of its own.
    """
    batches: list[list[Layer]] = []
    free = 0
    for layer in layers:
        needed = gram_elements(layer, options)
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
    engine = host_engine([sum(gram_elements(layer, options) for layer in layers)])
    with contextlib.closing(engine.reads(layers)) as reads:
        return run_batch(layers, reads, engine, options, ignore)


def run_batch(
    layers: Sequence[Layer],
    reads: Iterator[Read],
    engine: Engine,
    options: AnalyzeOptions,
    spent: Spent,
) -> list[list[Outcome]]:
    """Analyse some layers with an engine: take all in, solve them together, fit, measure.

    `reads` yields what reads each of them, in order. `spent` hears of all the work of each
    (`pyspectra.analysis.work.work_of`) as it is done. Returns the rows of each layer.
    """
    works = [work_of(layer, options) for layer in layers]
    engine.clear()

    def taken_in(number: int) -> None:
        spent({GRAM: works[number][GRAM]}, layers[number].name)

    shared = [engine.shares_threads and is_small(layer) for layer in layers]
    loaded = _loaded(layers, reads, [work[BYTES] for work in works], spent)
    taken = _each(partial(_take_in, engine, options), loaded, shared, taken_in)
    found = _solve(taken, shared, engine, options)
    spent({SOLVE: sum(work[SOLVE] for work in works)})
    rows = [row for rows in found if not isinstance(rows, SkippedLayer) for row in rows]
    draws = sum(work[DRAWS] for work in works) / max(options.bootstrap, 1)
    fits = layer_fits(rows, options, lambda made: spent({DRAWS: made * draws}))
    reports = iter([layer_report(row, fit, options) for row, fit in zip(rows, fits, strict=True)])
    spent({SOLVE: 0.0})  # the rest of it
    return [
        [one] if isinstance(one, SkippedLayer) else [next(reports) for _ in one] for one in found
    ]


def _each(
    work: Callable[[T], R],
    items: Iterator[T],
    shared: Sequence[bool],
    done: Callable[[int], None] = lambda _number: None,
) -> list[R]:
    """Return ``work(item)`` of each item: one after the other, or side by side where `shared`."""
    found: list[R] = []
    for is_shared, group in itertools.groupby(shared):
        first, count = len(found), len(list(group))
        together = _together(count) if is_shared else 0
        found += side_by_side(work, items, together, partial(_moved, done, first))
        for number in range(first + together, first + count):
            found.append(work(next(items)))
            done(number)
    return found


def _together(count: int) -> int:
    """How many of so many layers are worked on side by side; each of the others by all threads.

    The last few would leave most threads without work.
    """
    threads = ops.get_num_threads()
    rest = count % threads
    return count - rest if 2 * rest <= threads else count


def _moved(done: Callable[[int], None], by: int, number: int) -> None:
    done(by + number)


# --- entries ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spectra:
    """The spectra of a layer that were solved as it was read, and how."""

    evals: list[FloatArray]
    status: list[Status]
    method: str
    bound: float = 0.0


@dataclass(frozen=True)
class _Taken:
    """What is kept of a layer when its entries are gone."""

    layer: Layer
    grams: list[Any]  # the engine's Gram matrices: of the layer, then of each permutation
    spectra: _Spectra | None  # in their place, with method "svd" or precision "fast"
    measured: list[dict[str, Any]]  # one for each row of the report
    change: Change | None  # of a difference of two models
    foreseen: dict[int, tuple[FloatArray, Status]]  # by SVD in the place of these Gram matrices


def _loaded(
    layers: Sequence[Layer], reads: Iterator[Read], stored: Sequence[float], spent: Spent
) -> Iterator[tuple[Layer, Matrices | SkippedLayer]]:
    """Yield each layer with its matrices, or why there are none."""
    for layer, size in zip(layers, stored, strict=True):
        # Without a name, so that the tensor goes when whoever gets it is done with it.
        yield layer, _load(layer, next(reads), size, spent)


def _load(layer: Layer, read: Read, stored: float, spent: Spent) -> Matrices | SkippedLayer:
    try:
        return read()
    except LOAD_ERRORS as error:
        return _unreadable(layer, error)
    finally:
        spent({BYTES: stored})


def _take_in(
    engine: Engine, options: AnalyzeOptions, loaded: tuple[Layer, Matrices | SkippedLayer]
) -> _Taken | SkippedLayer:
    """Take Gram matrices from the entries of a layer, and whatever is measured of them."""
    layer, matrices = loaded
    if isinstance(matrices, SkippedLayer):
        return matrices
    try:
        return _taken(layer, matrices, engine, options)
    except LOAD_ERRORS as error:
        return _unreadable(layer, error)


def _taken(
    layer: Layer, matrices: Matrices, engine: Engine, options: AnalyzeOptions
) -> _Taken | SkippedLayer:
    _, M, rf = matrix_shape(layer)
    slices = matrices.slices
    change = matrices.change
    if change is not None and not any(X.data.any() for X in slices):
        return layer.skipped(Skip("unchanged"))
    if change is not None and change.only_rounding:
        return layer.skipped(Skip("rounding"))
    count = n_evals(layer, options)
    if change is not None and count < options.min_evals:
        detail: dict[str, float] = {"count": count, "limit": options.min_evals}
        code = "few_evals"
        if not math.isnan(change.relative):  # what is not finite has changed by no part of its norm
            code, detail["relative"] = "few_changed", change.relative
        return layer.skipped(Skip(code, detail))
    grams: list[Any] = []
    foreseen: dict[int, tuple[FloatArray, Status]] = {}
    spectra = _fast(slices, engine, options) if change is None else None
    permuted = measurements.permuted(layer, slices, M, options)
    if options.method == "svd":
        spectra = _Spectra(*engine.squared_singular_values([*slices, *permuted]), "svd")
    elif spectra is None:
        room = engine.take(M, rf * (1 + measurements.n_replicas(M, rf, options)))
        grams = engine.grams(matrices.operands, None if room is None else room[:rf])
        if options.method == "auto":
            foreseen = engine.foreseen(slices, grams)
        for k, X in enumerate(permuted, start=rf):  # one of them exists at a time
            grams += engine.grams([engine.operand(X)], None if room is None else [room[k]])
    rows = [slices] if options.pool else [[X] for X in slices]
    measured = [measurements.take(Entries(row, options, change)) for row in rows]
    return _Taken(layer, grams, spectra, measured, change, foreseen)


def _fast(slices: Sequence[HostArray], engine: Engine, options: AnalyzeOptions) -> _Spectra | None:
    """Solve the only matrix of a layer by float32, if that was asked for and alpha stays."""
    if not options.may_be_fast or len(slices) > 1:
        return None
    found = engine.fast(slices[0])
    if found is None:
        return None
    x = found.evals[found.evals > RELATIVE_THRESHOLD * found.evals[-1]]
    fit = powerlaw.fit_spectra([x], fit_options(options))[0]
    span = alpha_range(found.evals, found.bound, fit)
    if span is None or max(fit.alpha - span[0], span[1] - fit.alpha) > ALPHA_CHANGE:
        return None
    return _Spectra([found.evals], [Status.OK], "fast", found.bound)


def _members(engine: Engine, layer: Layer, which: Sequence[int]) -> list[HostArray]:
    """Read some matrices of a layer once more."""
    matrices = engine.again(layer)
    return [matrices[i] for i in which]


def _unreadable(layer: Layer, error: Exception) -> SkippedLayer:
    words = str(error) or type(error).__name__
    return layer.skipped(Skip("read_failed", {"error": words}))


# --- spectra ------------------------------------------------------------------------------------


def _solve(
    taken: Sequence[_Taken | SkippedLayer],
    shared: Sequence[bool],
    engine: Engine,
    options: AnalyzeOptions,
) -> list[list[Spectrum] | SkippedLayer]:
    """Return the rows of each layer, or why it has none; all Gram matrices are solved together."""
    waiting = [
        gram
        for t in taken
        if isinstance(t, _Taken)
        for i, gram in enumerate(t.grams)
        if i not in t.foreseen
    ]
    solved = zip(*engine.eigvals(waiting), strict=True)
    return _each(partial(_rows_of, engine, options), _with_spectra(taken, solved), shared)


def _with_spectra(
    taken: Sequence[_Taken | SkippedLayer], solved: Iterator[tuple[FloatArray, Status]]
) -> Iterator[tuple[_Taken, _Spectra] | SkippedLayer]:
    for t in taken:
        if isinstance(t, SkippedLayer):
            yield t
            continue
        found = [t.foreseen.get(i) or next(solved) for i in range(len(t.grams))]
        method = "svd" if t.foreseen else "gram"
        yield t, t.spectra or _Spectra([e for e, _ in found], [s for _, s in found], method)


def _rows_of(
    engine: Engine, options: AnalyzeOptions, one: tuple[_Taken, _Spectra] | SkippedLayer
) -> list[Spectrum] | SkippedLayer:
    """Make the rows of a layer from its spectra."""
    if isinstance(one, SkippedLayer):
        return one
    taken, spectra = one
    try:
        if taken.spectra is None and options.method != "gram":
            spectra = _resolved(taken, spectra, engine)
        return _rows(taken, spectra, engine, options)
    except LOAD_ERRORS as error:
        return _unreadable(taken.layer, error)


def _resolved(taken: _Taken, spectra: _Spectra, engine: Engine) -> _Spectra:
    """Put singular values in the place of eigenvalues that a Gram matrix does not resolve."""
    rf = matrix_shape(taken.layer)[2]
    evals, status = list(spectra.evals), list(spectra.status)
    own = enumerate(zip(evals[:rf], status[:rf], strict=True))
    unresolved = [i for i, (e, s) in own if i not in taken.foreseen and esd_module.needs_svd(e, s)]
    if not unresolved:
        return spectra
    matrices = engine.again(taken.layer)
    found, codes = engine.unresolved(
        [matrices[i] for i in unresolved],
        [taken.grams[i] for i in unresolved],
        [evals[i] for i in unresolved],
        [status[i] for i in unresolved],
    )
    for i, e, s in zip(unresolved, found, codes, strict=True):
        evals[i], status[i] = e, s
    return _Spectra(evals, status, "svd")


def _rows(
    taken: _Taken, spectra: _Spectra, engine: Engine, options: AnalyzeOptions
) -> list[Spectrum]:
    """Make a row of the layer or of each slice; there are `rf` spectra for each permutation."""
    evals, status = spectra.evals, spectra.status
    N, M, rf = matrix_shape(taken.layer)
    whole = options.pool or rf == 1
    rows = []
    for k, members in enumerate([range(rf)] if whole else [range(i, i + 1) for i in range(rf)]):
        esd, *replicas = (
            esd_module.pool(
                [evals[first + i] for i in members],
                [status[first + i] for i in members],
                N=N, M=M, method=spectra.method, bound=spectra.bound,
            )
            for first in range(0, len(evals), rf)
        )  # fmt: skip
        slice_id = None if whole else k
        # NaN where there is no spectrum.
        threshold = RELATIVE_THRESHOLD * float(esd.evals[-1])
        if taken.change is not None:
            threshold = taken.change.floor  # what is below is rounding alone
        row = Spectrum(taken.layer, slice_id, rf, esd, threshold, taken.measured[k])
        if esd.status is Status.OK:
            solved = Solved(
                esd, [r.evals for r in replicas], row.measured, row.label, options.seed,
                partial(_members, engine, taken.layer, members),
            )  # fmt: skip
            followed = measurements.follow(solved, options)
            row = replace(row, measured={**row.measured, **followed})
        rows.append(row)
    return rows
