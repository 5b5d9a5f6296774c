"""Layers worked on side by side: one a thread, with kernels that run in that thread alone.

What is done with a layer of a usual model takes a millisecond or two, in a dozen calls. Threads
inside of them have little to share, and Python between them has but one. A layer for each thread
keeps all of them at work, as kernels let go of the interpreter's lock.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from pyspectra import ops

__all__ = ["side_by_side"]

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(
    work: Callable[[T], R], items: Iterator[T], count: int, done: Callable[[int], None]
) -> list[R]:
    """Return ``work(item)`` of the next `count` items, by as many threads as kernels may have.

    The calling thread is one of them, and may be the only one where threads are at work for another
    caller in this process. Only one of them at a time takes an item, and only one calls `done`,
    with the number of an item that is done. The first exception ends the work, and is raised once
    no thread is at work any more.
    """
    return _Shared(work, items, count, done).results()


class _Helper(threading.Thread):
    """A thread that is started for somebody's work."""


def _are_enough() -> bool:
    """Tell whether as many helpers are at work, for whomever, as one caller alone would have.

    The threads of an executor may all ask at once. If each of them started as many as there are
    cores, memory would hold as many times the layers.
    """
    helpers = (thread for thread in threading.enumerate() if isinstance(thread, _Helper))
    # Python goes on listing a thread that Ctrl-C kept from starting.
    return sum(helper.is_alive() for helper in helpers) >= ops.get_num_threads() - 1


class _Shared(Generic[T, R]):
    """What the threads share."""

    def __init__(
        self, work: Callable[[T], R], items: Iterator[T], count: int, done: Callable[[int], None]
    ) -> None:
        self._work = work
        self._items = items
        self._count = count
        self._done = done
        self._next = 0
        self._found: dict[int, R] = {}
        self._ended = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._process = os.getpid()

    def results(self) -> list[R]:
        helpers = [
            # What the caller has set for itself holds for all: numpy's error state, from 2.0 on.
            _Helper(target=contextvars.copy_context().run, args=(self._run,))
            for _ in range(1, min(ops.get_num_threads(), self._count))
        ]
        started = []
        try:
            for helper in helpers:
                if _are_enough():
                    break
                started.append(helper)
                _start(helper)
            self._run()
            _join(started)
            self._refuse_child()  # where helpers were lost
        except BaseException as error:  # Ctrl-C, between two steps
            self._fail(error)
            _join(started)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its frames hold this object, and with it all results
        return [self._found[i] for i in range(self._count)]

    def _run(self) -> None:
        try:
            with ops.one_thread():
                while self._one():
                    pass
        except BaseException as error:
            self._fail(error)

    def _one(self) -> bool:
        """Work on one item; False where there is none left."""
        self._refuse_child()
        with self._lock:
            if self._next == self._count or self._ended:
                return False
            number = self._next
            try:
                item = next(self._items)
            except BaseException as error:
                # Before anybody else asks a generator that has ended for one more.
                self._fail(error)
                raise
            self._next += 1
        self._found[number] = self._work(item)
        with self._lock:
            self._done(number)
        return True

    def _refuse_child(self) -> None:
        if os.getpid() != self._process:  # a signal handler has forked: others will not finish
            raise RuntimeError("the process forked inside an analysis, which ends here")

    def _fail(self, error: BaseException) -> None:
        self._ended = True  # for good: a thread that Ctrl-C met while it was started comes later
        if self._error is None:
            self._error = error


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:  # the system grants no more
        if error.__context__ is not None:  # Ctrl-C inside: a lock was released that was not held
            raise error.__context__ from None


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        # One that Ctrl-C met while it was being started may come yet, and finds nothing to do.
        if thread.is_alive():
            thread.join()
