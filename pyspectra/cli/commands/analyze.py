"""``pyspectra analyze``: spectra, power-law tails and a verdict of a model.

The options of the analysis derive from their records in `pyspectra.report.options`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import counted
from pyspectra.cli.analysis_options import add_options, add_running, flags, given_options, threads
from pyspectra.cli.commands import Command, late_help
from pyspectra.cli.completion import offer
from pyspectra.cli.errors import UsageError, one_line
from pyspectra.cli.numbers import as_integer_text
from pyspectra.cli.output import (
    STDOUT,
    check_not_read,
    check_outputs,
    check_plot_folder,
    message,
    print_rich,
    write_outputs,
    write_plots,
)

if TYPE_CHECKING:
    from pyspectra.report.report import Report

DONE, FAILED_LAYERS, NOT_ENOUGH = 0, 1, 1
OUTPUTS = ("--csv", "--json", "--html", "--md")
HINT = "--all lists all, --by role sums them up"


# --- arguments ----------------------------------------------------------------------------------


def _arguments(parser: argparse.ArgumentParser) -> None:
    from pyspectra.report.data import DIALECTS

    add = parser.add_argument
    # What it is comes later, if the help is asked for: to list all formats is to load them all.
    late_help(add("model", metavar="MODEL"), _what_model_is)
    add("--csv", metavar="F", help="write the layers to F as CSV; - for standard output alone")
    add("--json", metavar="F", help="write everything to F as JSON; - for standard output alone")
    add("--html", metavar="F", help="write a page to F: verdict, overview, layers to look into")
    add("--md", metavar="F", help="write the verdict and the table to F as Markdown")
    add("--plot", metavar="DIR", help="write every kind of picture to DIR, as PNG files")
    _add_view(parser)
    add("--dialect", choices=DIALECTS, help="columns of --csv (default: pyspectra)")
    add("--key", metavar="K",
        help="of a checkpoint that holds several models, the one called K")  # fmt: skip
    add("--base-model", metavar="BASE",
        help="analyse what changed since BASE: the spectra of the differences")  # fmt: skip
    add_options(parser)
    add("--strict", action="store_true", help="exit with 1 if a layer failed or was unreadable")
    add_running(parser)


def _what_model_is() -> str:
    from pyspectra.weights.formats import suffixes

    return f"a file ({', '.join(suffixes())}), or a model folder"


def _add_view(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the rows of the table, on the screen and in Markdown."""
    from pyspectra.report.columns import COLUMNS
    from pyspectra.report.groups import GROUPINGS

    add = parser.add_argument
    add("--all", dest="everything", action="store_true",
        help="list every layer, also of a large model")  # fmt: skip
    add("--top", metavar="N", type=as_integer_text,
        help="list N layers: those to look at first, or the first by --sort")  # fmt: skip
    by_column = add(
        "--sort", metavar="C", help="sort by a column (any of --csv), the smallest first"
    )
    offer(by_column, [column.name for column in COLUMNS])
    add("--reverse", action="store_true", help="with --sort: the largest first")
    by = add("--by", metavar="G", help=f"a row of numbers for each group: {', '.join(GROUPINGS)}")
    offer(by, tuple(GROUPINGS))


# --- the run ------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    outputs = {name: getattr(arguments, name[2:]) for name in OUTPUTS}
    if arguments.dialect and arguments.csv is None:
        raise UsageError("--dialect goes with --csv. Hint: add --csv F, or --csv -")
    check_outputs(outputs, inputs=(arguments.model, arguments.base_model))
    view = _view(arguments)
    check_plot_folder(arguments.plot)
    report = _analyze(arguments, outputs)
    if not report.layers:
        reasons = Counter(s.reason for s in report.skipped).most_common(3)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UsageError(f"no layer of {report.source!r} was analysed: {listed}")
    dialect = arguments.dialect or "pyspectra"
    texts = {
        "--csv": (arguments.csv, lambda: report.to_csv(dialect=dialect)),
        "--json": (arguments.json, report.to_json),
        "--html": (arguments.html, report.to_html),
        "--md": (arguments.md, lambda: report.to_markdown(**view)),
    }
    write_plots(arguments.plot, report, arguments.quiet)
    taken = write_outputs(texts, arguments.quiet, report.files)
    if not taken and not arguments.quiet:
        print_rich(lambda console: report.print(console, **view, hint=HINT))
    if not report.coverage.enough:
        only = "only " if report.coverage.analysed else ""
        message(f"{only}{report.coverage.words} could be analysed: no verdict")
        return NOT_ENOUGH
    return _strict_status(report) if arguments.strict else DONE


def _analyze(arguments: argparse.Namespace, outputs: Mapping[str, str | None]) -> Report:
    import pyspectra

    names = flags({"model_or_path": "MODEL"})
    with one_line(f"analysing {arguments.model!r}", names), threads(arguments.threads):
        _check_outputs_again(arguments, outputs)
        return pyspectra.analyze(
            arguments.model,
            key=arguments.key,
            base_model=arguments.base_model,
            device=arguments.device,
            progress=False if arguments.quiet else "auto",
            **given_options(arguments),
        )


def _view(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of `Report.print` that were given, checked before the work begins."""
    from pyspectra.report.shown import Shown

    if arguments.reverse and arguments.sort is None:
        raise UsageError("--reverse goes with --sort. Hint: add --sort alpha")
    names = ("everything", "top", "sort", "reverse", "by")
    view = {name: getattr(arguments, name) for name in names}
    with one_line("choosing rows", {"everything": "--all"}):
        Shown(**view).check("analyze")
    return view


def _check_outputs_again(arguments: argparse.Namespace, outputs: Mapping[str, str | None]) -> None:
    """Refuse outputs that would replace one of the files that the models are read from."""
    import pyspectra
    from pyspectra.errors import called_as

    files: list[Path] = []
    if any(target not in (None, STDOUT) for target in outputs.values()):
        with pyspectra.open_weights(arguments.model, key=arguments.key) as model:
            files += model.files
        if arguments.base_model is not None:
            with (
                called_as("analyze", model_or_path="base_model"),
                pyspectra.open_weights(arguments.base_model) as base,
            ):
                files += base.files
    for option, target in outputs.items():
        check_not_read(option, target, files)


def _strict_status(report: Report) -> int:
    from pyspectra.types import Status

    failed = sum(layer.status is not Status.OK for layer in report.layers)
    unread = sum(s.failed for s in report.skipped)
    if not failed + unread:
        return DONE
    fits, layers = counted(len(report.layers), "fit"), counted(unread, "layer")
    message(f"strict: {failed} of {fits} failed, {layers} unreadable")
    return FAILED_LAYERS


COMMAND = Command(
    name="analyze",
    help="analyse every weight matrix of a model",
    description="Analyse every weight matrix of a model: spectrum, power-law tail, verdict.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra analyze model.safetensors",
        "pyspectra analyze FOLDER --by role",
        "pyspectra analyze FOLDER --sort alpha --reverse --top 10",
        "pyspectra analyze FOLDER --csv layers.csv --json report.json",
        "pyspectra analyze FOLDER --html report.html",
        "pyspectra analyze FOLDER --csv - --dialect weightwatcher | head",
        "pyspectra analyze FOLDER --layers 'encoder.layer.0.*,pooler*' --mp-fit --randomize",
        "pyspectra analyze tuned.pt --base-model original.pt",
    ),
    statuses="0 done; 1 less than half of the parameters in matrices could be analysed, or layers "
    "failed and --strict was given; 2 unusable arguments or input",
)
