"""Where the command ``pyspectra`` begins, so that Ctrl-C ends it quietly from its first moment.

It is a package of its own because Python runs ``pyspectra/__init__.py``, which loads numpy and the
compiled core, before any module of that package.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

__all__ = ["main"]

INTERRUPTED = 130
STANDARD_ERROR = 2


def main() -> int:
    """Run the command line with the arguments of the process; return the exit status."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # else somebody handles it, or ignores it
        signal.signal(signal.SIGINT, _end)
    try:
        from pyspectra.cli.main import main as run
    finally:
        signal.signal(signal.SIGINT, usual)
    return run()


def _end(_signal: int, _frame: Any) -> None:
    """End the process at once: an exception may come out of a half-done import as another one."""
    with contextlib.suppress(OSError):  # nobody reads
        os.write(STANDARD_ERROR, b"pyspectra: interrupted\n")
    os._exit(INTERRUPTED)
