"""The command ``pyspectra average``: its arguments, and what it says when it is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

__all__ = ["add_average", "average"]


def add_average(commands: Any, count: Callable[[str], int]) -> None:
    """Add the command to a parser.

    Parameters
    ----------
    commands : argparse sub-parsers
        Where to add it.
    count : callable
        Turns text into a positive integer.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "average",
        help="average the checkpoints of a training run",
        description="Average the last checkpoints of a training run, or given ones: element by "
        "element, in float64, rounded once to each tensor's own type.",
        epilog="Exit status: 0 done; 2 unusable arguments or input.",
    )
    add = parser.add_argument
    add("checkpoints", metavar="CKPT", nargs="+",
        help="one folder of numbered checkpoints, or several checkpoints: .safetensors, .pt, "
        ".pth, .bin, .ckpt, or model folders")  # fmt: skip
    add("-o", "--out", metavar="OUT", required=True,
        help="a .safetensors or torch file, or a new folder")  # fmt: skip
    add("--last", metavar="N", type=count,
        help="of a folder, average the last N checkpoints (default: 8)")  # fmt: skip
    add("--weights", metavar="W", nargs="+", type=float,
        help="one for each checkpoint, oldest first or in the order given")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress and no messages but errors")


def average(arguments: argparse.Namespace) -> list[str]:
    """Run the command.

    Parameters
    ----------
    arguments : argparse.Namespace
        As parsed.

    Returns
    -------
    list of str
        Messages.

    Raises
    ------
    PyspectraError, ValueError, OSError
        What is wrong with the input.
    """
    from pyspectra.training import average_checkpoints

    given = arguments.checkpoints
    if len(given) > 1 and arguments.last is not None:
        raise ValueError(f"--last goes with one folder of checkpoints, got {len(given)} paths")
    done = average_checkpoints(
        given[0] if len(given) == 1 else given,
        arguments.out,
        last=arguments.last,
        weights=arguments.weights,
        progress=False if arguments.quiet else "auto",
    )
    tensors = f"{done.n_averaged} tensors"
    if done.n_copied:
        tensors += f", {done.n_copied} more from the newest"
    messages = [
        f"averaged {len(done.checkpoints)} checkpoints ({', '.join(done.checkpoints)}): {tensors}",
        f"wrote {done.path}",
    ]
    if done.not_finite:
        more = f" and {len(done.not_finite) - 1} more" if len(done.not_finite) > 1 else ""
        messages.append(f"warning: not finite: tensor {done.not_finite[0]!r}{more}")
    return messages
