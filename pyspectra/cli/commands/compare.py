"""``pyspectra compare``: what differs between the spectra of models, and how sure that is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspectra.cli.analysis_options import add_options, add_running, flags, given_options, threads
from pyspectra.cli.commands import Command
from pyspectra.cli.errors import one_line
from pyspectra.cli.output import (
    STDOUT,
    check_not_read,
    check_outputs,
    check_plot_folder,
    message,
    print_rich,
    write_outputs,
    write_plots,
)

if TYPE_CHECKING:
    from pyspectra.report.comparison import Comparison
    from pyspectra.report.trajectory import Trajectory

DONE, NOT_ENOUGH = 0, 1


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL",
        help="two models, as for analyze: differences are those of the second from the first; "
        "three or more checkpoints, or the folder of a run")  # fmt: skip
    add("--names", nargs="+", metavar="NAME", help="what to call them (default: their files)")
    add("--changes", action=argparse.BooleanOptionalAction, default="auto",
        help="add what changed from the first to the last: the spectra of the difference and "
        "intruder dimensions (default: where their weights correlate)")  # fmt: skip
    add("--csv", metavar="F", help="write the layers to F as CSV; - for standard output alone")
    add("--json", metavar="F", help="write everything to F as JSON; - for standard output alone")
    add("--html", metavar="F", help="write a page to F: overview, and both spectra of each layer")
    add("--plot", metavar="DIR", help="write every kind of picture to DIR, as PNG files")
    add_options(parser)
    add_running(parser)


def _run(arguments: argparse.Namespace) -> int:
    models = _in_order(arguments.models, arguments.names)
    outputs = {"--csv": arguments.csv, "--json": arguments.json, "--html": arguments.html}
    check_outputs(outputs, inputs=models)
    check_plot_folder(arguments.plot)
    found = _compare(arguments, models, outputs)
    texts = {
        "--csv": (arguments.csv, found.to_csv),
        "--json": (arguments.json, found.to_json),
        "--html": (arguments.html, found.to_html),
    }
    write_plots(arguments.plot, found, arguments.quiet)
    taken = write_outputs(texts, arguments.quiet, found.files)
    if not taken and not arguments.quiet:
        print_rich(found.print)
    unread = [report.source for report in found.reports if not report.coverage.enough]
    for source in unread:
        message(f"less than half of {source} could be analysed: nothing can be said of it")
    return NOT_ENOUGH if unread else DONE


def _in_order(models: list[str], names: list[str] | None) -> list[str]:
    """Return models oldest first: as given, unless a shell has put step-10 before step-9.

    An order that no shell makes is the user's own, and each of the `names` belongs to its model.
    """
    from pyspectra.weights.run_folder import in_natural_order

    bare = [re.sub(r"\W|_", "", model) for model in models]  # many locales skip punctuation
    by_shell = models == sorted(models) or bare == sorted(bare)
    if len(models) <= 2 or names is not None or not by_shell:
        return models
    return [models[i] for i in in_natural_order(models)]


def _compare(
    arguments: argparse.Namespace, models: Sequence[str], outputs: Mapping[str, str | None]
) -> Comparison | Trajectory:
    import pyspectra

    doing = f"comparing {' with '.join(map(repr, models[:2]))}"
    with one_line(doing, flags(_spelled(models))), threads(arguments.threads):
        _check_outputs_again(models, outputs)
        given: dict[str, Any] = {
            "names": arguments.names,
            "changes": arguments.changes,
            "device": arguments.device,
            "progress": False if arguments.quiet else "auto",
            **given_options(arguments),
        }
        found: Comparison | Trajectory
        if len(models) == 2:
            found = pyspectra.compare(*models, **given)
        else:
            found = pyspectra.compare(models[0] if len(models) == 1 else models, **given)
    return found


def _spelled(models: Sequence[str]) -> dict[str, str]:
    """Return how messages call the arguments of `pyspectra.compare`."""
    if len(models) <= 2:
        return {"a": "A", "b": "B"}
    return {f"a[{i}]": f"MODEL {i + 1}" for i in range(len(models))}


def _check_outputs_again(models: Sequence[str], outputs: Mapping[str, str | None]) -> None:
    """Refuse outputs that would replace one of the files that the models are read from."""
    import pyspectra
    from pyspectra.errors import called_as

    if all(target in (None, STDOUT) for target in outputs.values()):
        return
    files: list[Path] = []
    if len(models) == 1:
        files += [path for path in Path(models[0]).rglob("*") if path.is_file()]
    for argument, path in zip(_spelled(models), models if len(models) > 1 else (), strict=False):
        with (
            called_as("compare", model_or_path=argument),
            pyspectra.open_weights(path) as model,
        ):
            files += model.files
    for option, target in outputs.items():
        check_not_read(option, target, files)


COMMAND = Command(
    name="compare",
    help="compare the spectra of two models, or follow those of several checkpoints",
    description="Compare the spectra of two models: what differs, layer by layer, and how sure "
    "that is. Of several checkpoints, or of the folder of a run: what became of each layer.",
    arguments=_arguments,
    run=_run,
    examples=(
        "pyspectra compare epoch10.pt epoch20.pt",
        "pyspectra compare small.safetensors large.safetensors --names small large",
        "pyspectra compare A B --csv layers.csv --json comparison.json",
        "pyspectra compare A B --html comparison.html",
        "pyspectra compare step-*.safetensors --csv course.csv",
        "pyspectra compare runs/mine   # its numbered checkpoints, in natural order",
    ),
    statuses="0 done; 1 less than half of the parameters in matrices of a model could be analysed; "
    "2 unusable arguments or input",
)
