"""How many threads BLAS may use: one setting of the process, shared by all who call kernels."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any, cast

import threadpoolctl

__all__ = ["blas_libraries", "blas_was_loaded", "holding_blas"]


@functools.cache
def _blas() -> threadpoolctl.ThreadpoolController:
    every: threadpoolctl.ThreadpoolController = threadpoolctl.ThreadpoolController()
    return cast(threadpoolctl.ThreadpoolController, every.select(user_api="blas"))


def blas_libraries() -> tuple[str, ...]:
    """Return numpy's and SciPy's BLAS libraries, as ``"openblas 0.3.30 (Haswell)"``, and others."""
    import scipy.linalg  # noqa: F401  (which loads its own)

    blas_was_loaded()
    return tuple(
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', 'unknown')})"
        for lib in _blas().info()
    )


class _BlasHold:
    """Holds BLAS to a number of threads while anybody needs it, then gives back what was.

    The setting belongs to the whole process: if each caller saved and restored it, two that overlap
    would leave it at the lower value for good. The first in sets it, the last out restores it.
    """

    def __init__(self) -> None:
        # A signal handler may call a kernel in the middle of what the lock guards.
        self._lock = threading.RLock()
        self._depth = 0
        self._threads = 0  # that BLAS is held to, while it is
        self._lowered: list[tuple[Any, int]] = []  # libraries, and the threads they had
        self._process = os.getpid()

    @contextlib.contextmanager
    def at(self, threads: int) -> Iterator[None]:
        """Hold BLAS to at most `threads`, unless somebody holds it already."""
        process = self._process
        held = False
        try:
            with self._lock:
                self._depth += 1
                held = True
                if self._depth == 1:
                    self._threads = threads
                    self._lower()
            yield
        finally:
            # A child that forked in here has let go already.
            if held and process == self._process:
                with self._lock:
                    if self._depth == 1:
                        self._restore()
                    self._depth -= 1

    def lower_new(self) -> None:
        """Hold a library that was loaded just now, if anybody holds BLAS."""
        with self._lock:
            _blas.cache_clear()
            if self._depth:
                self._lower()

    def _lower(self) -> None:
        # Never raised: a caller's own lower limit stays.
        had = [(lib, lib.num_threads) for lib in _blas().lib_controllers]
        higher = [(lib, n) for lib, n in had if n > self._threads]
        self._lowered += higher
        for lib, _ in higher:
            _set_blas_threads(lib, self._threads)

    def _restore(self) -> None:
        for lib, threads in self._lowered:
            _set_blas_threads(lib, threads)
        self._lowered = []

    def before_fork(self) -> None:
        # Nobody sets BLAS's threads while the process forks: it would find a lock of BLAS taken.
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        # Threads that held it do not exist in the child.
        self._restore()
        self._lock, self._depth, self._process = threading.RLock(), 0, os.getpid()


def _set_blas_threads(lib: Any, threads: int) -> None:
    # From 3.8 threadpoolctl obeys the thread that set first and ignores all others in silence. The
    # last out need not be the first in, and a caller's own limits must go on working after ours.
    release = getattr(type(lib), "clear_controlling_thread", lambda force: None)
    release(force=True)
    lib.set_num_threads(threads)
    release(force=True)


_blas_hold = _BlasHold()
os.register_at_fork(
    before=_blas_hold.before_fork,
    after_in_parent=_blas_hold.after_fork_in_parent,
    after_in_child=_blas_hold.after_fork_in_child,
)


def holding_blas(threads: int) -> contextlib.AbstractContextManager[None]:
    """Hold BLAS to at most `threads` for the length of a ``with`` block."""
    return _blas_hold.at(threads)


def blas_was_loaded() -> None:
    """Look for BLAS libraries again, as one was loaded just now; who holds BLAS holds it, too."""
    _blas_hold.lower_new()
