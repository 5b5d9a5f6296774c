"""The command ``pyspectra``: analyse a model, or average checkpoints, from a terminal.

Tables go to standard output, messages to standard error. Exit status: 0 done; 1 analysed, but with
failed layers under ``--strict``; 2 unusable arguments or input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyspectra.cli.arguments import UsageError, parser

if TYPE_CHECKING:
    from pyspectra.report.report import Report

__all__ = ["main"]

STDOUT = "-"
DONE, FAILED_LAYERS, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

# Lines that go into a file or a pipe are as long as they need to be.
UNLIMITED_WIDTH = 10_000

_ARGUMENT = re.compile(r"^(?:analyze|open_weights|set_num_threads|average_checkpoints): '(\w+)'")
_FUNCTION = re.compile(r"^(?:analyze|open_weights|average_checkpoints): ")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status.
    """
    # argparse leaves by SystemExit after --help and --version.
    try:
        if sys.stdout is None:
            raise UsageError("standard output is closed")
        arguments = parser().parse_args(argv)
        status = {"info": _info, "analyze": _analyze, "average": _average}[arguments.command](
            arguments
        )
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else DONE
    except UsageError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _message("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader (`| head`) has seen enough
        return DONE
    except OSError as error:  # of standard output: all others have become a UsageError
        _drop_output()
        return _fail(f"standard output: {error.strerror or error}")
    return status


def _drop_output() -> None:
    """Let go of what is still buffered, which would fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- commands -----------------------------------------------------------------------------------


def _info(_arguments: argparse.Namespace) -> int:
    import pyspectra

    try:
        config = pyspectra.show_config()
    except ValueError as error:  # an environment variable of ours that makes no sense
        raise UsageError(str(error)) from error
    _write(f"{config}\n")
    return DONE


def _analyze(arguments: argparse.Namespace) -> int:
    _check_outputs(arguments)
    report = _run(arguments)
    if not report.layers:
        reasons = Counter(s.skip.group for s in report.skipped).most_common(3)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UsageError(f"no layer of {report.source!r} was analysed: {listed}")

    # Files first: a reader of standard output who leaves early must not cost them.
    for target, text in _outputs(report, arguments):
        if target != STDOUT:
            _save(target, text)
            if not arguments.quiet:
                _message(f"wrote {target}")
    for target, text in _outputs(report, arguments):
        if target == STDOUT:
            _write(text)
    if STDOUT not in (arguments.csv, arguments.json):
        _print_table(report)
    return _strict_status(report) if arguments.strict else DONE


def _average(arguments: argparse.Namespace) -> int:
    from pyspectra.cli.average import average

    with _one_line(f"averaging into {arguments.out!r}"):
        messages = average(arguments)
    if not arguments.quiet:
        for text in messages:
            _message(text)
    return DONE


def _run(arguments: argparse.Namespace) -> Report:
    import pyspectra

    if not os.path.exists(os.path.expanduser(arguments.model)):
        raise UsageError(
            f"no such file or folder: {arguments.model!r}. Hint: models are not downloaded"
        )
    with _one_line(f"analysing {arguments.model!r}"), _threads(arguments.threads):
        return pyspectra.analyze(
            arguments.model,
            layers=arguments.layers,
            estimator=arguments.estimator,
            randomize=arguments.randomize,
            mp_fit=arguments.mp_fit,
            detx=arguments.detx,
            vectors=arguments.vectors,
            fix_fingers=arguments.fix_fingers,
            xmax=arguments.xmax,
            drop_largest=arguments.drop_largest,
            pool=arguments.pool,
            min_evals=arguments.min_evals,
            max_evals=arguments.max_evals,
            method=arguments.method,
            base_model=arguments.base_model,
            bootstrap=arguments.bootstrap,
            seed=arguments.seed,
            device=arguments.device,
            progress=False if arguments.quiet else "auto",
        )


@contextlib.contextmanager
def _one_line(doing: str) -> Iterator[None]:
    """Make whatever goes wrong a message of one line."""
    from pyspectra.errors import PyspectraError

    try:
        yield
    except (PyspectraError, ValueError, OSError) as error:
        raise UsageError(_words(error)) from error
    except MemoryError as error:
        raise UsageError(f"out of memory while {doing}") from error
    except Exception as error:  # a fault of this package: still one line, that says where
        raise UsageError(f"internal error, please report it: {_whereabouts(error)}") from error


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Use `count` threads, and leave a caller of `main` with as many as before."""
    import pyspectra

    before = pyspectra.get_num_threads()
    if count is not None:
        pyspectra.set_num_threads(count)
    try:
        yield
    finally:
        pyspectra.set_num_threads(before)


def _strict_status(report: Report) -> int:
    from pyspectra.types import Status

    failed = sum(layer.status is not Status.OK for layer in report.layers)
    unread = sum(s.failed for s in report.skipped)
    if not failed + unread:
        return DONE
    _message(f"strict: {failed} of {len(report.layers)} fits failed, {unread} layers unreadable")
    return FAILED_LAYERS


# --- output -------------------------------------------------------------------------------------


def _outputs(report: Report, arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    if arguments.csv:
        yield arguments.csv, report.to_csv(dialect=arguments.dialect or "pyspectra")
    if arguments.json:
        yield arguments.json, report.to_json()


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Find what is wrong with the output paths before the analysis, not after it."""
    from pyspectra._support.files import is_special

    if arguments.dialect and arguments.csv is None:
        raise UsageError("--dialect goes with --csv. Hint: add --csv F, or --csv -")
    if arguments.csv == arguments.json == STDOUT:
        raise UsageError("--csv - and --json - cannot both write to standard output")
    paths: dict[str, str] = {}
    for option in ("--csv", "--json"):
        target = getattr(arguments, option.removeprefix("--"))
        if target in (None, STDOUT):
            continue
        problem = _problem_with(target)
        if problem:
            raise UsageError(f"{option} {target!r}: {problem}")
        real = os.path.realpath(target)
        if real == os.path.realpath(os.path.expanduser(arguments.model)):
            raise UsageError(f"{option} {target!r} would overwrite the model")
        if real in paths.values() and not is_special(real):
            raise UsageError(f"--csv and --json name the same file, {target!r}")
        paths[option] = real


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


def _save(target: str, text: str) -> None:
    from pyspectra._support.files import write_text

    try:
        write_text(Path(target), text)
    except OSError as error:
        raise UsageError(f"cannot write {target!r}: {error.strerror or error}") from error


def _print_table(report: Report) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else UNLIMITED_WIDTH)
    # Captured and not printed directly: rich would end the process on a broken pipe.
    with console.capture() as captured:
        report.print(console)
    _write(captured.get())


def _write(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _message(text: str) -> None:
    """Print one line to standard error, whatever the text holds."""
    line = "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError):
        if sys.stderr is None:
            return
        print(
            "pyspectra:",
            re.sub(r"\s*\n\s*", " ", line).encode(encoding, "backslashreplace").decode(encoding),
            file=sys.stderr,
        )


def _fail(text: str) -> int:
    _message(f"error: {text.rstrip('. ')}.")
    return UNUSABLE


def _whereabouts(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        file = os.path.basename(trace.tb_frame.f_code.co_filename)
        where = f" at {file}:{trace.tb_lineno}"
    return f"{type(error).__name__}: {error}{where}"


def _words(error: Exception) -> str:
    """Say what an exception says in the terms of the command line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"

    def option(match: re.Match[str]) -> str:
        name = match[1]
        other = {"model_or_path": "MODEL", "paths_or_dir": "CKPT", "n": "-j"}
        return other.get(name, f"--{name.replace('_', '-')}")

    text = str(error) or type(error).__name__
    return _FUNCTION.sub("", _ARGUMENT.sub(option, text))
