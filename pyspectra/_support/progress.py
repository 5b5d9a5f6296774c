"""A progress bar for what takes more than two seconds; silent where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

# Shorter work is over before anybody has read the bar.
DELAY_SECONDS = 2.0

Advance = Callable[[str], None]


@contextlib.contextmanager
def progress_bar(
    total: int | None, description: str, progress: bool | str, *, function: str = "analyze"
) -> Iterator[Advance]:
    """Yield a function to call with a label after each of `total` steps (None: nobody knows).

    ``"auto"`` shows the bar on standard error if that is a terminal; True shows it anywhere; False
    nowhere. The bar appears once the work has lasted two seconds. `function` is for messages.
    """
    if progress not in (True, False, "auto"):
        raise ValueError(f"{function}: 'progress' must be True, False or 'auto', got {progress!r}.")
    if not (sys.stderr.isatty() if progress == "auto" else progress):
        yield lambda _label: None
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
        TextColumn("{task.fields[label]}"),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(description, total=total, label="")
    start = time.monotonic()
    started = False

    def advance(label: str) -> None:
        nonlocal started
        if not started and time.monotonic() - start > DELAY_SECONDS:
            bar.start()
            started = True
        bar.update(task, advance=1, label=label)

    try:
        yield advance
    finally:
        if started:
            bar.stop()
