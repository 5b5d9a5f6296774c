"""Where matrices of an analysis are read and solved: on the CPU, or on a CUDA device.

Both engines do the same to the same layers; `pyspectra.analysis.batches` drives them.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._cuda import devices, eigenvalues
from pyspectra.spectra import esd
from pyspectra.spectra.fast import FAST_ORDER, FAST_ORDER_WIDE, FastSpectrum, fast_spectrum
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer
from pyspectra.weights.ahead import ReadAhead
from pyspectra.weights.matricize import apart, matricize, matrix_indices
from pyspectra.weights.rounding import Change

if TYPE_CHECKING:
    from concurrent.futures import Future

    import torch

# Gram matrices wait for one another until they fill this, so that many are solved at once.
PENDING_BYTES = 64 * 2**20

# The same on a device, as a share of the memory that is free there: batches of large matrices need
# the room, and solving takes about five times theirs.
PENDING_SHARE = 1 / 8

# Tensors that are read and sent to a device while those before them are worked on.
READ_AHEAD = 2

Solution = tuple[list[FloatArray], list[Status]]
"""Ascending eigenvalues of each matrix, and whether they are any good."""


@dataclass(frozen=True)
class Matrices:
    """The matrices of a layer.

    Attributes
    ----------
    slices : tuple of HostArray
        The 2-D arrays, in host memory.
    operands : sequence
        The same matrices, as the engine's `grams` wants them.
    change : Change or None
        How large the difference of two models is and what of it is rounding; None for stored
        weights.
    """

    slices: tuple[HostArray, ...]
    operands: Sequence[Any]
    change: Change | None = None


Read = Callable[[], Matrices]


class Engine(ABC):
    """What solves the matrices; `Any` stands for whatever its Gram matrices are.

    Attributes
    ----------
    capacity : int
        Elements of Gram matrices that may wait to be solved together.
    shares_threads : bool
        Whether several threads may ask for something at once; only one of them takes from `reads`.
    """

    capacity: int
    shares_threads = False

    def again(self, layer: Layer) -> Sequence[HostArray]:
        """Read the matrices of a layer once more."""
        return matricize(layer, apart(layer, layer.load())).slices

    def fast(self, X: HostArray) -> FastSpectrum | None:
        """Solve one matrix by float32; None where float64 has to serve."""
        return None

    @abstractmethod
    def reads(self, layers: Sequence[Layer]) -> Generator[Read, None, None]:
        """Yield, for each layer, what reads it: to be called once, before the next; may raise.

        Whoever does not take all of them closes the generator, which ends what runs ahead.
        """

    @abstractmethod
    def clear(self) -> None:
        """Forget the Gram matrices that were made so far: what held them serves the next ones."""

    @abstractmethod
    def take(self, M: int, count: int) -> Sequence[Any] | None:
        """Return room for `count` M x M matrices, None where they need memory of their own."""

    def lend(self, M: int, count: int) -> Sequence[Any] | None:
        """Return the same for what the calling thread has done with when it asks again."""
        return None

    @abstractmethod
    def operand(self, X: HostArray) -> Any:
        """Return one more matrix as `grams` wants it."""

    @abstractmethod
    def grams(self, operands: Sequence[Any], room: Sequence[Any] | None) -> list[Any]:
        """Return the float64 Gram matrices of the shorter side, in `room` if there is any."""

    @abstractmethod
    def eigvals(self, grams: Sequence[Any]) -> Solution:
        """Solve Gram matrices."""

    @abstractmethod
    def squared_singular_values(self, X: Sequence[HostArray]) -> Solution:
        """Solve matrices of one shape for which Gram matrices would not do."""

    def foreseen(
        self, X: Sequence[HostArray], grams: Sequence[Any]
    ) -> dict[int, tuple[FloatArray, Status]]:
        """Solve those matrices, by number, for which Gram matrices certainly will not do."""
        return {}

    def unresolved(
        self, X: Sequence[HostArray], grams: Sequence[Any], evals: Sequence[FloatArray],
        status: Sequence[Status],
    ) -> Solution:  # fmt: skip
        """Solve matrices of one shape again, of which Gram matrices have not resolved all."""
        return self.squared_singular_values(X)


class _HostEngine(Engine):
    """The CPU's: a tensor is in memory while a thread works on it.

    Gram matrices that wait have one block, given back whole: a block of its own for each matrix
    costs a page fault every 4 KiB, again in every batch; numpy asks for huge pages where one block
    is large.
    """

    shares_threads = True

    def __init__(self, capacity: int, block: int) -> None:
        self.capacity = capacity
        self._lent = threading.local()
        self._reading = threading.Lock()
        self._block = np.empty(block)
        self._used = 0
        self._ahead: ReadAhead | None = None

    def reads(self, layers: Sequence[Layer]) -> Generator[Read, None, None]:
        with ReadAhead(layers) as ahead:
            self._ahead = ahead
            for layer in layers:
                yield partial(self._read, layer, ahead)

    def fast(self, X: HostArray) -> FastSpectrum | None:
        least = FAST_ORDER if X.data.itemsize == 2 else FAST_ORDER_WIDE
        return fast_spectrum(X) if min(X.shape) >= least else None

    def _read(self, layer: Layer, ahead: ReadAhead) -> Matrices:
        with self._reading:  # files and modules need not bear several readers
            try:
                loaded, change = layer.load_with_change()
            finally:
                ahead.loaded()
        slices = matricize(layer, apart(layer, loaded)).slices
        return Matrices(slices, slices, change)

    def clear(self) -> None:
        self._used = 0
        if self._ahead is not None:
            self._ahead.done()

    def take(self, M: int, count: int) -> list[FloatArray] | None:
        size = M * M
        if self._used + count * size > self._block.size:
            return None
        start, self._used = self._used, self._used + count * size
        return _stack(self._block[start : self._used], M)

    def lend(self, M: int, count: int) -> list[FloatArray]:
        size = count * M * M
        if getattr(self._lent, "size", 0) < size:
            self._lent.size, self._lent.block = size, np.empty(size)
        return _stack(self._lent.block[:size], M)

    def again(self, layer: Layer) -> Sequence[HostArray]:
        with self._reading:
            loaded = layer.load()
        return matricize(layer, apart(layer, loaded)).slices

    def operand(self, X: HostArray) -> HostArray:
        return X

    def grams(
        self, operands: Sequence[HostArray], room: Sequence[FloatArray] | None
    ) -> list[FloatArray]:
        return ops.gram(operands, room)

    def eigvals(self, grams: Sequence[FloatArray]) -> Solution:
        return ops.eigvals(grams)

    def squared_singular_values(self, X: Sequence[HostArray]) -> Solution:
        return esd.squared_singular_values(X)

    def foreseen(
        self, X: Sequence[HostArray], grams: Sequence[Any]
    ) -> dict[int, tuple[FloatArray, Status]]:
        return esd.foreseen(X, grams)

    def unresolved(
        self, X: Sequence[HostArray], grams: Sequence[Any], evals: Sequence[FloatArray],
        status: Sequence[Status],
    ) -> Solution:  # fmt: skip
        return esd.unresolved_anew(X, grams, evals, status)


def _stack(block: FloatArray, M: int) -> list[FloatArray]:
    """Cut a block into M x M matrices, each in Fortran order."""
    return [part.reshape(M, M, order="F") for part in block.reshape(-1, M * M)]


def host_engine(sizes: Sequence[int]) -> Engine:
    """Return the CPU's engine for batches whose Gram matrices have so many elements."""
    capacity = PENDING_BYTES // 8
    # What is larger is one matrix or a few, and gets memory of its own.
    fitting = [size for size in sizes if size <= capacity]
    return _HostEngine(capacity, max(fitting, default=0))


