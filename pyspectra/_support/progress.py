"""A progress bar for what takes more than two seconds; silent where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from pyspectra._support.arguments import shown
from pyspectra._support.text import printable
from pyspectra.errors import ArgumentValueError

# Shorter work is over before anybody has read the bar.
DELAY_SECONDS = 2.0


class Advance(Protocol):
    """Moves a bar on by `steps`, and shows `label` behind it."""

    def __call__(self, label: str, steps: int = 1, /) -> None: ...


def ignore(_label: str, _steps: int = 1, /) -> None:
    """Move no bar."""


def check_progress(function: str, progress: object) -> None:
    """Raise ArgumentValueError unless `progress` is True, False or ``"auto"``."""
    if not (isinstance(progress, bool) or (isinstance(progress, str) and progress == "auto")):
        requirement = "be True, False or 'auto'"
        raise ArgumentValueError(function, "progress", requirement, shown(progress))


@contextlib.contextmanager
def progress_bar(
    total: int | None, description: str, progress: bool | str, *, function: str = "analyze"
) -> Iterator[Advance]:
    """Yield a function to call with a label after one or more of `total` steps (None: unknown).

    ``"auto"`` shows the bar on standard error if that is a terminal; True shows it anywhere; False
    nowhere. The bar appears once the work has lasted two seconds. `function` is for messages.
    """
    check_progress(function, progress)
    if not (sys.stderr.isatty() if progress == "auto" else progress):
        yield ignore
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}", markup=False),  # names may hold what rich obeys
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(description, total=total, label="")
    start = time.monotonic()
    started = False

    def advance(label: str, steps: int = 1, /) -> None:
        nonlocal started
        if not started and time.monotonic() - start > DELAY_SECONDS:
            bar.start()
            started = True
        bar.update(task, advance=steps, label=printable(label))

    try:
        yield advance
    finally:
        if started:
            bar.stop()
