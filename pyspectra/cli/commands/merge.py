"""``pyspectra merge``: several fine-tunings of one base as one model."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pyspectra._support.text import counted
from pyspectra.cli.commands import Command, as_integer_text, as_number_text
from pyspectra.cli.errors import one_line
from pyspectra.cli.output import message, write

if TYPE_CHECKING:
    from pyspectra.edit.merge import MergedModel

# How the command line spells the arguments of `pyspectra.merge`; the models have numbers from 1.
NAMES = {"base": "BASE", "models": "MODEL", "out": "--out"}
GAP = "  "


def _arguments(parser: argparse.ArgumentParser) -> None:
    from pyspectra.edit.files import SUFFIXES
    from pyspectra.edit.merge_arguments import SCOPES
    from pyspectra.edit.merge_methods import METHODS

    add = parser.add_argument
    methods = "; ".join(f"{m.name} {m.help}" for m in METHODS)
    shares = ", ".join(f"{m.name} {m.density:g}" for m in METHODS if m.keeps != "all")
    means = ", ".join(m.name for m in METHODS if m.is_mean)
    add("base", metavar="BASE",
        help=f"what all were trained from: a file ({', '.join(SUFFIXES)}) or a folder")  # fmt: skip
    add("models", metavar="MODEL", nargs="+", help="the tuned models, files or folders like it")
    add("-o", "--out", metavar="OUT", required=True,
        help="a .safetensors or torch file, or a new folder, which gets the shards and "
        "configuration of BASE")  # fmt: skip
    add("--method", choices=[m.name for m in METHODS], default=METHODS[0].name,
        help=f"{methods} (default: {METHODS[0].name})")  # fmt: skip
    add("--weights", metavar="W", nargs="+", type=as_number_text,
        help="one for each model (default: 1)")  # fmt: skip
    add("--density", metavar="D", nargs="+", type=as_number_text,
        help="share of each difference that stays, for all or for each model "
        f"(default: {shares})")  # fmt: skip
    add("--scale", metavar="S", type=as_number_text, default=1.0,
        help="factor on what is added to BASE (default: 1)")  # fmt: skip
    add("--normalize", action=argparse.BooleanOptionalAction, default=None,
        help=f"divide the sum by its weights (default: with {means})")  # fmt: skip
    add(
        "--scope",
        choices=SCOPES,
        help="look for the largest in each tensor, or in the whole model (default: tensor)",
    )
    add("--seed", metavar="N", type=as_integer_text,
        help="seed of what is dropped (default: 0)")  # fmt: skip
    add("--spectra", action="store_true",
        help="print a table: alpha of each layer before and after, and how far each model and the "
        "merged one are from BASE")  # fmt: skip
    add("--overwrite", action="store_true", help="replace OUT if it is a file that exists")
    add("-q", "--quiet", action="store_true",
        help="no progress and no messages but errors; --spectra still prints")  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    names = {**NAMES, **{f"models[{i}]": f"MODEL {i + 1}" for i in range(len(arguments.models))}}
    with one_line(f"merging into {arguments.out!r}", names):
        done = _merge(arguments)
    if not arguments.quiet:
        for text in _messages(done):
            message(text)
    if arguments.spectra:
        with one_line(f"analysing {arguments.out!r}", names):
            lines = list(_table(done, False if arguments.quiet else "auto"))
        write("\n".join([*lines, ""]))
    return 0


def _merge(arguments: argparse.Namespace) -> MergedModel:
    import pyspectra

    density = arguments.density
    done: MergedModel = pyspectra.merge(
        arguments.base,
        arguments.models,
        method=arguments.method,
        weights=arguments.weights,
        density=density[0] if density is not None and len(density) == 1 else density,
        scale=arguments.scale,
        normalize=arguments.normalize,
        scope=arguments.scope,
        seed=arguments.seed,
        out=arguments.out,
        overwrite=arguments.overwrite,
        progress=False if arguments.quiet else "auto",
    )
    return done


def _messages(done: MergedModel) -> Iterator[str]:
    tensors = counted(len(done.tensors), "tensor")
    if done.n_copied:
        tensors += f", {done.n_copied} more from the base"
    models = counted(len(done.models), "model")
    yield f"merged {models} ({', '.join(done.models)}) into {done.base} by {done.method}: {tensors}"
    yield f"wrote {done.path}"
    if done.not_finite:
        more = f" and {len(done.not_finite) - 1} more" if len(done.not_finite) > 1 else ""
        yield f"warning: not finite: tensor {done.not_finite[0]!r}{more}"


# --- spectra --------------------------------------------------------------------------------------


def _table(done: MergedModel, progress: bool | str) -> Iterator[str]:
    """Yield the lines of a table: a layer each, with alpha before and after, and the changes."""
    import pyspectra
    from pyspectra._support.text import printable

    reports = [pyspectra.analyze(path, progress=progress) for path in (done.base, done.path)]
    before, after = ({row.key: row for row in report.wholes} for report in reports)
    numbers = [str(i + 1) for i in range(len(done.models))]
    lines = [["layer", "alpha", "merged", *(f"d{n}" for n in numbers), "d"]]
    for tensor in done.tensors:
        if tensor.name in before and tensor.name in after:
            alphas = [_number(rows[tensor.name].alpha, ".2f") for rows in (before, after)]
            changes = [
                _number(100.0 * norm / tensor.norm if tensor.norm else math.nan, ".3g", " %")
                for norm in (*tensor.delta_norms, tensor.merged_norm)
            ]
            lines.append([printable(before[tensor.name].label), *alphas, *changes])
    yield from _aligned(lines)
    yield ""
    yield "alpha: of the base, and of the merged model"
    for number, model in zip(numbers, done.models, strict=True):
        yield f"d{number}: norm of {printable(model)} less the base, in % of the norm of the base"
    yield "d: the same of the merged model"


def _number(value: float, how: str, unit: str = "") -> str:
    return f"{value:{how}}{unit}" if math.isfinite(value) else "-"


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield GAP.join([first.ljust(widths[0]), *cells]).rstrip()


COMMAND = Command(
    name="merge",
    help="merge models that were trained from one base",
    description="Merge models that were trained from one base: what each of them has learned,\n"
    "as the difference from the base, is added to it. Computed in float64, rounded once\n"
    "to the types of the base.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra merge base/ tuned-a/ tuned-b/ -o merged/ --method ties --density 0.2",
        "pyspectra merge base.safetensors a.safetensors -o scaled.safetensors --scale 0.5",
        "pyspectra merge base/ a/ b/ -o merged/ --weights 0.6 0.4 --spectra",
    ),
)
