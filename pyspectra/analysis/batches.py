"""Some layers from their tensors to rows of a report: what one process does at a time.

`analyze_batch` is a pure function of layers and options, and both can be pickled: any executor can
map it. Rows do not depend on which layers share a batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyspectra._arrays import HostArray
from pyspectra.analysis import measurements
from pyspectra.analysis.engine import Engine, Read, host_engine
from pyspectra.analysis.layer_fits import fit_options, layer_fits
from pyspectra.analysis.measurements import Entries, Solved
from pyspectra.analysis.rows import Spectrum, layer_report
from pyspectra.analysis.work import BYTES, DRAWS, GRAM, SOLVE, Spent, ignore, work_of
from pyspectra.errors import PyspectraError
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import powerlaw
from pyspectra.spectra.fast import ALPHA_CHANGE, alpha_range
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, Skip, SkippedLayer
from pyspectra.weights.matricize import apart, matricize, matrix_shape
from pyspectra.weights.rounding import Change

Outcome = LayerReport | SkippedLayer

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
    taken: list[_Taken | SkippedLayer] = []
    # `reads` goes on with the next batch.
    for layer, read, work in zip(layers, reads, works, strict=False):
        try:
            taken.append(_take_in(layer, read, work[BYTES], engine, options, spent))
        except LOAD_ERRORS as error:
            taken.append(_unreadable(layer, error))
        spent({GRAM: work[GRAM]}, layer.name)
    solved = iter(_solve([t for t in taken if isinstance(t, _Taken)], engine, options))
    found = [t if isinstance(t, SkippedLayer) else next(solved) for t in taken]
    spent({SOLVE: sum(work[SOLVE] for work in works)})
    rows = [row for rows in found if not isinstance(rows, SkippedLayer) for row in rows]
    draws = sum(work[DRAWS] for work in works) / max(options.bootstrap, 1)
    fits = layer_fits(rows, options, lambda made: spent({DRAWS: made * draws}))
    reports = iter([layer_report(row, fit, options) for row, fit in zip(rows, fits, strict=True)])
    spent({SOLVE: 0.0})  # the rest of it
    return [
        [one] if isinstance(one, SkippedLayer) else [next(reports) for _ in one] for one in found
    ]


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


# The functions below let go of the tensor as they return, before the next one comes.


def _take_in(
    layer: Layer,
    read: Read,
    stored: float,
    engine: Engine,
    options: AnalyzeOptions,
    spent: Spent,
) -> _Taken | SkippedLayer:
    """Read a layer; take Gram matrices from its entries, and whatever is measured of them."""
    _, M, rf = matrix_shape(layer)
    try:
        matrices = read()
    finally:
        spent({BYTES: stored})
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


def _matrices(layer: Layer, which: Sequence[int]) -> list[HostArray]:
    """Read some matrices of a layer once more."""
    slices = matricize(layer, apart(layer, layer.load())).slices
    return [slices[i] for i in which]


def _unreadable(layer: Layer, error: Exception) -> SkippedLayer:
    words = str(error) or type(error).__name__
    return layer.skipped(Skip("read_failed", {"error": words}))


# --- spectra ------------------------------------------------------------------------------------


def _solve(
    taken: Sequence[_Taken], engine: Engine, options: AnalyzeOptions
) -> Iterator[list[Spectrum] | SkippedLayer]:
    """Yield the rows of each layer, or why it has none; all Gram matrices are solved together."""
    waiting = [gram for t in taken for i, gram in enumerate(t.grams) if i not in t.foreseen]
    solved = zip(*engine.eigvals(waiting), strict=True)
    for t in taken:
        found = [t.foreseen.get(i) or next(solved) for i in range(len(t.grams))]
        evals, status = [e for e, _ in found], [s for _, s in found]
        try:
            if t.spectra is not None:
                yield _rows(
                    t, t.spectra.evals, t.spectra.status, t.spectra.method, options, t.spectra.bound
                )
            else:
                yield _resolved(t, evals, status, engine, options)
        except LOAD_ERRORS as error:
            yield _unreadable(t.layer, error)


def _resolved(
    taken: _Taken,
    evals: list[FloatArray],
    status: list[Status],
    engine: Engine,
    options: AnalyzeOptions,
) -> list[Spectrum]:
    """Put singular values in the place of eigenvalues that a Gram matrix does not resolve."""
    rf = matrix_shape(taken.layer)[2]
    own = enumerate(zip(evals[:rf], status[:rf], strict=True))
    unresolved = [i for i, (e, s) in own if i not in taken.foreseen and esd_module.needs_svd(e, s)]
    if options.method == "gram" or not unresolved:
        return _rows(taken, evals, status, "svd" if taken.foreseen else "gram", options)
    found, codes = engine.unresolved(
        _matrices(taken.layer, unresolved),
        [taken.grams[i] for i in unresolved],
        [evals[i] for i in unresolved],
        [status[i] for i in unresolved],
    )
    for i, e, s in zip(unresolved, found, codes, strict=True):
        evals[i], status[i] = e, s
    return _rows(taken, evals, status, "svd", options)


def _rows(
    taken: _Taken,
    evals: Sequence[FloatArray],
    status: Sequence[Status],
    method: str,
    options: AnalyzeOptions,
    bound: float = 0.0,
) -> list[Spectrum]:
    """Make a row of the layer or of each slice; `evals` has `rf` spectra for each permutation."""
    N, M, rf = matrix_shape(taken.layer)
    whole = options.pool or rf == 1
    rows = []
    for k, members in enumerate([range(rf)] if whole else [range(i, i + 1) for i in range(rf)]):
        esd, *replicas = (
            esd_module.pool(
                [evals[first + i] for i in members],
                [status[first + i] for i in members],
                N=N, M=M, method=method, bound=bound,
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
                partial(_matrices, taken.layer, members),
            )  # fmt: skip
            followed = measurements.follow(solved, options)
            row = replace(row, measured={**row.measured, **followed})
        rows.append(row)
    return rows
