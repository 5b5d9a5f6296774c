"""The one gateway to the compiled core: arrays in, arrays and result codes out.

The functions of this module trust what their callers promise, and check only what would be unsafe;
the public functions in `pyspectra.spectra` own the argument checks and their messages.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pyspectra import _core
from pyspectra._arrays import FLOAT_DTYPES, HostArray
from pyspectra._support.blas_threads import blas_was_loaded, holding_blas
from pyspectra.types import FloatArray, PowerLawFit, Status

if _core.__file__ is None:  # only the stubs, which Python takes for a package without a module
    raise ImportError(
        f"pyspectra: {os.path.dirname(os.path.abspath(__file__))} holds no compiled core. It is a "
        "source tree, which Python finds before the installed package in the folder that holds it. "
        "Hint: run Python from another folder; if nothing is installed, pip install that folder."
    )
if _core.status_names() != {status.name.lower(): status.value for status in Status}:
    raise ImportError(
        "pyspectra: the compiled core is of another version than the Python modules. "
        "Hint: install the package again."
    )


def _lapack() -> dict[str, Any]:
    """Return SciPy's BLAS and LAPACK for the core, which asks when a kernel first needs them."""
    # Not at import: SciPy takes longer for it than all else together, and most models need none.
    from scipy.linalg import cython_blas, cython_lapack

    blas_was_loaded()
    return {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}


_core.linalg.take_lapack_from(_lapack)

DTYPE_CODES = {name: code for code, name in enumerate(FLOAT_DTYPES)}

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
cuda_built = _core.cuda.built
get_num_threads = _core.num_threads
set_num_threads = _core.set_num_threads
get_isa = _core.isa
set_isa = _core.set_isa


def build_info() -> dict[str, Any]:
    """Return compiler, version and CUDA facts of the compiled core."""
    return {
        **_core.build_info(),
        "cuda_built": _core.cuda.built(),
        "cuda_available": _core.cuda.available(),
        "cuda_devices": _core.cuda.device_names(),
    }


def available_isas() -> tuple[str, ...]:
    """Return the instruction-set levels that this build and this machine both have."""
    return tuple(_core.available_isas())


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


def _readable(a: np.ndarray) -> np.ndarray:
    # A field of a structured array can have strides that are no multiple of the item size, and a
    # tensor over a buffer (torch.frombuffer) can begin at any byte.
    if not a.flags.aligned or any(s % a.itemsize for s in a.strides):
        return a.copy()
    return a


def _matrices(X: Sequence[HostArray]) -> tuple[list[np.ndarray], int]:
    dtypes = {x.dtype for x in X}
    if len(dtypes) > 1:
        raise TypeError(f"ops: matrices of one call must share a dtype, got {sorted(dtypes)}.")
    return [_readable(x.data) for x in X], DTYPE_CODES[dtypes.pop()] if dtypes else 3


def gram(X: Sequence[HostArray], out: Sequence[FloatArray] | None = None) -> list[FloatArray]:
    """Gram matrix of the shorter side M of each 2-D array, float64.

    Only the lower triangles hold numbers that count; `eigvals` reads no more. `out`: where to put
    them, (M, M) in Fortran order. Formula and memory: ``csrc/linalg/gram.hpp``.
    """
    data, code = _matrices(X)
    if out is None:
        out = [np.empty((min(a.shape), min(a.shape)), order="F") for a in data]
    _core.linalg.gram(data, code, list(out))
    return list(out)


