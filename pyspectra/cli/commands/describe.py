"""``pyspectra describe``: what would be analysed, without analysing it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pyspectra.cli.analysis_options import add_options, flags, given_options
from pyspectra.cli.commands import Command
from pyspectra.cli.errors import one_line
from pyspectra.cli.output import check_outputs, print_rich, write_outputs

if TYPE_CHECKING:
    from pyspectra.report.description import Description


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="a file or a model folder, as for analyze")
    add("--csv", metavar="F", help="write the layers to F as CSV; - for standard output alone")
    add("--json", metavar="F", help="write everything to F as JSON; - for standard output alone")
    add("--all", dest="everything", action="store_true",
        help="list every layer, also of a large model")  # fmt: skip
    add("--key", metavar="K",
        help="of a checkpoint that holds several models, the one called K")  # fmt: skip
    add_options(parser)
    add("-q", "--quiet", action="store_true",
        help="no table and no messages but errors; files are still written")  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    outputs = {"--csv": arguments.csv, "--json": arguments.json}
    check_outputs(outputs, inputs=(arguments.model,))
    plan = _described(arguments)
    texts = {"--csv": (arguments.csv, plan.to_csv), "--json": (arguments.json, plan.to_json)}
    taken = write_outputs(texts, arguments.quiet, plan.files)
    if not taken and not arguments.quiet:
        print_rich(lambda console: plan.print(console, everything=arguments.everything))
    return 0


def _described(arguments: argparse.Namespace) -> Description:
    import pyspectra

    with one_line(f"describing {arguments.model!r}", flags({"model_or_path": "MODEL"})):
        return pyspectra.describe(arguments.model, key=arguments.key, **given_options(arguments))


COMMAND = Command(
    name="describe",
    help="tell what analyze would analyse, and what that would take",
    description="Tell what analyze would analyse, without reading a single weight: layers, kinds, "
    "shapes,\nwhat is skipped and why, which share of the parameters that is, and what it would "
    "take.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra describe model.safetensors",
        "pyspectra describe FOLDER --layers '*.mlp.*' --all",
        "pyspectra describe FOLDER --csv - | head",
    ),
)
