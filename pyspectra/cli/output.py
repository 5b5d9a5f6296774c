"""Where the output of a command goes: results to files or standard output, messages to the other.

``-`` as the name of a file stands for standard output, which then holds that result alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyspectra.cli.errors import UsageError
from pyspectra.errors import missing_dependency

if TYPE_CHECKING:
    from rich.console import Console

    from pyspectra.report.comparison import Comparison
    from pyspectra.report.report import Report
    from pyspectra.report.trajectory import Trajectory

__all__ = [
    "STDOUT",
    "check_not_read",
    "check_outputs",
    "check_plot_folder",
    "drop_output",
    "message",
    "print_rich",
    "write",
    "write_outputs",
    "write_plots",
]

STDOUT = "-"

# Lines that go into a file or a pipe are as long as they need to be.
UNLIMITED_WIDTH = 10_000


# --- results ------------------------------------------------------------------------------------


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str | None]) -> None:
    """Find what is wrong with the paths of results before the work, not after it.

    Parameters
    ----------
    outputs : mapping of str to (str or None)
        Option (``"--csv"``) -> the path that was given for it, if any.
    inputs : iterable of (str or None)
        Paths that no result may overwrite.

    Raises
    ------
    UsageError
        For a path that cannot be written to, is an input, or is given twice.
    """
    from pyspectra._support.files import is_special

    given = {option: target for option, target in outputs.items() if target is not None}
    on_stdout = [f"{option} -" for option, target in given.items() if target == STDOUT]
    if len(on_stdout) > 1:
        raise UsageError(f"{' and '.join(on_stdout)} cannot both write to standard output")
    # A path with a NUL names nothing, and is refused when it is opened.
    named = [os.path.expanduser(path) for path in inputs if path and "\0" not in path]
    written: dict[str, str] = {}
    for option, target in given.items():
        if target == STDOUT:
            continue
        problem = _problem_with(target)
        if problem:
            raise UsageError(f"{option} {target!r}: {problem}")
        real = os.path.realpath(target)
        check_not_read(option, target, named)
        if real in written and not is_special(real):
            raise UsageError(f"{written[real]} and {option} name the same file, {target!r}")
        written[real] = option


def _problem_with(target: str) -> str | None:
    from pyspectra._support.files import is_special

    if not target:
        return "an empty path"
    if "\0" in target:
        return "a path cannot hold a NUL"
    folder = os.path.dirname(os.path.realpath(target))
    if os.path.isdir(target):
        return "is a folder, not a file"
    if not os.path.isdir(folder):
        return f"there is no folder {folder!r}"
    if os.path.exists(target):
        if not os.access(target, os.W_OK):
            return "is not writable"
        if is_special(target):
            return None
    return None if os.access(folder, os.W_OK | os.X_OK) else f"folder {folder!r} is not writable"


def check_not_read(option: str, target: str | None, files: Iterable[str | Path]) -> None:
    """Refuse a result that would replace a file that was read, by whatever path or link it goes.

    Parameters
    ----------
    option : str
        ``"--csv"``, for the message.
    target : str or None
        The path that was given for it, if any.
    files : iterable of (str or Path)
        What was read.

    Raises
    ------
    UsageError
        If it is one of them.
    """
    from pyspectra._support.files import same_file

    original = None if target is None or target == STDOUT else same_file(target, files)
    if original is not None:
        raise UsageError(
            f"{option} {target!r} would overwrite the model: {str(original)!r} is a part of it"
        )


def write_outputs(
    outputs: Mapping[str, tuple[str | None, Callable[[], str]]],
    quiet: bool,
    files: Sequence[str | Path] = (),
) -> bool:
    """Write the results that were asked for, and say which files were written.

    Files come first: a reader of standard output who leaves early must not cost them.

    Parameters
    ----------
    outputs : mapping of str to (target, text)
        Option -> the path that was given for it, if any, and what makes the text.
    quiet : bool
        Say nothing.
    files : sequence of (str or Path)
        What was read, and may not be overwritten.

    Returns
    -------
    bool
        Whether a result went to standard output, which must then hold nothing else.
    """
    given = [(option, to, text) for option, (to, text) in outputs.items() if to is not None]
    for option, target, text in given:
        if target != STDOUT:
            check_not_read(option, target, files)  # again: it may have become a link meanwhile
            _save(target, text())
            if not quiet:
                message(f"wrote {target}")
    on_stdout = [text for _, target, text in given if target == STDOUT]
    for text in on_stdout:
        write(text())
    return bool(on_stdout)


def check_plot_folder(target: str | None) -> None:
    """Find what is wrong with the folder of pictures before the work, not after it.

    Raises
    ------
    UsageError
        If it is no folder, or cannot be made or written to, or matplotlib is not installed.
    """
    if target is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(str(missing_dependency("matplotlib", "--plot", extra="plot")))
    if not target or "\0" in target:
        raise UsageError(f"--plot {target!r}: {'a path cannot hold a NUL' if target else 'empty'}")
    if os.path.exists(target) and not os.path.isdir(target):
        raise UsageError(f"--plot {target!r}: is a file, not a folder")
    above = os.path.realpath(target)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"--plot {target!r}: folder {above!r} is not writable")


def write_plots(target: str | None, found: Report | Comparison | Trajectory, quiet: bool) -> None:
    """Write all pictures to a folder, and say how many, and which could not be drawn."""
    from pyspectra._support.text import counted

    if target is None:
        return
    try:
        saved = found.save_plots(target, progress=False if quiet else "auto")
    except OSError as error:
        raise UsageError(f"cannot write to {target!r}: {error.strerror or error}") from error
    for name, reason in saved.failed:
        message(f"not drawn: {name}: {reason}")
    if not quiet:
        message(f"wrote {counted(len(saved.paths), 'picture')} to {target}")


def _save(target: str, text: str) -> None:
    from pyspectra._support.files import write_text

    try:
        write_text(Path(target), text)
    except OSError as error:
        raise UsageError(f"cannot write {target!r}: {error.strerror or error}") from error


# --- streams ------------------------------------------------------------------------------------


def print_rich(render: Callable[[Console], None]) -> None:
    """Print what `render` draws on a console to standard output."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else UNLIMITED_WIDTH)
    # Captured and not printed directly: rich would end the process on a broken pipe.
    with console.capture() as captured:
        render(console)
    write(captured.get())


def write(text: str) -> None:
    """Write text to standard output, escaping what its encoding cannot hold."""
    sys.stdout.write(_encodable(text, sys.stdout))


def message(text: str) -> None:
    """Print one line to standard error, whatever the text holds."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            print("pyspectra:", _encodable(line, sys.stderr), file=sys.stderr)


def _encodable(text: str, stream: object) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def drop_output() -> None:
    """Let go of what is still buffered, which would fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
