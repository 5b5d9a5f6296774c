"""Eigenvalues of many layers: one tensor in memory at a time, many matrices solved at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.diagnostics.report import AnalyzeOptions
from pyspectra.errors import PyspectraError
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import random_null, randomize
from pyspectra.spectra.eigenvectors import EigenvectorStatistics, eigenvector_statistics
from pyspectra.spectra.estimators import Estimator, parse_estimator
from pyspectra.spectra.farms import fit_windows
from pyspectra.spectra.powerlaw import EVALS_THRESHOLD
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status
from pyspectra.weights import Layer, SkippedLayer
from pyspectra.weights.matricize import matricize, matrix_shape

# Gram matrices wait for one another until they fill this, so that many are solved at once.
PENDING_BYTES = 64 * 2**20

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


@dataclass(frozen=True)
class LayerSpectrum:
    """The ESD of a layer, or of one slice of it (`slice_id`); `rf` matrices make the layer.

    `kurtosis` of the entries, spectra of the permuted entries (`replicas`, ascending, scaled),
    statistics of the `vectors` and the fit of sub-matrices (`windows`, estimator ``"farms"``) are
    there if the options asked for them.
    """

    layer: Layer
    position: int
    slice_id: int | None
    esd: ESD
    rf: int
    kurtosis: float = 0.0
    replicas: tuple[FloatArray, ...] = ()
    vectors: EigenvectorStatistics | None = None
    windows: PowerLawFit | None = None


@dataclass(frozen=True)
class _Extras:
    """What else is taken from the entries while they are in memory."""

    kurtosis: float
    vectors: tuple[EigenvectorStatistics | None, ...]  # one a row of the report
    windows: tuple[PowerLawFit, ...]  # one a row, with estimator "farms"; else none


@dataclass(frozen=True)
class _Pending:
    layer: Layer
    position: int
    grams: list[FloatArray]  # of the matrices, then of each of their permutations
    N: int
    M: int
    extras: _Extras


class _GramArena:
    """Memory for the Gram matrices that wait: one block, taken and given back whole.

    A block of its own for each matrix costs a page fault every 4 KiB, again in every batch; numpy
    asks for huge pages where one block is large.
    """

    def __init__(self, layers: Sequence[Layer], options: AnalyzeOptions) -> None:
        shapes = map(matrix_shape, layers)
        needed = sum(M * M * rf * (1 + _n_replicas(M, rf, options)) for _, M, rf in shapes)
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


def layer_spectra(
    layers: Sequence[Layer],
    options: AnalyzeOptions,
    advance: Callable[[str], None],
    floors: Mapping[str, float] | None = None,
) -> Iterator[LayerSpectrum | SkippedLayer]:
    """Yield the spectra of each layer, one tensor in memory at a time, solving many at once.

    `floors`: what eigenvalues of each layer must exceed to enter a fit of sub-matrices.
    """
    arena = _GramArena(layers if options.method != "svd" else (), options)
    pending: list[_Pending] = []
    for position, layer in enumerate(layers):
        N, M, rf = matrix_shape(layer)
        room, needed = None, rf * (1 + _n_replicas(M, rf, options))
        if options.method != "svd":
            room = arena.take(M, needed)
            if room is None:
                yield from _solve(pending, options)
                pending = []
                arena.clear()
                # None again: larger than the arena, gets its own memory
                room = arena.take(M, needed)
        try:
            slices = matricize(layer, layer.load()).slices
            if options.method == "svd":
                one = _Pending(layer, position, [], N, M, _extras(layer, slices, options, floors))
                evals, status = esd_module.squared_singular_values(
                    [*slices, *_permuted(layer, slices, M, options)]
                )
                yield from _rows(one, rf, evals, status, "svd", options)
            else:
                grams = _grams(layer, slices, M, room, options)
                extras = _extras(layer, slices, options, floors)
                pending.append(_Pending(layer, position, grams, N, M, extras))
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


def _n_replicas(M: int, rf: int, options: AnalyzeOptions) -> int:
    if not options.randomize:
        return 0
    return randomize.n_replicas(M * rf if options.pool else M)


def _grams(
    layer: Layer,
    slices: Sequence[HostArray],
    M: int,
    room: list[FloatArray] | None,
    options: AnalyzeOptions,
) -> list[FloatArray]:
    """Gram matrices of the matrices and of their permutations, of which one exists at a time."""
    rf = len(slices)
    grams = ops.gram(slices, None if room is None else room[:rf])
    for k, X in enumerate(_permuted(layer, slices, M, options), start=rf):
        grams += ops.gram([X], None if room is None else [room[k]])
    return grams


def _permuted(
    layer: Layer, slices: Sequence[HostArray], M: int, options: AnalyzeOptions
) -> Iterator[HostArray]:
    """Yield the matrices with their entries permuted, one permutation of all after the other."""
    for replica in range(_n_replicas(M, len(slices), options)):
        for i, X in enumerate(slices):
            key = randomize.permutation_key(options.seed, layer.name, i, replica)
            yield ops.permute(X, key)


def _extras(
    layer: Layer,
    slices: Sequence[HostArray],
    options: AnalyzeOptions,
    floors: Mapping[str, float] | None,
) -> _Extras:
    kurtosis = random_null.excess_kurtosis(slices)
    vectors: list[EigenvectorStatistics | None] = []
    if options.vectors:
        rf = len(slices)
        scale = conv_scale(layer.kind, rf, pool=options.pool or rf == 1)
        rows = [slices] if options.pool else [[X] for X in slices]
        vectors = [eigenvector_statistics(row, scale) for row in rows]
    return _Extras(kurtosis, tuple(vectors), _windows(layer, slices, options, floors))


def _solve(
    pending: list[_Pending], options: AnalyzeOptions
) -> Iterator[LayerSpectrum | SkippedLayer]:
    evals, status = ops.eigvals([g for p in pending for g in p.grams])
    start = 0
    for p in pending:
        stop = start + len(p.grams)
        own_evals, own_status = evals[start:stop], status[start:stop]
        start = stop
        rf = matrix_shape(p.layer)[2]
        method = "gram"
        if options.method == "auto":
            unresolved = [
                i
                for i, (e, s) in enumerate(zip(own_evals[:rf], own_status[:rf], strict=True))
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
        yield from _rows(p, rf, own_evals, own_status, method, options)


def _windows(
    layer: Layer,
    slices: Sequence[HostArray],
    options: AnalyzeOptions,
    floors: Mapping[str, float] | None,
) -> tuple[PowerLawFit, ...]:
    farms = parse_estimator(options.estimator, "analyze")
    if farms.name != "farms":
        return ()
    scale = conv_scale(layer.kind, len(slices), pool=options.pool or len(slices) == 1)
    threshold = EVALS_THRESHOLD if floors is None else floors[layer.name]
    rows = [slices] if options.pool else [[one] for one in slices]
    return tuple(
        fit_windows(row, farms, Estimator("ww"), scale=scale, threshold=threshold) for row in rows
    )


def _unreadable(layer: Layer, error: Exception) -> SkippedLayer:
    return SkippedLayer(
        layer.name,
        layer.shape,
        f"could not be read: {str(error) or type(error).__name__}",
        failed=True,
    )


def _rows(
    p: _Pending,
    rf: int,
    evals: Sequence[FloatArray],
    status: Sequence[Status],
    method: str,
    options: AnalyzeOptions,
) -> Iterator[LayerSpectrum]:
    """Yield a row for the layer, or one a slice; `evals` has `rf` spectra a permutation."""
    pooled = options.pool or rf == 1
    scale = conv_scale(p.layer.kind, rf, pool=pooled)
    n_sets = len(evals) // rf
    for row, members in enumerate([range(rf)] if pooled else [range(i, i + 1) for i in range(rf)]):
        sets = [
            esd_module.pool(
                [evals[k * rf + i] for i in members],
                [status[k * rf + i] for i in members],
                N=p.N,
                M=p.M,
                method=method,
                scale=scale,
            )
            for k in range(n_sets)
        ]
        yield LayerSpectrum(
            layer=p.layer,
            position=p.position,
            slice_id=None if pooled else row,
            esd=sets[0],
            rf=rf,
            kurtosis=p.extras.kurtosis,
            replicas=tuple(esd.evals for esd in sets[1:]),
            vectors=p.extras.vectors[row] if p.extras.vectors else None,
            windows=p.extras.windows[row] if p.extras.windows else None,
        )


def conv_scale(kind: str, rf: int, *, pool: bool) -> float:
    """Factor on the eigenvalues; only 2-D convolutions have one, which is WeightWatcher's."""
    if not (kind.startswith("conv2d") or kind.startswith("conv_transpose2d")):
        return 1.0
    return 0.5 if pool else rf / 2.0
