"""Arguments of commands that analyse models: the flags of the options, threads, quiet.

The options of the analysis derive from their records in `pyspectra.report.options`.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyspectra.cli.completion import offer
from pyspectra.cli.numbers import as_integer_text

if TYPE_CHECKING:
    from pyspectra.report.options import Option

__all__ = ["add_options", "add_running", "flags", "given_options", "threads"]


def add_options(parser: argparse.ArgumentParser, names: Container[str] | None = None) -> None:
    """Add the flags of the options of an analysis: of all, or of those with these names."""
    from pyspectra.report.options import records

    for option in records():
        if option.flag is not None and (names is None or option.name in names):
            _add_option(parser, option, option.flag)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add what says where an analysis runs, and how much it tells."""
    add = parser.add_argument
    add("--device", metavar="D", default="auto",
        help="for the eigenvalues: auto, cpu, cuda or cuda:N (default: auto, the CPU)")  # fmt: skip
    add("-j", dest="threads", metavar="N", type=as_integer_text,
        help="threads (default: all cores)")  # fmt: skip
    add("-q", "--quiet", action="store_true",
        help="no table, progress or messages but errors; files are still written")  # fmt: skip


def _add_option(parser: argparse.ArgumentParser, option: Option, flag: str) -> None:
    """Add the flag of one option; what was not given is left out of the parsed arguments."""
    common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
    if option.switches:
        action = "store_false" if option.default else "store_true"
        parser.add_argument(flag, action=action, help=option.brief, **common)
        return
    text = option.brief
    if option.choices:
        text += f": {', '.join(option.choices)}"
    if option.several:
        text += "; may be given more than once, or with commas between them"
    if option.default is not None:
        text += f" (default: {option.default})"
    added = parser.add_argument(
        flag,
        action="append" if option.several else "store",
        metavar=option.metavar or option.name[0].upper(),
        help=text,
        **common,
    )
    offer(added, option.choices)


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keywords of `pyspectra.analyze` that were given as flags."""
    from pyspectra.report.options import records

    found = {}
    for option in records():
        given = getattr(arguments, option.name, None)
        if given is None:
            continue
        if option.several:
            words = [word for text in given for word in text.split(",") if word]
            found[option.name] = [_parsed(option, word) for word in words]
        else:
            found[option.name] = given if option.switches else _parsed(option, given)
    return found


def _parsed(option: Option, text: str) -> Any:
    try:
        return option.parse(text)
    except ValueError:
        return text  # the check of the option says what is wrong with it


def flags(own: Mapping[str, str]) -> dict[str, str]:
    """Return how the command line spells the arguments of an analysis; `own` are the command's."""
    from pyspectra.report.options import records

    known = {option.name: option.flag for option in records() if option.flag is not None}
    return {"n": "-j", **known, **own}


@contextlib.contextmanager
def threads(count: Any) -> Iterator[None]:
    """Use `count` threads, and leave a caller of `main` with as many as before."""
    import pyspectra

    before = pyspectra.get_num_threads()
    if count is not None:
        pyspectra.set_num_threads(count)
    try:
        yield
    finally:
        pyspectra.set_num_threads(before)
