"""Ctrl-C inside a kernel: it ends the call soon, and leaves everything fit for the next one.

Tests do not assert on time. How far a call got is told by handlers that count: a kernel that asks
for signals every few hundredths of a second runs the handler many times before it ends by itself.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray

ROUNDS = 3


class Enough(Exception):
    """Raised by the handler of a signal."""


@pytest.fixture
def ticking() -> Iterator[list[int]]:
    """A signal every few milliseconds; its handler raises at the third one that it sees."""
    seen = [0]

    def handler(signum: int, frame: object) -> None:
        seen[0] += 1
        if seen[0] % ROUNDS == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def symmetric(n: int) -> np.ndarray:
    A = np.random.default_rng(n).standard_normal((n, n))
    return np.asarray(A + A.T)


def big_gram() -> object:
    X = np.random.default_rng(0).standard_normal((6000, 1500)).astype(np.float32)
    return lambda: ops.gram([HostArray(X, "float32")] * 40)


def big_eigvals() -> object:
    A = symmetric(1800)
    return lambda: ops.eigvals([A] * 12)


def one_eigvals() -> object:
    A = symmetric(5000)
    return lambda: ops.eigvals([A])


def eigvals_by_lapack() -> object:
    A = symmetric(3000)
    ops.set_isa("baseline")
    return lambda: ops.eigvals([A])


def svd() -> object:
    X = HostArray(np.random.default_rng(0).standard_normal((2400, 2400)), "float64")
    return lambda: ops.svdvals([X])


def tall_svd() -> object:
    X = HostArray(np.random.default_rng(0).standard_normal((20_000, 1200)), "float64")
    return lambda: ops.svdvals([X])


def many_svds() -> object:
    X = HostArray(np.random.default_rng(0).standard_normal((300, 300)), "float64")
    return lambda: ops.svdvals([X] * 200)


def fits() -> object:
    x = np.sort(np.random.default_rng(0).pareto(1.5, 200_000) + 1.0)
    return lambda: ps.fit_powerlaw_batch([x] * 400)


def permutation() -> object:
    X = HostArray(np.zeros((8000, 8000), np.float32), "float32")

    def work() -> None:
        for _ in range(20):
            ops.permute(X, 1)

    return work


def square(n: int) -> np.ndarray:
    X = np.random.default_rng(0).standard_normal((n, n))
    X[3, 4] = 100.0  # a trap
    return X


def vectors() -> object:
    X = square(2400)
    return lambda: ps.analyze({"a.weight": X}, vectors=True, progress=False)


def smoothing() -> object:
    X = square(2400)
    return lambda: ps.svd_smoothing({"a.weight": X}, keep=0.9)


def traps() -> object:
    X = square(2400)
    return lambda: ps.find_traps(X)


def alignment() -> object:
    X = square(3600)
    return lambda: ps.distances({"a.weight": X}, {"a.weight": X + 1.0}, method="cka")


LONG = (
    big_gram, big_eigvals, one_eigvals, eigvals_by_lapack, svd, tall_svd, many_svds, fits,
    permutation, vectors, smoothing, traps, alignment,
)  # fmt: skip


@pytest.mark.parametrize("make", LONG, ids=lambda make: make.__name__)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_signal_handler_can_end_a_kernel(
    make: Callable[[], Callable[[], object]], threads: int, ticking: list[int]
) -> None:
    ops.set_num_threads(threads)
    work = make()
    for _ in range(2):
        signal.setitimer(signal.ITIMER_REAL, 0.06, 0.03)
        with pytest.raises(Enough):
            work()
    assert ticking[0] == 2 * ROUNDS
    # What comes next is right, and BLAS has its threads again.
    A = symmetric(50)
    np.testing.assert_allclose(ps.eigvals(A), np.linalg.eigvalsh(A), atol=1e-12)


def test_a_handler_may_call_kernels_itself(ticking: list[int]) -> None:
    A, small = symmetric(2500), symmetric(40)
    want = ps.eigvals(small)
    found = []

    def handler(signum: int, frame: object) -> None:
        ticking[0] += 1
        found.append(ps.eigvals(small))

    signal.signal(signal.SIGALRM, handler)
    ops.set_num_threads(1)
    quiet = ps.eigvals(A)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    evals = ps.eigvals(A)
    signal.setitimer(signal.ITIMER_REAL, 0)
    np.testing.assert_array_equal(evals, quiet)
    assert ticking[0] > 1
    for values in found:
        np.testing.assert_array_equal(values, want)


def test_what_ended_a_call_is_not_kept(ticking: list[int]) -> None:
    """An exception holds its frames, and these hold arrays."""
    ops.set_num_threads(3)
    work: Any = big_eigvals()
    signal.setitimer(signal.ITIMER_REAL, 0.06, 0.03)
    kept = None
    try:
        work()
    except Enough as error:
        kept = weakref.ref(error)
    gc.collect()
    assert kept is not None
    assert kept() is None


def sleep() -> None:
    """Not at one go: ThreadSanitizer keeps signals back while a thread sleeps."""
    for _ in range(60_000):
        time.sleep(0.01)


def test_a_call_of_another_thread_is_none_of_the_handlers_business(ticking: list[int]) -> None:
    A = symmetric(1500)
    want = ps.eigvals(A)
    out: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: out.append(ps.eigvals(A)))
    thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    with pytest.raises(Enough):
        sleep()
    thread.join()
    np.testing.assert_array_equal(out[0], want)


CTRL_C = """
import os, signal, threading, numpy as np, pyspectra as ps
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
X = np.random.default_rng(0).standard_normal((4000, 4000))
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    ps.esd(X, method="svd")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(
    os.name != "posix", reason="os.kill ends a process on Windows, and interrupts none"
)
def test_an_interrupted_process_ends_well() -> None:
    """Also the helper thread of a library's routine that cannot be asked to stop."""
    result = subprocess.run(
        [sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.stdout, result.stderr, result.returncode) == ("interrupted\n", "", 0)
