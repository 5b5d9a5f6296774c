"""From a model or a file to a Report: load, matricise, spectra, fits, metrics."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra.diagnostics.progress import progress_bar
from pyspectra.diagnostics.report import AnalyzeOptions, LayerReport, Report
from pyspectra.diagnostics.verdicts import layer_warning
from pyspectra.errors import PyspectraError
from pyspectra.metrics import Spectrum, evaluate
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import powerlaw
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status
from pyspectra.weights import Layer, SkippedLayer, WeightSource, open_weights
from pyspectra.weights.matricize import matricize, matrix_shape

# Gram matrices wait for one another until they fill this, so that many are solved at once.
PENDING_BYTES = 64 * 2**20

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


def analyze(
    model_or_path: Any,
    *,
    layers: Sequence[int | str] | int | str | None = None,
    estimator: str = "ww",
    detx: bool = False,
    fix_fingers: str | None = None,
    pool: bool = True,
    min_evals: int = 8,
    max_evals: int | None = None,
    method: str = "auto",
    progress: bool | str = "auto",
) -> Report:
    """Analyse every weight matrix of a model: spectrum, power-law tail, norms, verdict.

    Parameters
    ----------
    model_or_path : nn.Module, mapping, WeightSource or path
        A model, a state dict (torch or numpy values), a ``.safetensors`` file, a Hugging Face
        folder, a torch checkpoint (``.pt``, ``.pth``, ``.bin``; read with ``weights_only=True``) or
        an ``.npz`` file.
    layers : int, str or sequence of them, optional
        Which layers: ids, or names, where ``*`` and ``?`` stand for any text. All by default. A
        trailing ``.weight`` may be given.
    estimator : {"ww", "hill"}
        How the tail is fitted; see `pyspectra.fit_powerlaw`.
    detx : bool
        Also evaluate the trace-log (ERG) condition.
    fix_fingers : {None, "clip_xmax"}
        Clip the largest eigenvalues while that lowers alpha by more than 1.
    pool : bool
        Pool the eigenvalues of the slices of a convolution, or report one row a slice.
    min_evals, max_evals : int, optional
        Layers with fewer or more eigenvalues are skipped, and listed as such. ``max_evals=None``
        sets no limit.
    method : {"auto", "gram", "svd"}
        See `pyspectra.esd`.
    progress : bool or "auto"
        A progress bar on standard error; "auto" if that is a terminal and it takes over 2 s.

    Returns
    -------
    Report
        ``.layers``, ``.skipped`` (with reasons), ``.summary()``, ``.verdict``. A layer that cannot
        be read or analysed is reported there; the rest goes on.

    Raises
    ------
    ValueError, TypeError
        An argument is of the wrong kind or range, or nothing in the model is a weight matrix.
    FormatError, FileNotFoundError
        The file cannot be used.

    Notes
    -----
    Peak memory for a safetensors file: one tensor as stored; its Gram matrices and a workspace for
    their eigenvalues up to the same size (half of it where our own reduction serves); at most 64
    MiB of Gram matrices that wait to be solved together; for a matrix that needs an SVD, a float64
    copy and LAPACK's workspace instead.
    """
    options = AnalyzeOptions(
        layers=layers,
        estimator=estimator,
        detx=detx,
        fix_fingers=fix_fingers,
        pool=pool,
        min_evals=min_evals,
        max_evals=max_evals,
        method=method,
    )
    if progress not in (True, False, "auto"):
        raise ValueError(f"analyze: 'progress' must be True, False or 'auto', got {progress!r}.")
    source = open_weights(model_or_path)
    try:
        return _analyze(source, options, progress)
    finally:
        if source is not model_or_path:
            source.close()


def _analyze(source: WeightSource, options: AnalyzeOptions, progress: bool | str) -> Report:
    if not source.layers:
        raise ValueError(_nothing_to_analyze(source))
    chosen, skipped = _select(source, options)
    rows: list[_Row] = []
    with progress_bar(len(chosen), "analysing", progress) as advance:
        for result in _spectra(chosen, options, advance):
            if isinstance(result, SkippedLayer):
                skipped.append(result)
            else:
                rows.append(result)
    rows.sort(key=lambda row: (row.position, row.slice_id or 0))

    usable = [row.esd.evals for row in rows if row.esd.status is Status.OK]
    fits = iter(powerlaw.fit_powerlaw_batch(usable, estimator=options.estimator))
    reports = tuple(
        _layer_report(row, next(fits) if row.esd.status is Status.OK else None, options)
        for row in rows
    )
    return Report(
        layers=reports,
        skipped=(*source.skipped, *skipped),
        source=source.name,
        format=source.format,
        options=options,
    )


def _nothing_to_analyze(source: WeightSource) -> str:
    text = f"analyze: 'model_or_path' ({source.name}) holds no weight matrix"
    if not source.skipped:
        return text + ": it is empty."
    reasons = Counter(s.reason for s in source.skipped).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return f"{text} among its {len(source.skipped)} tensors: {listed}."


# --- which layers -------------------------------------------------------------------------------


def _select(
    source: WeightSource, options: AnalyzeOptions
) -> tuple[list[Layer], list[SkippedLayer]]:
    wanted = _wanted(source, options.selection)
    chosen, skipped = [], []
    for layer in source.layers:
        reason = _gate(layer, options) if wanted(layer) else "not selected by 'layers'"
        if reason is None:
            chosen.append(layer)
        else:
            skipped.append(SkippedLayer(layer.name, layer.shape, reason))
    return chosen, skipped


def _wanted(
    source: WeightSource, selection: tuple[int | str, ...] | None
) -> Callable[[Layer], bool]:
    if selection is None:
        return lambda layer: True
    ids = {s for s in selection if not isinstance(s, str)}
    patterns = [s for s in selection if isinstance(s, str)]

    def matches(layer: Layer, pattern: str) -> bool:
        # Also by the key in the file: `pattern` is then a name that ends in .weight.
        names = (layer.name, f"{layer.name}.weight")
        return pattern in names or fnmatch.fnmatchcase(layer.name, pattern)

    unknown: list[int | str] = sorted(ids - {layer.layer_id for layer in source.layers})
    unknown += [p for p in patterns if not any(matches(layer, p) for layer in source.layers)]
    if unknown:
        raise ValueError(
            f"analyze: 'layers' names what the model has not: {unknown}. "
            f"Hint: it has {len(source.layers)} layers, e.g. {source.layers[0].name!r} "
            f"(id {source.layers[0].layer_id})."
        )
    return lambda layer: layer.layer_id in ids or any(matches(layer, p) for p in patterns)


def _gate(layer: Layer, options: AnalyzeOptions) -> str | None:
    try:
        _, M, rf = matrix_shape(layer)
    except ValueError as error:
        return str(error)
    count = M * rf if options.pool else M
    if count < options.min_evals:
        return f"{count} eigenvalues, fewer than min_evals = {options.min_evals}"
    if options.max_evals is not None and count > options.max_evals:
        return f"{count} eigenvalues, more than max_evals = {options.max_evals}"
    return None


# --- spectra ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    layer: Layer
    position: int
    slice_id: int | None
    esd: ESD
    rf: int


@dataclass(frozen=True)
class _Pending:
    layer: Layer
    position: int
    grams: list[FloatArray]
    N: int
    M: int


class _GramArena:
    """Memory for the Gram matrices that wait: one block, taken and given back whole.

    A block of its own for each matrix costs a page fault every 4 KiB, again in every batch; numpy
    asks for huge pages where one block is large.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        needed = sum(M * M * rf for _, M, rf in map(matrix_shape, layers))
        self._block = np.empty(min(needed, PENDING_BYTES // 8))
        self._used = 0

    def take(self, M: int, count: int) -> list[FloatArray] | None:
        """Return room for `count` M x M matrices (Fortran order), or None until `clear`."""
        size = M * M
        if self._used + count * size > self._block.size:
            return None
        start, self._used = self._used, self._used + count * size
        return [
            self._block[start + i * size : start + (i + 1) * size].reshape(M, M, order="F")
            for i in range(count)
        ]

    def clear(self) -> None:
        self._used = 0


def _spectra(
    layers: Sequence[Layer], options: AnalyzeOptions, advance: Callable[[str], None]
) -> Iterator[_Row | SkippedLayer]:
    """Yield the spectra of each layer, one tensor in memory at a time, solving many at once."""
    arena = _GramArena(layers if options.method != "svd" else ())
    pending: list[_Pending] = []
    for position, layer in enumerate(layers):
        N, M, rf = matrix_shape(layer)
        room = None
        if options.method != "svd":
            room = arena.take(M, rf)
            if room is None:
                yield from _solve(pending, options)
                pending = []
                arena.clear()
                room = arena.take(M, rf)  # None again: larger than the arena, gets its own memory
        try:
            slices = matricize(layer, layer.load()).slices
            if options.method == "svd":
                evals, status = esd_module.squared_singular_values(slices)
                yield from _rows(layer, position, N, M, evals, status, "svd", options)
            else:
                pending.append(_Pending(layer, position, ops.gram(slices, room), N, M))
        except LOAD_ERRORS as error:
            yield _unreadable(layer, error)
        finally:
            slices = ()  # this tensor goes before the next one comes
        if room is None and pending:
            yield from _solve(pending, options)
            pending = []
            arena.clear()
        advance(layer.name)
    yield from _solve(pending, options)


def _solve(pending: list[_Pending], options: AnalyzeOptions) -> Iterator[_Row | SkippedLayer]:
    evals, status = ops.eigvals([g for p in pending for g in p.grams])
    start = 0
    for p in pending:
        stop = start + len(p.grams)
        own_evals, own_status = evals[start:stop], status[start:stop]
        start = stop
        method = "gram"
        if options.method == "auto":
            unresolved = [
                i
                for i, (e, s) in enumerate(zip(own_evals, own_status, strict=True))
                if esd_module.needs_svd(e, s)
            ]
            if unresolved:
                try:
                    matrices = matricize(p.layer, p.layer.load())
                    found, codes = esd_module.squared_singular_values(
                        [matrices.slices[i] for i in unresolved]
                    )
                except LOAD_ERRORS as error:
                    yield _unreadable(p.layer, error)
                    continue
                for i, e, s in zip(unresolved, found, codes, strict=True):
                    own_evals[i], own_status[i] = e, s
                method = "svd"
        yield from _rows(p.layer, p.position, p.N, p.M, own_evals, own_status, method, options)


def _unreadable(layer: Layer, error: Exception) -> SkippedLayer:
    return SkippedLayer(
        layer.name,
        layer.shape,
        f"could not be read: {str(error) or type(error).__name__}",
        failed=True,
    )


def _rows(
    layer: Layer,
    position: int,
    N: int,
    M: int,
    evals: Sequence[FloatArray],
    status: Sequence[Status],
    method: str,
    options: AnalyzeOptions,
) -> Iterator[_Row]:
    rf = len(evals)
    if options.pool or rf == 1:
        scale = _scale(layer.kind, rf, pool=True)
        esd = esd_module.pool(evals, status, N=N, M=M, method=method, scale=scale)
        yield _Row(layer, position, None, esd, rf)
        return
    scale = _scale(layer.kind, rf, pool=False)
    for i in range(rf):
        esd = esd_module.pool([evals[i]], [status[i]], N=N, M=M, method=method, scale=scale)
        yield _Row(layer, position, i, esd, rf)


def _scale(kind: str, rf: int, *, pool: bool) -> float:
    """Factor on the eigenvalues; only 2-D convolutions have one, which is WeightWatcher's."""
    if not (kind.startswith("conv2d") or kind.startswith("conv_transpose2d")):
        return 1.0
    return 0.5 if pool else rf / 2.0


# --- fits and metrics ---------------------------------------------------------------------------


def _layer_report(row: _Row, fit: PowerLawFit | None, options: AnalyzeOptions) -> LayerReport:
    esd, layer = row.esd, row.layer
    if fit is not None and fit.status is Status.OK and powerlaw.is_rounding(esd.evals, layer.dtype):
        fit = powerlaw.no_fit(Status.DEGENERATE, fit.n, fit.estimator)
    raw_fit, n_fingers = None, None
    metrics: dict[str, float | int] = {}
    if fit is None:
        fit = powerlaw.no_fit(esd.status, 0, options.estimator)
    else:
        if options.fix_fingers == "clip_xmax":
            raw_fit = fit
            fit, n_fingers = powerlaw.clip_fingers(esd.evals, raw_fit)
        groups = ("default", "detx") if options.detx else ("default",)
        metrics = evaluate(Spectrum(esd, fit, rank_side=esd.N), groups)
    n_tail = int(np.count_nonzero(esd.evals >= fit.xmin)) if fit.status is Status.OK else 0
    return LayerReport(
        layer_id=layer.layer_id,
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        slice_id=row.slice_id,
        rf=row.rf,
        part_of=layer.part_of,
        esd=esd,
        fit=fit,
        n_tail=n_tail,
        raw_fit=raw_fit,
        n_fingers=n_fingers,
        metrics=metrics,
        warning=layer_warning(fit),
    )
