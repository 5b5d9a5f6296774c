"""``pyspectra diagnose``: what the recorded numbers of a training run say."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from pyspectra.cli.commands import Command
from pyspectra.cli.errors import UsageError, one_line
from pyspectra.cli.output import STDOUT, check_outputs, message, print_rich, write_outputs

if TYPE_CHECKING:
    from rich.console import Console

    from pyspectra.training.run_report import RunReport

# How the command line spells the argument of `History.load`.
NAMES = {"path": "RUN"}

FOUND = 1
"""Exit status for a run that has a finding of the severity asked for, or a graver one."""

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN",
        help="our .jsonl, trainer_state.json of Hugging Face, metrics.csv of Lightning, a history "
        "of Keras as JSON or CSV, event files of TensorBoard, or a folder of one")  # fmt: skip
    add("--json", metavar="FILE", help="write findings and reading to FILE; - is standard output")
    add("--plot", metavar="FILE", help="draw training against validation to FILE (.png, .svg)")
    add("--html", metavar="FILE", help="write findings, curves and spectra to FILE, as one page")
    add("--fail-on", metavar="S", default="error",
        help="severity from which the exit status is 1: error, warning or info "
        "(default: error)")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no messages but errors")


def _run(arguments: argparse.Namespace) -> int:
    from pyspectra.report.findings import SEVERITIES

    if arguments.fail_on not in SEVERITIES:
        raise UsageError(f"--fail-on must be {', '.join(SEVERITIES)}, got {arguments.fail_on!r}")
    if arguments.plot == STDOUT:
        raise UsageError("--plot writes to a file, not to standard output")
    outputs = {"--json": arguments.json, "--plot": arguments.plot, "--html": arguments.html}
    check_outputs(outputs, [arguments.run])
    with one_line(f"diagnosing {arguments.run!r}", NAMES):
        report, told = _diagnosed(arguments.run)
        if arguments.plot is not None:
            _plot(arguments.run, arguments.plot)
    if arguments.plot is not None and not arguments.quiet:
        message(f"wrote {arguments.plot}")
    pages = {"--html": (arguments.html, report.to_html)}
    as_json = json.dumps(json.loads(report.to_json()) | {"reading": told}, indent=2) + "\n"
    if not write_outputs({"--json": (arguments.json, lambda: as_json)} | pages, arguments.quiet):
        print_rich(lambda console: _print(console, report, told))
    grave = SEVERITIES[: SEVERITIES.index(arguments.fail_on) + 1]
    return FOUND if any(finding.severity in grave for finding in report) else 0


def _diagnosed(path: str) -> tuple[RunReport, list[str]]:
    from pyspectra.errors import FormatError
    from pyspectra.training import History, diagnose
    from pyspectra.training.reading_out import read_out

    history = History.load(path)
    if not len(history):
        raise FormatError(f"{path!r} holds no values.")
    report = diagnose(history)
    # A run of single steps, without epochs or evaluations, has findings but no curves to read.
    told = read_out(history) if history.epochs or history.evaluations else []
    return report, told


def _plot(path: str, target: str) -> None:
    from pyspectra.training import History
    from pyspectra.training.plot import plot_history

    axes: Any = plot_history(History.load(path))
    first = axes if hasattr(axes, "figure") else axes[0]
    first.figure.savefig(target, dpi=120)


def _print(console: Console, report: RunReport, told: list[str]) -> None:
    from rich.markup import escape

    if not len(report):
        console.print(f"Nothing was found in {report.n_steps} steps.", highlight=False)
    for finding in report:
        place = "" if finding.epoch is None else f" (epoch {finding.epoch})"
        style = STYLES[finding.severity]
        title = f"[{style}]{finding.severity}: {escape(finding.code)}[/]{place}"
        console.print(f"{title}: {escape(finding.message)}", highlight=False)
        for advice in finding.advice:
            console.print(f"    - {escape(advice)}", highlight=False)
    if told:
        console.print()
    for line in told:
        console.print(escape(line), highlight=False)


COMMAND = Command(
    name="diagnose",
    help="say what is wrong with a training run, from its recorded numbers",
    description="Read the metrics of a training run that is over, or still running, say what is "
    "wrong\nwith it, and read its curves out in words.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra diagnose run.jsonl",
        "pyspectra diagnose outputs/checkpoint-500/trainer_state.json --json -",
        "pyspectra diagnose run.jsonl --html run.html",
        "pyspectra diagnose lightning_logs/version_0 --plot curves.png --fail-on warning",
    ),
    statuses="0 done; 1 there is a finding that --fail-on names; 2 unusable arguments or input",
)
