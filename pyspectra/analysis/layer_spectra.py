"""One layer from its tensor to the spectra that its rows are made of.

Small layers are solved as they are read. The Gram matrices of large ones wait for one another, so
that many are solved at once; their entries are gone by then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyspectra._arrays import HostArray
from pyspectra.analysis import measurements
from pyspectra.analysis.engine import Engine, Matrices, Read
from pyspectra.analysis.layer_fits import fit_options
from pyspectra.analysis.measurements import Entries, Solved
from pyspectra.analysis.rows import Spectrum
from pyspectra.errors import PyspectraError
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import powerlaw
from pyspectra.spectra.fast import ALPHA_CHANGE, alpha_range
from pyspectra.spectra.powerlaw import RELATIVE_THRESHOLD
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, Skip, SkippedLayer
from pyspectra.weights.matricize import matrix_shape
from pyspectra.weights.rounding import Change

__all__ = ["LOAD_ERRORS", "Taken", "n_evals", "solve", "solve_at_once", "take_in"]

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


def n_evals(layer: Layer, options: AnalyzeOptions) -> int:
    """Number of eigenvalues of one row of a layer."""
    _, M, rf = matrix_shape(layer)
    return M * rf if options.pool else M


@dataclass(frozen=True)
class _Spectra:
    """The spectra of a layer that were solved as it was read, and how."""

    evals: list[FloatArray]
    status: list[Status]
    method: str
    bound: float = 0.0


@dataclass(frozen=True)
class Taken:
    """What is kept of a layer when its entries are gone."""

    layer: Layer
    grams: list[Any]  # the engine's Gram matrices: of the layer, then of each permutation
    spectra: _Spectra | None  # in their place, with method "svd" or precision "fast"
    measured: list[dict[str, Any]]  # one for each row of the report
    change: Change | None  # of a difference of two models
    foreseen: dict[int, tuple[FloatArray, Status]]  # by SVD in the place of these Gram matrices


def solve_at_once(
    engine: Engine, options: AnalyzeOptions, one: tuple[Layer, Read]
) -> list[Spectrum] | SkippedLayer:
    """Return the spectra of a layer, one for each row of the report, or why it has none."""
    taken = take_in(engine, options, one, waits=False)
    return taken if isinstance(taken, SkippedLayer) else solve([taken], engine, options)[0]


def take_in(
    engine: Engine, options: AnalyzeOptions, one: tuple[Layer, Read], *, waits: bool = True
) -> Taken | SkippedLayer:
    """Read a layer; take Gram matrices from its entries, and whatever is measured of them.

    `waits` says whether they have to last until those of other layers have been made.
    """
    layer, read = one
    try:
        return _taken(layer, read(), engine, options, waits)
    except LOAD_ERRORS as error:
        return _unreadable(layer, error)


def _taken(
    layer: Layer, matrices: Matrices, engine: Engine, options: AnalyzeOptions, waits: bool
) -> Taken | SkippedLayer:
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
        count = rf * (1 + measurements.n_replicas(M, rf, options))
        room = engine.take(M, count) if waits else engine.lend(M, count)
        grams = engine.grams(matrices.operands, None if room is None else room[:rf])
        if options.method == "auto":
            foreseen = engine.foreseen(slices, grams)
        for k, X in enumerate(permuted, start=rf):  # one of them exists at a time
            grams += engine.grams([engine.operand(X)], None if room is None else [room[k]])
    rows = [slices] if options.pool else [[X] for X in slices]
    measured = [measurements.take(Entries(row, options, change)) for row in rows]
    return Taken(layer, grams, spectra, measured, change, foreseen)


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


def solve(
    taken: Sequence[Taken], engine: Engine, options: AnalyzeOptions
) -> list[list[Spectrum] | SkippedLayer]:
    """Return the spectra of each layer, one for each row; all Gram matrices are solved together."""
    waiting = [gram for t in taken for i, gram in enumerate(t.grams) if i not in t.foreseen]
    solved = zip(*engine.eigvals(waiting), strict=True)
    found = []
    for t in taken:
        pairs = [t.foreseen.get(i) or next(solved) for i in range(len(t.grams))]
        method = "svd" if t.foreseen else "gram"
        spectra = _Spectra([e for e, _ in pairs], [s for _, s in pairs], method)
        found.append(_rows_of(t, t.spectra or spectra, engine, options))
    return found


def _rows_of(
    taken: Taken, spectra: _Spectra, engine: Engine, options: AnalyzeOptions
) -> list[Spectrum] | SkippedLayer:
    try:
        if taken.spectra is None and options.method != "gram":
            spectra = _resolved(taken, spectra, engine)
        return _rows(taken, spectra, engine, options)
    except LOAD_ERRORS as error:
        return _unreadable(taken.layer, error)


def _resolved(taken: Taken, spectra: _Spectra, engine: Engine) -> _Spectra:
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
    taken: Taken, spectra: _Spectra, engine: Engine, options: AnalyzeOptions
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
