"""``pyspectra prune``: a model in files whose smallest weights are zero."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspectra._support.text import counted
from pyspectra.cli.analysis_options import add_options, given_options
from pyspectra.cli.commands import Command, as_number_text
from pyspectra.cli.completion import offer
from pyspectra.cli.errors import UsageError, one_line
from pyspectra.cli.output import message, write

if TYPE_CHECKING:
    from pyspectra.edit.edited import EditedCheckpoint

# How the command line spells the arguments of `prune`, `allocate_sparsity` and `analyze`.
NAMES = {
    "model": "MODEL",
    "model_or_path": "MODEL",
    "report": "MODEL",
    "out": "--out",
    **{name: f"--{name}" for name in ("sparsity", "layers", "epsilon", "estimator", "overwrite")},
}
BY = ("uniform", "global", "alpha")
# AlphaPruning's.
EPSILON, ESTIMATOR = 0.3, "fix_finger"


def _arguments(parser: argparse.ArgumentParser) -> None:
    from pyspectra.edit.files import SUFFIXES

    add = parser.add_argument
    add("model", metavar="MODEL",
        help=f"a file ({', '.join(SUFFIXES)}) or a model folder, sharded or not")  # fmt: skip
    add("-o", "--out", metavar="OUT", required=True,
        help="the new file, or a new folder; MODEL stays as it is")  # fmt: skip
    add("--sparsity", metavar="S", type=as_number_text, required=True,
        help="share of the weights that becomes zero, from 0 to below 1")  # fmt: skip
    by = add("--by", metavar="B", default="uniform",
        help="uniform: each layer loses this share; global: all layers compete; alpha: layers "
        "with a lighter tail lose more (default: uniform)")  # fmt: skip
    offer(by, BY)
    add("--epsilon", metavar="E", type=as_number_text,
        help="with --by alpha: shares are from 1 - E to 1 + E times a common one "
        f"(default: {EPSILON})")  # fmt: skip
    add("--estimator", metavar="E",
        help=f"with --by alpha: of which estimator alpha is (default: {ESTIMATOR})")  # fmt: skip
    add_options(parser, ("layers",))
    add("--overwrite", action="store_true", help="replace OUT if it is a file that exists")
    add("-q", "--quiet", action="store_true", help="no table, progress or messages but errors")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.by not in BY:
        raise UsageError(f"--by must be one of {', '.join(BY)}, got {arguments.by!r}")
    if arguments.by != "alpha":
        for option in ("epsilon", "estimator"):
            if getattr(arguments, option) is not None:
                raise UsageError(f"--{option} goes with --by alpha")
    with one_line(f"pruning {arguments.model!r}", NAMES):
        done = _prune(arguments)
    if not arguments.quiet:
        _tell(done)
    return 0


def _prune(arguments: argparse.Namespace) -> EditedCheckpoint:
    import pyspectra
    from pyspectra.edit.files import check_target

    # Before an analysis that may take minutes.
    check_target("prune", arguments.out, [Path(arguments.model)], arguments.overwrite)
    layers = given_options(arguments).get("layers")
    progress: bool | str = False if arguments.quiet else "auto"
    sparsity: Any = arguments.sparsity
    if arguments.by == "alpha":
        report = pyspectra.analyze(
            arguments.model,
            layers=layers,
            estimator=arguments.estimator or ESTIMATOR,
            goodness=False,
            progress=progress,
        )
        epsilon = EPSILON if arguments.epsilon is None else arguments.epsilon
        sparsity = pyspectra.allocate_sparsity(report, arguments.sparsity, epsilon=epsilon)
    done: EditedCheckpoint = pyspectra.prune(
        arguments.model,
        sparsity,
        scope="global" if arguments.by == "global" else "layer",
        layers=layers,
        out=arguments.out,
        overwrite=arguments.overwrite,
        progress=progress,
    )
    return done


def _tell(done: EditedCheckpoint) -> None:
    width = max((len(tensor.key) for tensor in done.tensors), default=0)
    for tensor in done.tensors:
        shape = " x ".join(map(str, tensor.shape))
        share = _percent(tensor.n_zeros, tensor.size)
        write(f"{tensor.key:{width}}  {share:>6}  {tensor.n_zeros} of {shape}\n")
    zeros = sum(tensor.n_zeros for tensor in done.tensors)
    size = sum(tensor.size for tensor in done.tensors)
    of_all = f": {zeros} of {size} weights are zero ({_percent(zeros, size)})" if size else ""
    message(f"pruned {counted(len(done.tensors), 'tensor')}{of_all}")
    message(f"wrote {done.path}")


def _percent(part: int, whole: int) -> str:
    return f"{100.0 * part / whole:.1f} %"


COMMAND = Command(
    name="prune",
    help="set the smallest weights of a model to zero",
    description="Write a model anew, of which the smallest weights of each layer are zero. The "
    "files keep\ntheir form, and all other weights stay as they are, bit by bit.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra prune model.safetensors -o half.safetensors --sparsity 0.5",
        "pyspectra prune FOLDER -o NEW --sparsity 0.7 --by global",
        "pyspectra prune FOLDER -o NEW --sparsity 0.7 --by alpha",
    ),
)