class _DeviceEngine(Engine):
    """A CUDA device's: a thread reads tensors and sends them there while others are solved."""

    def __init__(self, device: torch.device) -> None:
        self._uploads = devices.Uploads(device)
        self._budget = int(devices.free_bytes(device) * PENDING_SHARE)
        self.capacity = self._budget // 8

    def reads(self, layers: Sequence[Layer]) -> Generator[Read, None, None]:
        from concurrent.futures import ThreadPoolExecutor

        ahead: deque[Future[Matrices]] = deque()

        def read() -> Matrices:
            return ahead.popleft().result()  # and is not kept

        pool = ThreadPoolExecutor(1, "pyspectra-read")
        try:
            waiting = iter(layers)
            for layer in itertools.islice(waiting, READ_AHEAD):
                ahead.append(pool.submit(self._read, layer))
            for layer in waiting:
                ahead.append(pool.submit(self._read, layer))
                yield read
            while ahead:
                yield read
        finally:
            pool.shutdown(cancel_futures=True)  # waits for what is being read, for no more

    def _read(self, layer: Layer) -> Matrices:
        with self._uploads.reading():
            loaded, change = layer.load_with_change(self._uploads.empty)
        whole = HostArray(np.ascontiguousarray(loaded.data), loaded.dtype)
        sent = self._uploads.send(whole)
        slices = matricize(layer, whole).slices
        return Matrices(slices, [partial(sent, i) for i in matrix_indices(layer)], change)

    def clear(self) -> None:
        pass  # the memory belongs to torch, which keeps what is given back

    def take(self, M: int, count: int) -> None:
        return None  # torch's allocator serves

    def operand(self, X: HostArray) -> Callable[[], torch.Tensor]:
        sent = self._uploads.send(HostArray(np.ascontiguousarray(X.data), X.dtype))
        return partial(sent, ...)

    def grams(
        self, operands: Sequence[Callable[[], torch.Tensor]], room: Sequence[Any] | None
    ) -> list[torch.Tensor]:
        return [eigenvalues.gram(operand()) for operand in operands]

    def eigvals(self, grams: Sequence[torch.Tensor]) -> Solution:
        orders = sorted({len(g) for g in grams}, reverse=True)

        def on_host(i: int) -> Solution:
            return ops.eigvals([np.asfortranarray(grams[i].cpu().numpy())])

        return _in_batches(
            [[i for i, g in enumerate(grams) if len(g) == M] for M in orders],
            lambda members: eigenvalues.eigvals_of([grams[i] for i in members]),
            on_host,
        )

    def squared_singular_values(self, X: Sequence[HostArray]) -> Solution:
        # Each takes a symmetric matrix of twice the order.
        count = max(1, self._budget // (32 * min(X[0].shape) ** 2))

        def on_device(members: list[int]) -> Solution:
            tensors = [self.operand(X[i])() for i in members]
            return esd.squares(*eigenvalues.singular_values(tensors))

        return _in_batches(
            [list(range(len(X)))[k : k + count] for k in range(0, len(X), count)],
            on_device,
            lambda i: esd.squared_singular_values([X[i]]),
        )


def device_engine(device: torch.device) -> Engine:
    """Return the engine of a CUDA device."""
    return _DeviceEngine(device)


def _in_batches(
    batches: list[list[int]],
    on_device: Callable[[list[int]], Solution],
    on_host: Callable[[int], Solution],
) -> Solution:
    """Solve problems on a device, by halves of a batch if need be; the CPU gets what has no room.

    The batches hold the numbers 0, 1, ... of the problems, each once.
    """
    evals: dict[int, FloatArray] = {}
    status: dict[int, Status] = {}
    waiting = list(batches)
    while waiting:
        members = waiting.pop(0)
        found = None
        # Only after the error, which holds what it failed with, has gone: others need the room.
        with contextlib.suppress(MemoryError):
            found = on_device(members)
        if found is None and len(members) > 1:
            half = len(members) // 2
            waiting[:0] = members[:half], members[half:]
            continue
        for i, e, s in zip(members, *(found or on_host(members[0])), strict=True):
            evals[i], status[i] = e, s
    return [evals[i] for i in range(len(evals))], [status[i] for i in range(len(status))]
