"""``pyspectra average``: the mean of checkpoints."""

from __future__ import annotations

import argparse

from pyspectra._support.text import counted
from pyspectra.cli.commands import Command, as_integer_text
from pyspectra.cli.errors import UsageError, one_line
from pyspectra.cli.output import message

# How the command line spells the arguments of `average_checkpoints`.
NAMES = {"paths_or_dir": "CKPT", "out": "--out"}


def _arguments(parser: argparse.ArgumentParser) -> None:
    from pyspectra.edit.files import SUFFIXES

    add = parser.add_argument
    add("checkpoints", metavar="CKPT", nargs="+",
        help="one folder of numbered checkpoints, or several checkpoints: files "
        f"({', '.join(SUFFIXES)}) or model folders")  # fmt: skip
    add("-o", "--out", metavar="OUT", required=True,
        help="a .safetensors or torch file, or a new folder")  # fmt: skip
    add("--last", metavar="N", type=as_integer_text,
        help="of a folder, average the last N checkpoints (default: 8)")  # fmt: skip
    add("--weights", metavar="W", nargs="+", type=float,
        help="one for each checkpoint, oldest first or in the order given")  # fmt: skip
    add("--overwrite", action="store_true", help="replace OUT if it is a file that exists")
    add("-q", "--quiet", action="store_true", help="no progress and no messages but errors")


def _run(arguments: argparse.Namespace) -> int:
    with one_line(f"averaging into {arguments.out!r}", NAMES):
        messages = _average(arguments)
    if not arguments.quiet:
        for text in messages:
            message(text)
    return 0


def _average(arguments: argparse.Namespace) -> list[str]:
    from pyspectra.training import average_checkpoints

    given = arguments.checkpoints
    if len(given) > 1 and arguments.last is not None:
        raise UsageError(f"--last goes with one folder of checkpoints, got {len(given)} paths")
    done = average_checkpoints(
        given[0] if len(given) == 1 else given,
        arguments.out,
        last=arguments.last,
        weights=arguments.weights,
        overwrite=arguments.overwrite,
        progress=False if arguments.quiet else "auto",
    )
    tensors = counted(done.n_averaged, "tensor")
    if done.n_copied:
        tensors += f", {done.n_copied} more from the newest"
    messages = [
        f"averaged {counted(len(done.checkpoints), 'checkpoint')} "
        f"({', '.join(done.checkpoints)}): {tensors}",
        f"wrote {done.path}",
    ]
    if done.not_finite:
        more = f" and {len(done.not_finite) - 1} more" if len(done.not_finite) > 1 else ""
        messages.append(f"warning: not finite: tensor {done.not_finite[0]!r}{more}")
    return messages


COMMAND = Command(
    name="average",
    help="average the checkpoints of a training run",
    description="Average the last checkpoints of a training run, or given ones: element by "
    "element,\nin float64, rounded once to each tensor's own type.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra average run/ -o mean.safetensors --last 8",
        "pyspectra average a.pt b.pt -o mean.pt --weights 1 3",
    ),
)
