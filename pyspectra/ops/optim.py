"""Doors to ``csrc/optim``: the fused step, its random numbers, order statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyspectra import _core
from pyspectra.ops.core import readable
from pyspectra.types import FloatArray

__all__ = [
    "EMA_WARMUPS",
    "OPTIM_RULES",
    "STATISTICS_COLUMNS",
    "STEP_COLUMNS",
    "OptimRule",
    "StepOptions",
    "device_plan",
    "device_prepared_bytes",
    "device_ranks",
    "device_squares",
    "device_step",
    "optim_grad_squares",
    "optim_step",
    "optim_table",
    "order_statistic",
    "random_draws",
]

# Launches on a CUDA device: addresses there, and a stream. ``csrc/<ring>/device_*.hpp`` say what
# each argument is. CudaError where a launch fails, or the package was built without CUDA.
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
    return _core.optim.order_statistic([readable(a) for a in arrays], index)
