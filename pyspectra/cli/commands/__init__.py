"""The commands of ``pyspectra``: a command is one module, found by its place in this folder.

To add one, write a module here with a `Command` called ``COMMAND``, and its test.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspectra.cli.numbers import as_integer_text, as_number_text

__all__ = [
    "Command",
    "all_commands",
    "as_integer_text",
    "as_number_text",
    "late_help",
    "show_help",
]

_LATE_HELP = "late_help"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes
    ----------
    name : str
        What is typed.
    help : str
        A phrase for the list of commands.
    description : str
        Sentences for the help of the command.
    arguments : callable
        Adds the arguments to a parser.
    run : callable
        Does the work, from the parsed arguments to the exit status.
    examples : sequence of str
        Lines to type, for the help of the command.
    statuses : str
        What the exit statuses of the command mean, if there is more to say than 0 and 2.
    """

    name: str
    help: str
    description: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    examples: Sequence[str] = ()
    statuses: str = "0 done; 2 unusable arguments or input"


def late_help(action: argparse.Action, help: Callable[[], str]) -> None:
    """Give an argument a help that is made only when it is shown."""
    vars(action)[_LATE_HELP] = help


def show_help(action: argparse.Action) -> None:
    """Make the help of an argument, if it was left for later."""
    help = vars(action).pop(_LATE_HELP, None)
    if help is not None:
        action.help = help()


def all_commands() -> dict[str, Command]:
    """Return every command by its name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {module.COMMAND.name: module.COMMAND for module in modules}
