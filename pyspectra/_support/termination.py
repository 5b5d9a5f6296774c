"""Time to clean up for a process that is told to terminate while it writes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Let SIGTERM unwind a ``with`` block before it ends the process.

    By itself it ends a process at once, and leaves what is half-written where it is. Inside the
    block it is an exception, which cleans up on its way; then the process ends by the signal, as it
    would have done. Where somebody else handles the signal, or outside of the main thread, nothing
    is different.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(_signal: int, _frame: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
