"""``pyspectra info``: what this installation consists of."""

from __future__ import annotations

import argparse

from pyspectra.cli.commands import Command
from pyspectra.cli.errors import one_line
from pyspectra.cli.output import write


def _arguments(_parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def _run(_arguments: argparse.Namespace) -> int:
    import pyspectra

    with one_line("describing the installation", {}):
        config = pyspectra.show_config()
    write(f"{config}\n")
    return 0


COMMAND = Command(
    name="info",
    help="describe this installation",
    description="Compiler, instruction sets, threads, BLAS and CUDA of this installation.",
    arguments=_arguments,
    run=_run,
    examples=("pyspectra info",),
    statuses="0 done; 2 an environment variable makes no sense",
)
