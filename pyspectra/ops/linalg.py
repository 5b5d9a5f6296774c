"""Doors to ``csrc/linalg``: Gram matrices, eigenvalues, singular values, products."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pyspectra import _core
from pyspectra._arrays import HostArray
from pyspectra._support.blas_threads import blas_was_loaded, holding_blas
from pyspectra.ops.core import get_isa, get_num_threads, matrices, readable
from pyspectra.types import FloatArray, Status

__all__ = [
    "FAST_PROBES",
    "LAPACK_ORDER",
    "LARGE_ORDER",
    "SPREAD_ORDER",
    "Block",
    "amx_available",
    "apply_inverse",
    "deal_out",
    "device_chase",
    "device_panel",
    "device_tridiagonal_eigvals",
    "device_tridiagonalize",
    "eigvals",
    "eigvals_stack",
    "fast_eigvals",
    "gram",
    "inverse_steps",
    "leading_pivots",
    "normal_product",
    "shifted_factor",
    "sign_draws",
    "svdvals",
    "transposed_product",
]


def _lapack() -> dict[str, Any]:
    """Return SciPy's BLAS and LAPACK for the core, which asks when a kernel first needs them."""
    # Not at import: SciPy takes longer for it than all else together, and most models need none.
    # In a thread of its own, which Ctrl-C does not end: half of an import would stay for good.
    loading = threading.Thread(target=importlib.import_module, args=("scipy.linalg",))
    loading.start()
    loading.join()
    from scipy.linalg import cython_blas, cython_lapack

    blas_was_loaded()
    return {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}


_core.linalg.take_lapack_from(_lapack)

Block = TypeVar("Block", FloatArray, npt.NDArray[np.float32])

# From this order on, one matrix is worth all BLAS threads.
LARGE_ORDER = 1024
# Up to this order, no instruction set leaves eigenvalues to LAPACK.
LAPACK_ORDER = 64
# From this order on, it is worth all of ours where it dominates its batch: kLarge of
# csrc/linalg/eigvals.cpp.
SPREAD_ORDER = 1024

FAST_PROBES: int = _core.linalg.fast_probes
amx_available = _core.linalg.amx_available


