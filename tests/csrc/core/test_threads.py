"""Kernels called from several threads of Python at once: the same results as one after the other.

`make sanitize` runs this under ThreadSanitizer, which also sees a race that did no harm.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import pytest

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray

ROUNDS = 8


def moved_parameters() -> np.ndarray:
    """Take a step under a drawn mask, with everything that a step has."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(20_001).astype(np.float32) for _ in range(5)]
    arrays[3] = np.abs(arrays[3])
    addresses = [a.ctypes.data for a in arrays]
    row = [*addresses, 0, 0, 20_001, -1, 0, 20_001, 20_001, 7, ops.DTYPE_CODES["float32"], 0]
    option = ops.StepOptions(
        rule=ops.OPTIM_RULES["adamw"].code, lr=0.1, step=3, keep=20_000, ema_decay=0.9
    )
    sums = ops.optim_step(ops.optim_table([row]), [option], statistics=True)
    return np.concatenate([arrays[0], arrays[4], sums.ravel()])


def kernels() -> list[Callable[[], np.ndarray]]:
    rng = np.random.default_rng(1)
    X = HostArray(rng.standard_normal((300, 70)).astype(np.float16), "float16")
    W = rng.standard_normal((6, 40, 40))
    A = [a + a.T for a in W]
    x = [np.sort(rng.pareto(1.5, n) + 1.0) for n in (50, 200, 900)]
    scores = [rng.standard_normal(90_000).astype(np.float32) for _ in range(3)]
    return [
        lambda: np.tril(ops.gram([X])[0]),
        lambda: np.concatenate(ops.eigvals(A)[0]),
        lambda: np.concatenate(ops.svdvals([HostArray(w, "float64") for w in W])[0]),
        lambda: np.array([fit.D for fit in ps.fit_powerlaw_batch(x)]),
        lambda: np.array([ps.fit_powerlaw(x[0], bootstrap=40, seed=3).p_value]),
        lambda: ops.permute(X, 5).data,
        lambda: np.array([ops.margins([X])[0].cycles]),
        lambda: np.array(ops.order_statistic(scores, 100_000)),
        moved_parameters,
    ]


@pytest.mark.parametrize("alone", [False, True])
def test_kernels_called_at_once_while_their_number_of_threads_changes(alone: bool) -> None:
    """Each spread over the pool where that is free, or `alone` in the thread that calls it."""
    ops.set_num_threads(3)
    calls = kernels()
    want = [call() for call in calls]
    found: list[list[np.ndarray]] = [[] for _ in calls]
    start = threading.Barrier(len(calls))

    def work(k: int) -> None:
        start.wait()
        with ops.one_thread() if alone else contextlib.nullcontext():
            for i in range(ROUNDS):
                ops.set_num_threads(1 + (i + k) % 4)
                found[k].append(calls[k]())

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, one in zip(found, want, strict=True):
        assert len(results) == ROUNDS
        for result in results:
            np.testing.assert_array_equal(result, one)