def eigvals(A: Sequence[FloatArray]) -> tuple[list[FloatArray], list[Status]]:
    """Ascending eigenvalues of symmetric float64 matrices of any mix of sizes (lower triangles).

    Matrices that dominate the batch are solved one by one, each by all threads; of the rest each by
    one thread, BLAS held to one. Failed matrices come back as NaN with their status.
    """
    data = [_readable(a) for a in A]
    work = [float(len(a)) ** 3 for a in data]
    fair_share = sum(work) / get_num_threads()
    evals: list[FloatArray | None] = [None] * len(data)
    status = [Status.OK] * len(data)

    def solve(indices: list[int]) -> None:
        with _blas_threads_for_eigvals([len(data[i]) for i in indices]):
            out, codes = _core.linalg.eigvals([data[i] for i in indices])
        for i, values, code in zip(indices, out, codes, strict=True):
            evals[i], status[i] = values, Status(code)

    alone = [i for i, a in enumerate(data) if len(a) >= SPREAD_ORDER and work[i] > fair_share]
    rest = [i for i in range(len(data)) if i not in set(alone)]
    for i in alone:
        solve([i])
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
        out: tuple[FloatArray, list[int]] = _core.linalg.eigvals_stack(_readable(A))
    return out


def squared_singular_values(stack: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Eigenvalues of the Gram matrices of many small ones: (n, N, M) to (n, min(N, M)), ascending.

    What `gram` and `eigvals` give, with a check of the whole stack in the place of one a matrix:
    that is what thousands of small matrices cost. Also returns whether each was solved, (n,).
    """
    stack = np.ascontiguousarray(stack, np.float64)
    n, M = len(stack), min(stack.shape[1:])
    grams = [a.T for a in np.empty((n, M, M))]  # each in Fortran order
    _core.linalg.gram(list(stack), DTYPE_CODES["float64"], grams)
    with _blas_threads_for_eigvals([M] * n):
        values, codes = _core.linalg.eigvals(grams)
    return np.stack(values), np.asarray(codes) == int(Status.OK)


def svdvals(X: Sequence[HostArray]) -> tuple[list[FloatArray], list[Status]]:
    """Descending singular values of 2-D arrays in float64 (needs a float64 copy of each)."""
    data, code = _matrices(X)
    with _blas_threads_for([min(a.shape) for a in data]):
        values, codes = _core.linalg.svdvals(data, code)
    return values, [Status(c) for c in codes]


def shifted_factor(G: FloatArray, shift: float) -> FloatArray:
    """Cholesky's factor of ``G + shift I``, for `inverse_steps`: ``csrc/linalg/small_end.hpp``.

    G is (M, M) in Fortran order, and only its lower triangle is read.
    """
    return _core.linalg.shifted_factor(G, shift)


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
    data, code = _matrices([W])
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
    data, code = _matrices([W])
    if Y is None:
        Y = np.zeros((W.shape[0], X.shape[1]), X.dtype)
    return Y, _core.linalg.normal_product(data[0], code, X, Y, transposed)


def transposed_product(W: HostArray, Y: Block) -> Block:
    """Return ``W.T @ Y`` by the same kernel; Y is (N, b), C-contiguous float64 or float32."""
    data, code = _matrices([W])
    Z: Block = _core.linalg.normal_product(data[0], code, None, Y, True)
    return Z


def margins(X: Sequence[HostArray]) -> list[_core.spectra.Margins]:
    """Sums over the entries, rows and columns of 2-D arrays: ``csrc/spectra/margins.hpp``."""
    data, code = _matrices(X)
    return _core.spectra.margins(data, code)


def profile_edge(m: _core.spectra.Margins) -> tuple[float, float, float]:
    """Edge of the spectrum of independent entries of these margins: edge, scale and response.

    In units in which the variances are ``r_k c_i``, not yet divided by the sum of all squares.
    Formulas: ``csrc/spectra/profile_edge.hpp``.
    """
    return _core.spectra.profile_edge(m)


def permute(X: HostArray, key: int) -> HostArray:
    """Permute the entries of a 2-D array at random: contiguous, same shape and dtype.

    `key`: 64 bits; with the shape they decide the permutation. ``csrc/spectra/permute.hpp``.
    """
    data, code = _matrices([X])
    out = np.empty(X.shape, X.data.dtype)
    _core.spectra.permute(data[0], code, key, out)
    return HostArray(out, X.dtype)


def fit_options(
    *,
    estimator: str,
    threshold: float,
    xmin: float,
    xmax: float,
    k: int = 0,
    min_tail: int = 10,
    xmin_max: float = math.nan,
) -> _core.powerlaw.FitOptions:
    """Options of a compiled fit, by estimator name of ``csrc/powerlaw/fit.hpp``.

    ``xmin`` NaN scans for it; ``k`` 0 stands for half of the points; ``xmin_max`` NaN for 1.5
    times the peak.
    """
    return _core.powerlaw.FitOptions(
        estimator=estimator,
        threshold=threshold,
        xmin=xmin,
        xmax=xmax,
        k=k,
        min_tail=min_tail,
        xmin_max=xmin_max,
    )


def fit_powerlaw(
    spectra: Sequence[FloatArray], options: _core.powerlaw.FitOptions, *, estimator: str
) -> list[PowerLawFit]:
    """Fit ascending, contiguous float64 spectra; `estimator` is the name that the fits carry."""
    return [_powerlaw_fit(f, estimator) for f in _core.powerlaw.fit(list(spectra), options)]


def _powerlaw_fit(f: _core.powerlaw.Fit, estimator: str) -> PowerLawFit:
    return PowerLawFit(
        alpha=f.alpha,
        xmin=f.xmin,
        xmax=f.xmax,
        D=f.D,
        alpha_stderr=f.alpha_stderr,
        alpha_corrected=f.alpha_corrected,
        n_tail=f.n_tail,
        n=f.n,
        index=f.index,
        estimator=estimator,
        status=Status(f.status),
    )


def bootstrap_powerlaw(
    spectra: Sequence[FloatArray],
    options: _core.powerlaw.FitOptions,
    fits: Sequence[PowerLawFit],
    count: int,
    keys: Sequence[int],
    *,
    first: int = 0,
) -> list[FloatArray]:
    """Refit `count` semi-parametric replicates of each (successful) fit of each spectrum.

    Returns one array of shape (count, 3) a fit: alpha, D and n_tail of each replicate, NaN where
    it could not be fitted. ``csrc/powerlaw/bootstrap.hpp`` says how replicates are made. They are
    numbered, and the first one is `first`: replicate b is the same bits whichever are asked for.
    """
    laws = [(f.alpha, f.xmin, f.n, f.index) for f in fits]
    return _core.powerlaw.bootstrap(list(spectra), options, laws, first, count, list(keys))


FIT_BYTES: int = _core.powerlaw.FIT_BYTES


def powerlaw_fits(fits: np.ndarray) -> list[PowerLawFit]:
    """Read what `device_fit` wrote, `FIT_BYTES` bytes (uint8) a spectrum."""
    return [_powerlaw_fit(f, "ww") for f in _core.powerlaw.fits_from_bytes(fits)]


# A row of the table that `device_draw` reads: ``csrc/powerlaw/device_bootstrap.hpp``.
DEVICE_SOURCE = np.dtype(
    [("begin", "i8"), ("n", "i8"), ("body", "i8"), ("xmin", "f8"), ("alpha", "f8"), ("key", "u8")]
)
assert DEVICE_SOURCE.itemsize == _core.powerlaw.SOURCE_BYTES


# Launches on a CUDA device: addresses there, and a stream. ``csrc/<ring>/device_*.hpp`` say what
# each argument is. CudaError where a launch fails, or the package was built without CUDA.
device_draw = _core.powerlaw.device_draw
device_fit = _core.powerlaw.device_fit
device_chase = _core.linalg.device_chase
device_panel = _core.linalg.device_panel
device_tridiagonalize = _core.linalg.device_tridiagonalize
device_tridiagonal_eigvals = _core.linalg.device_tridiagonal_eigvals
device_plan = _core.optim.device_plan
device_ranks = _core.optim.device_ranks
device_prepared_bytes = _core.optim.device_prepared_bytes
device_squares = _core.optim.device_squares
device_step = _core.optim.device_step

StepOptions = _core.optim.StepOptions
STEP_COLUMNS: tuple[str, ...] = tuple(_core.optim.step_columns())
STATISTICS_COLUMNS: tuple[str, ...] = tuple(_core.optim.statistics_columns())


class OptimRule(NamedTuple):
    """An update rule of the kernel: a line of the list in ``csrc/optim/rules.inl.hpp``."""

    code: int
    moments: tuple[str, ...]  # keys of the saved state; the kernel's first and second moment
    compact: bool  # whether the moments can be those of a child network alone


OPTIM_RULES = {
    name: OptimRule(code, tuple(moments.split()), compact)
    for code, (name, moments, compact) in enumerate(_core.optim.rules())
}
"""Every update rule of the kernel, by name."""

_WARMUPS = sorted(_core.optim.ema_warmups().items(), key=lambda pair: pair[1])
EMA_WARMUPS = {None if name == "none" else name: code for name, code in _WARMUPS}
"""Codes of the warm-ups of the moving average, by name."""


def optim_table(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Make the kernel's table, int64 of shape (n, 15), of rows of Python integers below 2^64.

    Columns are `STEP_COLUMNS`: addresses (0 for none) of ``param, grad, exp_avg, exp_avg_sq, ema,
    mask, master``, then ``size, children, offset, run, pitch, key, dtype, options``: elements;
    elements of compact moments, or -1; where element i stands in the whole tensor, ``offset + i //
    run * pitch + i % run``; 64-bit key of the random numbers; code of `DTYPE_CODES`; index into
    the options.
    """
    signed = [[x - 2**64 if x >= 2**63 else x for x in row] for row in rows]
    return np.array(signed, dtype=np.int64).reshape(len(signed), len(STEP_COLUMNS))


def optim_step(
    table: np.ndarray, options: Sequence[_core.optim.StepOptions], *, statistics: bool = False
) -> FloatArray:
    """Move parameters, moments and averages in place; formulas in ``csrc/optim/step.hpp``.

    Parameters
    ----------
    table : ndarray
        A row for each tensor, see `optim_table`. The caller has made sure that each address holds
        contiguous, writable memory of that size and type, and keeps it alive.
    options : sequence of StepOptions
        Hyper-parameters, shared by the rows that name them.
    statistics : bool
        Take the statistics of the step as well.

    Returns
    -------
    ndarray
        float64, a row for each tensor and `STATISTICS_COLUMNS`; without `statistics` no rows.

    Raises
    ------
    RefusedTensorError
        If arrays overlap that must not, are misaligned or missing. Nothing has moved then.
    """
    return _core.optim.step(table, list(options), statistics)


def optim_grad_squares(table: np.ndarray) -> FloatArray:
    """Sum of squares of the gradient of each row, float64; the same for any number of threads."""
    return _core.optim.grad_squares(table)


def random_draws(key: int, step: int, stream: int, offset: int, size: int) -> np.ndarray:
    """16-bit random numbers of the elements from `offset` on, each from its index alone.

    Key, step and stream choose the sequence: in a step of an optimizer, stream 0 is the mask and
    stream 1 the rounding. Generator and layout: ``csrc/core/philox.inl.hpp``.
    """
    return np.asarray(_core.optim.draws(key, step, stream, offset, size))


def order_statistic(arrays: Sequence[npt.NDArray[np.float32]], index: int) -> tuple[float, int]:
    """Element at ascending position `index` of contiguous float32 arrays taken as one.

    Also the position of the first array with a NaN in it, or -1; with NaN there is no order and the
    element means nothing. Method: ``csrc/optim/select.hpp``.
    """
    return _core.optim.order_statistic([_readable(a) for a in arrays], index)