def _blas_threads_for(orders: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """Leave BLAS our number of threads for one large matrix; else hold it to one.

    Our own threads are spread over matrices and BLAS threads below them would fight for the cores;
    OpenBLAS's also spin for milliseconds after each call, at the cost of whatever comes next.
    """
    alone = len(orders) == 1 and orders[0] >= LARGE_ORDER
    return holding_blas(get_num_threads() if alone else 1)


def _blas_threads_for_eigvals(orders: Sequence[int]) -> contextlib.AbstractContextManager[None]:
    """Do the same where eigenvalues call BLAS at all: to ask it takes longer than a small matrix.

    Only the baseline leaves larger matrices to LAPACK: `lapack_is_faster` of
    ``csrc/linalg/eigvals.cpp``.
    """
    if get_isa() != "baseline" or max(orders, default=0) <= LAPACK_ORDER:
        return contextlib.nullcontext()
    return _blas_threads_for(orders)


def gram(X: Sequence[HostArray], out: Sequence[FloatArray] | None = None) -> list[FloatArray]:
    """Gram matrix of the shorter side M of each 2-D array, float64.

    Only the lower triangles hold numbers that count; `eigvals` reads no more. `out`: where to put
    them, (M, M) in Fortran order; above the diagonal it keeps most of what was in it. Formula and
    memory: ``csrc/linalg/gram.hpp``.
    """
    data, code = matrices(X)
    if out is None:
        out = [np.zeros((min(a.shape), min(a.shape)), order="F") for a in data]
    _core.linalg.gram(data, code, list(out))
    return list(out)


def deal_out(X: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Transpose X (length, count), C-contiguous, into memory of its own.

    What numpy does, without reading all of X for each row of the result:
    ``csrc/linalg/deal_out.hpp``.
    """
    out = np.empty(X.shape[::-1], X.dtype)
    _core.linalg.deal_out(readable(X), out)
    return out


def eigvals(A: Sequence[FloatArray]) -> tuple[list[FloatArray], list[Status]]:
    """Ascending eigenvalues of symmetric float64 matrices of any mix of sizes (lower triangles).

    Matrices that dominate the batch are solved one by one, each by all threads; of the rest each by
    one thread, BLAS held to one. Failed matrices come back as NaN with their status.
    """
    data = [readable(a) for a in A]
    work = [float(len(a)) ** 3 for a in data]
    fair_share = sum(work) / get_num_threads()
    evals: list[FloatArray | None] = [None] * len(data)
    status = [Status.OK] * len(data)

    def solve(indices: list[int]) -> None:
        with _blas_threads_for_eigvals([len(data[i]) for i in indices]):
            out, codes = _core.linalg.eigvals([data[i] for i in indices])
        for i, values, code in zip(indices, out, codes, strict=True):
            evals[i] = values
            if code:
                status[i] = Status(code)

    alone = [i for i, a in enumerate(data) if len(a) >= SPREAD_ORDER and work[i] > fair_share]
    for i in alone:
        solve([i])
    rest = [i for i in range(len(data)) if i not in alone]
    if rest:
        solve(rest)
    return [e for e in evals if e is not None], status


def eigvals_stack(A: FloatArray) -> tuple[FloatArray, list[int]]:
    """Ascending eigenvalues (b, n) of a stack (b, n, n), float64, and the codes of their status.

    What `eigvals` gives, without Python a matrix.
    """
    b, n = A.shape[:2]
    if b > 1 and n >= SPREAD_ORDER:  # some may be worth all threads
        evals, status = eigvals(list(A))
        return np.array(evals), [int(s) for s in status]
    with _blas_threads_for_eigvals([n] * b):
        out: tuple[FloatArray, list[int]] = _core.linalg.eigvals_stack(readable(A))
    return out


def sign_draws(
    stack: FloatArray, bits: npt.NDArray[np.uint8], draws: int, *, centred: bool
) -> FloatArray:
    """Spread and largest eigenvalue of matrices with random signs, for each of `draws`, (draws, 2).

    `stack`: (n, rows, cols), C-contiguous. `bits`: the signs of one draw after the other, in the
    order of the entries and of `numpy.packbits`. What they are: ``csrc/linalg/sign_draws.hpp``.
    """
    return _core.linalg.sign_draws(stack, bits, draws, centred)


def svdvals(X: Sequence[HostArray]) -> tuple[list[FloatArray], list[Status]]:
    """Descending singular values of 2-D arrays in float64 (needs a float64 copy of each)."""
    data, code = matrices(X)
    with _blas_threads_for([min(a.shape) for a in data]):
        values, codes = _core.linalg.svdvals(data, code)
    return values, [Status(c) for c in codes]


def shifted_factor(G: FloatArray, shift: float) -> FloatArray:
    """Cholesky's factor of ``G + shift I``, for `inverse_steps`: ``csrc/linalg/small_end.hpp``.

    G is (M, M) in Fortran order, and only its lower triangle is read.
    """
    return _core.linalg.shifted_factor(G, shift)


def leading_pivots(G: FloatArray, order: int, shift: float) -> FloatArray:
    """Pivots of Cholesky's factorisation of ``G + shift I``, of its leading part.

    G is that of `shifted_factor`. Each is at least the smallest eigenvalue of the whole:
    ``csrc/linalg/small_end.hpp``.
    """
    return _core.linalg.leading_pivots(G, order, shift)


def apply_inverse(factor: FloatArray, X: FloatArray) -> None:
    """Divide X (M, p), C-contiguous float64, by the matrix that `shifted_factor` has factored."""
    _core.linalg.apply_inverse(factor, X)


def inverse_steps(factor: FloatArray, X: FloatArray, steps: int) -> None:
    """Make the columns of X orthonormal, then so many steps of inverse iteration, in place."""
    _core.linalg.inverse_steps(factor, X, steps)


def fast_eigvals(W: HostArray, probes: FloatArray) -> tuple[FloatArray, float, Status]:
    """Ascending eigenvalues of the Gram matrix of the shorter side, by float32, and their bound.

    `probes`: independent standard normal numbers, (M, FAST_PROBES), C-contiguous. Each eigenvalue
    is within the bound, and what float64 rounds, of the exact one. `Status.DEGENERATE` where
    float32 cannot hold the numbers. Method and proof: ``csrc/linalg/float_band.hpp``.
    """
    data, code = matrices([W])
    evals, bound, status = _core.linalg.fast_eigvals(data[0], code, probes)
    return evals, bound, Status(status)


def normal_product(
    W: HostArray, X: Block, Y: Block | None = None, *, transposed: bool = True
) -> tuple[Block, Block | None]:
    """Return ``Y + W @ X`` and, unless not `transposed`, ``W.T`` times that, by one read of W.

    X (M, b) and Y (N, b) are C-contiguous, both float64 or both float32, and so are the sums; Y is
    zero where it is not given, and is written to where it is. The same bits for any number of
    threads: ``csrc/linalg/normal_product.hpp``.
    """
    data, code = matrices([W])
    if Y is None:
        Y = np.zeros((W.shape[0], X.shape[1]), X.dtype)
    return Y, _core.linalg.normal_product(data[0], code, X, Y, transposed)


def transposed_product(W: HostArray, Y: Block) -> Block:
    """Return ``W.T @ Y`` by the same kernel; Y is (N, b), C-contiguous float64 or float32."""
    data, code = matrices([W])
    Z: Block = _core.linalg.normal_product(data[0], code, None, Y, True)
    return Z


# Launches on a CUDA device: addresses there, and a stream. ``csrc/<ring>/device_*.hpp`` say what
# each argument is. CudaError where a launch fails, or the package was built without CUDA.
device_chase = _core.linalg.device_chase
device_panel = _core.linalg.device_panel
device_tridiagonalize = _core.linalg.device_tridiagonalize
device_tridiagonal_eigvals = _core.linalg.device_tridiagonal_eigvals
