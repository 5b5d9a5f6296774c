"""``pyspectra compare``: what differs between the spectra of two models, and how sure that is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pyspectra.cli.analysis_options import add_options, add_running, flags, given_options, threads
from pyspectra.cli.commands import Command
from pyspectra.cli.errors import one_line
from pyspectra.cli.output import (
    STDOUT,
    check_not_read,
    check_outputs,
    print_rich,
    write_outputs,
)

if TYPE_CHECKING:
    from pyspectra.report.comparison import Comparison


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("a", metavar="A", help="a model, as for analyze")
    add("b", metavar="B", help="another one; differences are those of B from A")
    add("--names", nargs=2, metavar=("A", "B"), help="what to call them (default: their files)")
    add("--csv", metavar="F", help="write the layers to F as CSV; - for standard output alone")
    add("--json", metavar="F", help="write everything to F as JSON; - for standard output alone")
    add_options(parser)
    add_running(parser)


def _run(arguments: argparse.Namespace) -> int:
    outputs = {"--csv": arguments.csv, "--json": arguments.json}
    check_outputs(outputs, inputs=(arguments.a, arguments.b))
    found = _compare(arguments, outputs)
    texts = {"--csv": (arguments.csv, found.to_csv), "--json": (arguments.json, found.to_json)}
    taken = write_outputs(texts, arguments.quiet, (*found.a.files, *found.b.files))
    if not taken and not arguments.quiet:
        print_rich(found.print)
    return 0


def _compare(arguments: argparse.Namespace, outputs: Mapping[str, str | None]) -> Comparison:
    import pyspectra

    doing = f"comparing {arguments.a!r} with {arguments.b!r}"
    with one_line(doing, flags({"a": "A", "b": "B"})), threads(arguments.threads):
        _check_outputs_again(arguments, outputs)
        return pyspectra.compare(
            arguments.a,
            arguments.b,
            names=arguments.names,
            device=arguments.device,
            progress=False if arguments.quiet else "auto",
            **given_options(arguments),
        )


def _check_outputs_again(arguments: argparse.Namespace, outputs: Mapping[str, str | None]) -> None:
    """Refuse outputs that would replace one of the files that the models are read from."""
    import pyspectra
    from pyspectra.errors import called_as

    if all(target in (None, STDOUT) for target in outputs.values()):
        return
    files: list[Path] = []
    for argument in "ab":
        with (
            called_as("compare", model_or_path=argument),
            pyspectra.open_weights(getattr(arguments, argument)) as model,
        ):
            files += model.files
    for option, target in outputs.items():
        check_not_read(option, target, files)


COMMAND = Command(
    name="compare",
    help="compare the spectra of two models",
    description="Compare the spectra of two models: what differs, layer by layer, and how sure "
    "that is.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra compare epoch10.pt epoch20.pt",
        "pyspectra compare small.safetensors large.safetensors --names small large",
        "pyspectra compare A B --csv layers.csv --json comparison.json",
    ),
)
