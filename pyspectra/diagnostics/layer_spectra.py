"""Eigenvalues of many layers: one tensor in memory at a time, many matrices solved at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra import ops
from pyspectra.diagnostics.report import AnalyzeOptions
from pyspectra.errors import PyspectraError
from pyspectra.spectra import esd as esd_module
from pyspectra.types import ESD, FloatArray, Status
from pyspectra.weights import Layer, SkippedLayer
from pyspectra.weights.matricize import matricize, matrix_shape

# Gram matrices wait for one another until they fill this, so that many are solved at once.
PENDING_BYTES = 64 * 2**20

# What reading one tensor may raise; the layer is then reported and the rest goes on.
LOAD_ERRORS = (PyspectraError, OSError, MemoryError)


@dataclass(frozen=True)
class LayerSpectrum:
    """The ESD of a layer, or of one slice of it (`slice_id`); `rf` matrices make the layer."""

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


def layer_spectra(
    layers: Sequence[Layer], options: AnalyzeOptions, advance: Callable[[str], None]
) -> Iterator[LayerSpectrum | SkippedLayer]:
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


def _solve(
    pending: list[_Pending], options: AnalyzeOptions
) -> Iterator[LayerSpectrum | SkippedLayer]:
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
) -> Iterator[LayerSpectrum]:
    rf = len(evals)
    if options.pool or rf == 1:
        scale = _scale(layer.kind, rf, pool=True)
        esd = esd_module.pool(evals, status, N=N, M=M, method=method, scale=scale)
        yield LayerSpectrum(layer, position, None, esd, rf)
        return
    scale = _scale(layer.kind, rf, pool=False)
    for i in range(rf):
        esd = esd_module.pool([evals[i]], [status[i]], N=N, M=M, method=method, scale=scale)
        yield LayerSpectrum(layer, position, i, esd, rf)


def _scale(kind: str, rf: int, *, pool: bool) -> float:
    """Factor on the eigenvalues; only 2-D convolutions have one, which is WeightWatcher's."""
    if not (kind.startswith("conv2d") or kind.startswith("conv_transpose2d")):
        return 1.0
    return 0.5 if pool else rf / 2.0
