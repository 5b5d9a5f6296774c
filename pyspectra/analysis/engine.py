"""Where the eigenvalues of `analyze` are computed: reading, Gram matrices, solving.

Both engines do the same to the same layers; `layer_spectra` drives the one that `engine` chose.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray
from pyspectra._cuda import devices, eigenvalues
from pyspectra.spectra import esd
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer
from pyspectra.weights.matricize import matricize, matrix_indices

if TYPE_CHECKING:
    import torch

# Gram matrices wait for one another until they fill this, so that many are solved at once.
PENDING_BYTES = 64 * 2**20

# The same on a device, as a share of the memory that is free there: batches of large matrices need
# the room, and solving takes about five times theirs.
PENDING_SHARE = 1 / 8

# Tensors that are read and sent to a device while those before them are worked on.
READ_AHEAD = 2


@dataclass(frozen=True)
class Matrices:
    """The matrices of a layer in host memory, and as the engine's `grams` wants them."""

    slices: tuple[HostArray, ...]
    operands: Sequence[Any]


class Engine(Protocol):
    """What `layer_spectra` needs; `Any` stands for whatever the engine's matrices are."""

    def reads(self, layers: Sequence[Layer]) -> Iterator[Callable[[], Matrices]]:
        """Yield, for each layer, what reads it: to be called once, before the next; may raise."""
        ...

    def take(self, M: int, count: int) -> Sequence[Any] | None:
        """Return room for `count` M x M matrices, or None until `clear`."""
        ...

    def clear(self) -> None:
        """Give all room back."""
        ...

    def operand(self, X: HostArray) -> Any:
        """Return one more matrix as `grams` wants it."""
        ...

    def grams(self, operands: Sequence[Any], room: Sequence[Any] | None) -> list[Any]:
        """Return the float64 Gram matrices of the shorter side, in `room` if there is any."""
        ...

    def eigvals(self, grams: Sequence[Any]) -> tuple[list[FloatArray], list[Status]]:
        """Return the ascending eigenvalues of each, and whether they are any good."""
        ...

    def squared_singular_values(
        self, X: Sequence[HostArray]
    ) -> tuple[list[FloatArray], list[Status]]:
        """Return those of matrices of one shape, for which Gram matrices would not do."""
        ...


class _Host:
    """The CPU's: one tensor in memory at a time.

    Gram matrices that wait have one block, taken and given back whole: a block of its own for each
    matrix costs a page fault every 4 KiB, again in every batch; numpy asks for huge pages where one
    block is large. `elements`: of all Gram matrices that there will be.
    """

    def __init__(self, elements: int) -> None:
        self._block = np.empty(min(elements, PENDING_BYTES // 8))
        self._used = 0

    def reads(self, layers: Sequence[Layer]) -> Iterator[Callable[[], Matrices]]:
        return (partial(self._read, layer) for layer in layers)

    @staticmethod
    def _read(layer: Layer) -> Matrices:
        slices = matricize(layer, layer.load()).slices
        return Matrices(slices, slices)

    def take(self, M: int, count: int) -> list[FloatArray] | None:
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

    def operand(self, X: HostArray) -> HostArray:
        return X

    def grams(
        self, operands: Sequence[HostArray], room: Sequence[FloatArray] | None
    ) -> list[FloatArray]:
        return ops.gram(operands, room)

    def eigvals(self, grams: Sequence[FloatArray]) -> tuple[list[FloatArray], list[Status]]:
        return ops.eigvals(grams)

    def squared_singular_values(
        self, X: Sequence[HostArray]
    ) -> tuple[list[FloatArray], list[Status]]:
        return esd.squared_singular_values(X)


class _Device:
    """A CUDA device's: a thread reads tensors and sends them there while others are solved."""

    def __init__(self, device: torch.device) -> None:
        self._uploads = devices.Uploads(device)
        self._budget = int(devices.free_bytes(device) * PENDING_SHARE)
        self._used = 0

    def reads(self, layers: Sequence[Layer]) -> Iterator[Callable[[], Matrices]]:
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
            loaded = layer.load(self._uploads.empty)
        whole = HostArray(np.ascontiguousarray(loaded.data), loaded.dtype)
        sent = self._uploads.send(whole)
        slices = matricize(layer, whole).slices
        return Matrices(slices, [partial(sent, index) for index in matrix_indices(layer)])

    def take(self, M: int, count: int) -> list[None] | None:
        size = 8 * M * M * count
        if self._used + size > self._budget:
            return None
        self._used += size
        return [None] * count

    def clear(self) -> None:
        self._used = 0

    def operand(self, X: HostArray) -> Callable[[], torch.Tensor]:
        sent = self._uploads.send(HostArray(np.ascontiguousarray(X.data), X.dtype))
        return partial(sent, ...)

    def grams(
        self, operands: Sequence[Callable[[], torch.Tensor]], room: Sequence[None] | None
    ) -> list[torch.Tensor]:
        return [eigenvalues.gram(operand()) for operand in operands]

    def eigvals(self, grams: Sequence[torch.Tensor]) -> tuple[list[FloatArray], list[Status]]:
        orders = sorted({len(g) for g in grams}, reverse=True)

        def here(i: int) -> tuple[list[FloatArray], list[Status]]:
            return ops.eigvals([np.asfortranarray(grams[i].cpu().numpy())])

        return _in_batches(
            [[i for i, g in enumerate(grams) if len(g) == M] for M in orders],
            lambda where: eigenvalues.eigvals_of([grams[i] for i in where]),
            here,
        )

    def squared_singular_values(
        self, X: Sequence[HostArray]
    ) -> tuple[list[FloatArray], list[Status]]:
        # Each takes a symmetric matrix of twice the order.
        count = max(1, self._budget // (32 * min(X[0].shape) ** 2))

        def there(where: list[int]) -> tuple[list[FloatArray], list[Status]]:
            return esd.squares(*eigenvalues.singular_values([self.operand(X[i])() for i in where]))

        return _in_batches(
            [list(range(len(X)))[k : k + count] for k in range(0, len(X), count)],
            there,
            lambda i: esd.squared_singular_values([X[i]]),
        )


def _in_batches(
    batches: list[list[int]],
    there: Callable[[list[int]], tuple[list[FloatArray], list[Status]]],
    here: Callable[[int], tuple[list[FloatArray], list[Status]]],
) -> tuple[list[FloatArray], list[Status]]:
    """Solve problems on a device, by halves of a batch if need be, and those too large for it here.

    The batches hold the numbers 0, 1, ... of the problems, each once.
    """
    evals: dict[int, FloatArray] = {}
    status: dict[int, Status] = {}
    todo = list(batches)
    while todo:
        where = todo.pop(0)
        found = None
        # Only after the error, which holds what it failed with, has gone: others need the room.
        with contextlib.suppress(MemoryError):
            found = there(where)
        if found is None and len(where) > 1:
            half = len(where) // 2
            todo[:0] = where[:half], where[half:]
            continue
        for i, e, s in zip(where, *(found or here(where[0])), strict=True):
            evals[i], status[i] = e, s
    return [evals[i] for i in range(len(evals))], [status[i] for i in range(len(status))]


def engine(elements: int, device: torch.device | None) -> Engine:
    """Return the engine of a device, None for the CPU; Gram matrices have `elements` in all."""
    return _Host(elements) if device is None else _Device(device)
