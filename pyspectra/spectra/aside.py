"""Calls of libraries that take long and cannot be asked to stop, made in a thread beside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["run_aside"]

T = TypeVar("T")

# About a hundredth of a second. Starting a thread takes a hundredth of that.
WORTH_A_THREAD: Final = 1e8
PATIENCE_SECONDS: Final = 0.05


def run_aside(work: Callable[[], T], operations: float) -> T:
    """Return what a function returns, and let Ctrl-C end the wait for it.

    Python handles signals between two instructions of the main thread: a decomposition of a large
    matrix by NumPy is one instruction, and Ctrl-C waits for its end. Here the main thread waits
    for another one, which may be interrupted. The work that is left behind comes to its end alone,
    and nobody sees what it returns. A process that would end earlier waits for it: libraries that
    are unloaded while they work hang or crash.

    Parameters
    ----------
    work : callable
        Calls a library that releases the interpreter. It touches nothing that the caller goes on
        to use.
    operations : float
        Roughly how many operations it takes; what is short is called as it is, and so is
        everything in any thread but the main one, which no signal interrupts.

    Returns
    -------
    object
        The result; what the function raises is raised.
    """
    if operations < WORTH_A_THREAD or threading.current_thread() is not threading.main_thread():
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pyspectra-aside", daemon=False)
    try:
        thread.start()
    except RuntimeError:  # the system grants no thread
        return work()
    while thread.is_alive():
        thread.join(PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not results:  # this is a child, forked by the handler of a signal: it has one thread
        return work()
    return results[0]
