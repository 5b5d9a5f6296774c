"""Eigenvalues of many layers: few tensors in memory at a time, many matrices solved at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra.analysis.engine import Engine, Matrices, engine
from pyspectra.errors import PyspectraError
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra import esd as esd_module
from pyspectra.spectra import random_null, randomize
from pyspectra.spectra.eigenvectors import EigenvectorStatistics, eigenvector_statistics
from pyspectra.spectra.estimators import Estimator, parse_estimator
from pyspectra.spectra.farms import fit_windows
from pyspectra.spectra.powerlaw import EVALS_THRESHOLD
from pyspectra.types import ESD, FloatArray, PowerLawFit, Status
from pyspectra.weights import Layer, Skip, SkippedLayer
from pyspectra.weights.matricize import matricize, matrix_shape

if TYPE_CHECKING:
    import torch

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


@dataclass(frozen=True)
class LayerSpectrum:
    """The ESD of a layer, or of one slice of it (`slice_id`); `rf` matrices make the layer.

    `kurtosis` of the entries, spectra of the permuted entries (`replicas`, ascending),
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
    grams: list[Any]  # the engine's; of the matrices, then of each of their permutations
    N: int
    M: int
    extras: _Extras


def layer_spectra(
    layers: Sequence[Layer],
    options: AnalyzeOptions,
    advance: Callable[[str], None],
    floors: Mapping[str, float] | None = None,
    device: torch.device | None = None,
) -> Iterator[LayerSpectrum | SkippedLayer]:
    """Yield the spectra of each layer, solving many at once, on the CPU unless there is a `device`.

    `floors`: what eigenvalues of each layer must exceed to enter a fit of sub-matrices.
    """
    there = engine(_elements(layers, options), device)
    pending: list[_Pending] = []
    for position, (layer, read) in enumerate(zip(layers, there.reads(layers), strict=True)):
        _, M, rf = matrix_shape(layer)
        room, needed = None, rf * (1 + _n_replicas(M, rf, options))
        if options.method != "svd":
            room = there.take(M, needed)
            if room is None:
                yield from _solve(pending, there, options)
                pending = []
                there.clear()
                # None again: larger than all of it, gets its own memory
                room = there.take(M, needed)
        try:
            if options.method == "svd":
                yield from _by_svd(layer, position, read(), there, options, floors)
            else:
                pending.append(_taken_in(layer, position, read(), room, there, options, floors))
        except LOAD_ERRORS as error:
            yield _unreadable(layer, error)
        if room is None and pending:
            yield from _solve(pending, there, options)
            pending = []
            there.clear()
        advance(layer.name)
    yield from _solve(pending, there, options)


# The three that follow let go of the tensor as they return, before the next one comes.


def _by_svd(
    layer: Layer,
    position: int,
    matrices: Matrices,
    there: Engine,
    options: AnalyzeOptions,
    floors: Mapping[str, float] | None,
) -> Iterator[LayerSpectrum]:
    N, M, rf = matrix_shape(layer)
    slices = matrices.slices
    one = _Pending(layer, position, [], N, M, _extras(layer, slices, options, floors))
    evals, status = there.squared_singular_values([*slices, *_permuted(layer, slices, M, options)])
    yield from _rows(one, rf, evals, status, "svd", options)


def _taken_in(
    layer: Layer,
    position: int,
    matrices: Matrices,
    room: Sequence[Any] | None,
    there: Engine,
    options: AnalyzeOptions,
    floors: Mapping[str, float] | None,
) -> _Pending:
    """Take from the entries what is needed: Gram matrices, and whatever else."""
    N, M, _ = matrix_shape(layer)
    grams = _grams(layer, matrices, M, room, there, options)
    return _Pending(layer, position, grams, N, M, _extras(layer, matrices.slices, options, floors))


def _read_again(
    layer: Layer, unresolved: Sequence[int], there: Engine
) -> tuple[list[FloatArray], list[Status]]:
    """Return squared singular values of some matrices of a layer, and whether they are any good."""
    slices = matricize(layer, layer.load()).slices
    return there.squared_singular_values([slices[i] for i in unresolved])


def _elements(layers: Sequence[Layer], options: AnalyzeOptions) -> int:
    """Elements of all Gram matrices that there will be."""
    if options.method == "svd":
        return 0
    shapes = map(matrix_shape, layers)
    return sum(M * M * rf * (1 + _n_replicas(M, rf, options)) for _, M, rf in shapes)


def _n_replicas(M: int, rf: int, options: AnalyzeOptions) -> int:
    if not options.randomize:
        return 0
    return randomize.n_replicas(M * rf if options.pool else M)


def _grams(
    layer: Layer,
    matrices: Matrices,
    M: int,
    room: Sequence[Any] | None,
    there: Engine,
    options: AnalyzeOptions,
) -> list[Any]:
    """Gram matrices of the matrices and of their permutations, of which one exists at a time."""
    rf = len(matrices.slices)
    grams = there.grams(matrices.operands, None if room is None else room[:rf])
    for k, X in enumerate(_permuted(layer, matrices.slices, M, options), start=rf):
        grams += there.grams([there.operand(X)], None if room is None else [room[k]])
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
        rows = [slices] if options.pool else [[X] for X in slices]
        vectors = [eigenvector_statistics(row) for row in rows]
    return _Extras(kurtosis, tuple(vectors), _windows(layer, slices, options, floors))


def _solve(
    pending: list[_Pending], there: Engine, options: AnalyzeOptions
) -> Iterator[LayerSpectrum | SkippedLayer]:
    evals, status = there.eigvals([g for p in pending for g in p.grams])
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
                    found, codes = _read_again(p.layer, unresolved, there)
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
    threshold = EVALS_THRESHOLD if floors is None else floors[layer.name]
    rows = [slices] if options.pool else [[one] for one in slices]
    return tuple(fit_windows(row, farms, Estimator("ww"), threshold=threshold) for row in rows)


def _unreadable(layer: Layer, error: Exception) -> SkippedLayer:
    detail = {"error": str(error) or type(error).__name__}
    return SkippedLayer(layer.name, layer.shape, Skip("read_failed", detail))


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
    n_sets = len(evals) // rf
    for row, members in enumerate([range(rf)] if pooled else [range(i, i + 1) for i in range(rf)]):
        sets = [
            esd_module.pool(
                [evals[k * rf + i] for i in members],
                [status[k * rf + i] for i in members],
                N=p.N,
                M=p.M,
                method=method,
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
