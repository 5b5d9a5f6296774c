"""``pyspectra completion``: a script that lets a shell complete commands and options."""

from __future__ import annotations

import argparse

from pyspectra.cli.commands import Command
from pyspectra.cli.completion import SHELLS
from pyspectra.cli.output import write

PROGRAM = "pyspectra"


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help=", ".join(SHELLS))


def _run(arguments: argparse.Namespace) -> int:
    write(SHELLS[arguments.shell](PROGRAM, arguments.completed()))
    return 0


COMMAND = Command(
    name="completion",
    help="print a script that lets a shell complete commands and options",
    description="Print a script that lets bash, zsh or fish complete commands, options and their "
    "values.\n\n"
    '  bash, in ~/.bashrc:  eval "$(pyspectra completion bash)"\n'
    '  zsh, in ~/.zshrc:    eval "$(pyspectra completion zsh)"    (after compinit)\n'
    "  fish, once:          pyspectra completion fish > ~/.config/fish/completions/pyspectra.fish",
    arguments=_arguments,
    run=_run,
    examples=("pyspectra completion bash", "pyspectra completion fish"),
)
