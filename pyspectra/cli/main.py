"""The command ``pyspectra``: its parser, its streams and its exit status.

Results go to standard output, messages to standard error. Exit status: 0 done; 1 less than half of
the model could be analysed, or layers failed under ``--strict``; 2 unusable arguments or input; 130
interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from pyspectra._support.text import nearest
from pyspectra.cli import completion, output
from pyspectra.cli.commands import Command, all_commands, show_help
from pyspectra.cli.errors import UsageError

__all__ = ["main"]

DONE, UNUSABLE, INTERRUPTED = 0, 2, 130


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
        commands = all_commands()
        arguments = _parse(sys.argv[1:] if argv is None else list(argv), commands)
        status = commands[arguments.command].run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else DONE
    except UsageError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        output.message("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        output.drop_output()  # the reader (`| head`) has seen enough
        return DONE
    except OSError as error:  # standard output failed: all other errors have become a UsageError
        output.drop_output()
        return _fail(f"standard output: {error.strerror or error}")
    return status


def _fail(text: str) -> int:
    sentence = text.rstrip(". ")
    output.message(f"error: {sentence}{'' if sentence.endswith('?') else '.'}")
    return UNUSABLE


# --- the parser ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser that raises, knows its options by name, and takes no abbreviations of them.

    That of a command gets its arguments when it is first used: their help is made of lists in many
    modules, which take long to load, and a process uses one command.
    """

    def __init__(self, command: Command | None = None, **settings: Any) -> None:
        self.options: list[str] = []
        self.actions: list[argparse.Action] = []
        self._waiting = command
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
        )

    def fill(self) -> None:
        """Add the arguments of the command, unless it has them."""
        command, self._waiting = self._waiting, None
        if command is not None:
            command.arguments(self)

    def format_help(self) -> str:
        self.fill()
        for action in self.actions:
            show_help(action)
        return super().format_help()

    def parse_known_args(self, *given: Any, **settings: Any) -> Any:
        self.fill()
        return super().parse_known_args(*given, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("--")]
        action = super().add_argument(*names, **settings)
        self.actions.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. Hint: {self.prog} --help")


def _parse(argv: list[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    from pyspectra import __version__

    whole = _Parser(
        prog="pyspectra",
        description="Spectral analysis of neural networks: eigenvalue spectra of weight matrices,"
        "\npower-law fits, and what they say.",
        epilog="pyspectra COMMAND --help describes a command and gives examples.",
    )
    whole.add_argument("--version", action="version", version=f"pyspectra {__version__}")
    typed = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {name: _add_command(typed, command) for name, command in commands.items()}
    arguments: argparse.Namespace

    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        raise UsageError(
            f"there is no command {argv[0]!r}. {_did_you_mean(argv[0], list(commands))}"
        )
    arguments, unknown = whole.parse_known_args(argv)
    if unknown:
        flags = [text for text in unknown if text.startswith("-")]
        if not flags:
            raise UsageError(f"one argument too many, {unknown[0]!r}. Hint: see --help")
        name = flags[0].split("=")[0]
        hint = _did_you_mean(name, parsers[arguments.command].options)
        raise UsageError(f"{arguments.command} has no option {name}. {hint}")
    arguments.completed = partial(_completed, commands, parsers)
    return arguments


def _completed(
    commands: Mapping[str, Command], parsers: Mapping[str, _Parser]
) -> list[completion.Completed]:
    """Return what shells complete of each command."""
    for parser in parsers.values():
        parser.fill()
    return [
        completion.completed(name, command.help, parsers[name].actions)
        for name, command in commands.items()
    ]


def _add_command(typed: Any, command: Command) -> _Parser:
    examples = "".join(f"  {line}\n" for line in command.examples)
    parser: _Parser = typed.add_parser(
        command.name,
        command=command,
        help=command.help,
        description=command.description,
        epilog=(f"examples:\n{examples}\n" if examples else "")
        + f"exit status: {command.statuses}.",
    )
    return parser


def _did_you_mean(word: str, choices: Sequence[str]) -> str:
    close = nearest(word, choices)
    return f"Hint: did you mean {close}?" if close else f"Hint: there are {', '.join(choices)}"
