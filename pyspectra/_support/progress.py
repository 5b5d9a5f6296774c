"""A progress bar for what takes more than two seconds; silent where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pyspectra._support.arguments import shown
from pyspectra._support.remaining import RemainingTime
from pyspectra._support.text import duration, printable
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

    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    columns = (MofNCompleteColumn(), TimeRemainingColumn())
    with _bar(total, description, columns) as update:
        yield lambda label, steps=1, /: update(label, advance=steps)


@contextlib.contextmanager
def work_bar(
    work: Work, description: str, progress: bool | str, *, function: str = "analyze"
) -> Iterator[Callable[..., None]]:
    """Yield a function that hears of work that was done, and of the name of what it was done on.

    The bar shows which share is done, how much that is, as `work` says it, and the time that the
    rest will take. `progress` and `function` are those of `progress_bar`.
    """
    check_progress(function, progress)
    if not (sys.stderr.isatty() if progress == "auto" else progress):
        yield lambda done, label="", /: None
        return

    from rich.progress import TextColumn

    time_left = RemainingTime(work.totals, work.guesses, work.apart)
    columns = (TextColumn("{task.fields[amounts]}"), TextColumn("{task.fields[left]}"))
    latest = ""
    with _bar(1.0, description, columns, amounts="", left="") as update:

        def spent(done: Mapping[str, float], label: str = "", /) -> None:
            nonlocal latest
            latest = label or latest
            time_left.spent(done)
            seconds = time_left.seconds()
            update(
                latest,
                completed=time_left.share(),
                amounts=work.words(time_left.amounts),
                left="" if seconds is None else f"{duration(seconds)} left",
            )

        yield spent


@dataclass(frozen=True)
class Work:
    """Work of several kinds, for a bar.

    Attributes
    ----------
    totals : mapping of str to float
        How much there is of each kind.
    guesses, apart
        Seconds for one of each kind, and a kind for itself; see `RemainingTime`.
    words : callable
        Says, of what is done of each kind, how much that is of what there is.
    """

    totals: Mapping[str, float]
    guesses: Mapping[str, float]
    words: Callable[[Mapping[str, float]], str]
    apart: str = ""


@contextlib.contextmanager
def _bar(
    total: float | None, description: str, columns: Iterable[Any], **fields: Any
) -> Iterator[Callable[..., None]]:
    """Show a bar with columns of ours once it has lasted; yield what updates it, label first."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TextColumn("{task.fields[label]}", markup=False),  # names may hold what rich obeys
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(description, total=total, label="", **fields)
    start = time.monotonic()
    started = False

    def update(label: str, **changes: Any) -> None:
        nonlocal started
        if not started and time.monotonic() - start > DELAY_SECONDS:
            bar.start()
            started = True
        bar.update(task, label=printable(label), **changes)

    try:
        yield update
    finally:
        if started:
            bar.stop()
