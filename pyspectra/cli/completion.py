"""Scripts that let a shell complete the commands and options, derived from the parsers."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["SHELLS", "Completed", "completed", "offer"]

_OFFERED = "offered_values"


def offer(action: argparse.Action, values: Sequence[str]) -> None:
    """Let shells complete the values of an option whose choices the parser does not check."""
    vars(action)[_OFFERED] = tuple(values)


@dataclass(frozen=True)
class _Flag:
    """An option: its spellings, what it does, whether it takes a value, and of which."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...]


@dataclass(frozen=True)
class Completed:
    """What shells complete of one command.

    Attributes
    ----------
    name, help : str
    flags : tuple
        Its options.
    words : tuple of str
        The values of its first argument, where they are known; else that is a file.
    """

    name: str
    help: str
    flags: tuple[_Flag, ...]
    words: tuple[str, ...]


def completed(name: str, help: str, actions: Sequence[argparse.Action]) -> Completed:
    """Return what shells complete of a command, from the arguments of its parser."""
    flags = tuple(
        _Flag(
            names=tuple(action.option_strings),
            help=(action.help or "").split(";")[0],
            takes_value=action.nargs != 0,
            values=_values(action),
        )
        for action in actions
        if action.option_strings
    )
    words = next((_values(a) for a in actions if not a.option_strings), ())
    return Completed(name, help, flags, words)


def _values(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, vars(action).get(_OFFERED) or action.choices or ()))


# --- the scripts --------------------------------------------------------------------------------


def _bash(program: str, commands: Sequence[Completed]) -> str:
    function = f"_{program}"
    values = "\n".join(
        f'        "{command.name} {name}") words="{" ".join(flag.values)}" ;;'
        for command in commands
        for flag in command.flags
        for name in flag.names
        if flag.values
    )
    flags = "\n".join(
        f'        {command.name}) words="{" ".join(n for f in command.flags for n in f.names)}" ;;'
        for command in commands
    )
    words = "\n".join(
        f'        {command.name}) words="{" ".join(command.words)}" ;;'
        for command in commands
        if command.words
    )
    return f"""\
# bash completion of {program}
{function}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" words=""
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        words="{" ".join(command.name for command in commands)}"
    else
        case "$command ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
        esac
        if [[ -z $words && $current == -* ]]; then
            case "$command" in
{flags}
            esac
        elif [[ -z $words ]] && (( COMP_CWORD == 2 )); then
            case "$command" in
{words}
            esac
        fi
    fi
    [[ -n $words ]] && COMPREPLY=( $(compgen -W "$words" -- "$current") )
    return 0
}}
complete -o default -F {function} {program}
"""


def _zsh(program: str, commands: Sequence[Completed]) -> str:
    listed = "\n".join(f"        {_quoted(f'{c.name}:{_plain(c.help)}')}" for c in commands)
    cases = "\n".join(
        f"        {command.name})\n            _arguments \\\n"
        + " \\\n".join(f"                {spec}" for spec in _zsh_specs(command))
        + "\n            ;;"
        for command in commands
    )
    return f"""\
#compdef {program}
# zsh completion of {program}
_{program}() {{
    local -a commands
    commands=(
{listed}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _{program} "$@"
else
    compdef _{program} {program}
fi
"""


def _zsh_specs(command: Completed) -> list[str]:
    specs = []
    for flag in command.flags:
        for name in flag.names:
            spec = f"{name}[{_plain(flag.help)}]"
            if flag.takes_value:
                values = f"({' '.join(flag.values)})" if flag.values else "_files"
                spec += f":value:{values}"
            specs.append(_quoted(f"*{spec}"))
    first = f"({' '.join(command.words)})" if command.words else "_files"
    return [*specs, _quoted(f"*:argument:{first}")]


def _fish(program: str, commands: Sequence[Completed]) -> str:
    start = f"complete -c {program}"
    lines = [f"# fish completion of {program}"]
    for command in commands:
        lines.append(
            f"{start} -n __fish_use_subcommand -f -a {command.name} -d {_quoted(command.help)}"
        )
    for command in commands:
        inside = f"{start} -n '__fish_seen_subcommand_from {command.name}'"
        if command.words:
            lines.append(f"{inside} -f -a {_quoted(' '.join(command.words))}")
        for flag in command.flags:
            names = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names]
            value = ""
            if flag.values:
                value = f" -x -a {_quoted(' '.join(flag.values))}"
            elif flag.takes_value:
                value = " -r"
            lines.append(f"{inside} {' '.join(names)}{value} -d {_quoted(_plain(flag.help))}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return text in single quotes, for every one of the shells."""
    return "'" + text.replace("\\", "").replace("'", "") + "'"


def _plain(text: str) -> str:
    """Return help without the signs that zsh reads as the end of it."""
    return re.sub(r"[\[\]:`$]", " ", text).strip()


SHELLS: Mapping[str, Callable[[str, Sequence[Completed]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
"""Shell -> what makes its script, from the name of the program and what is completed."""
