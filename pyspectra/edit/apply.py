"""The one way of every edit: open the model, ask what changes, and write that beside all else.

Names, shapes, element types and devices stay as they are. A model in memory gives a new state dict,
or is changed itself; one in files gives new files of the same form.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyspectra._arrays import is_torch_module
from pyspectra._support.arguments import check_flag, shown
from pyspectra._support.progress import Advance, check_progress, progress_bar
from pyspectra.edit.edited import EditedCheckpoint
from pyspectra.edit.files import SUFFIXES, check_target, open_checkpoint
from pyspectra.edit.matrices import Recompute, Shapes
from pyspectra.edit.memory import check_writable, copied, write
from pyspectra.edit.on_disk import write_edited
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.weights import WeightSource, find_model, open_weights, reasons_for_none
from pyspectra.weights.formats import state_dict, suffixes

__all__ = ["Changes", "Destination", "apply"]

Changes = Callable[[WeightSource, Shapes], Mapping[str, Recompute]]
"""Takes the open model and the shapes of the tensors that can be written, by their keys; returns
how some of these change."""


@dataclass(frozen=True)
class Destination:
    """Where the new weights go, as the caller of an edit says.

    Attributes
    ----------
    inplace : bool
        Into the model itself instead of a copy.
    out : path or None
        The new file or folder, of a model in files.
    overwrite : bool
        Whether `out` may be a file that exists.
    progress : bool or "auto"
        Whether to show a bar.
    inputs : sequence of Path
        Files that are read besides those of the model: none is replaced.
    """

    inplace: bool = False
    out: Any = None
    overwrite: bool = False
    progress: bool | str = "auto"
    inputs: Sequence[Path] = ()

    def check(self, function: str, on_disk: bool) -> None:
        """Raise ArgumentError unless all this fits a model in files, or one in memory."""
        inplace = check_flag(function, "inplace", self.inplace)
        overwrite = check_flag(function, "overwrite", self.overwrite)
        check_progress(function, self.progress)
        if on_disk and self.out is None:
            hint = "name the file or folder to write; the one that is read stays as it is"
            raise ArgumentValueError(function, "out", "be given for a model in files", "None", hint)
        if on_disk and inplace:
            hint = "a file is never changed: name another one (out=)"
            raise ArgumentValueError(
                function, "inplace", "be False for a model in files", "True", hint
            )
        if not on_disk and self.out is not None:
            hint = "save what is returned, or give the path of the model"
            raise ArgumentValueError(
                function, "out", "be None for a model in memory", shown(self.out), hint
            )
        if not on_disk and overwrite:
            raise ArgumentValueError(function, "overwrite", "come with out", "True without it")

    def bar(self, function: str, steps: int) -> AbstractContextManager[Advance]:
        """Return the bar of so many steps."""
        return progress_bar(steps, function, self.progress, function=function)


def apply(
    function: str,
    model: Any,
    changes: Changes,
    destination: Destination,
    *,
    argument: str = "model",
) -> Any:
    """Edit a model.

    Parameters
    ----------
    function : str
        The public function, for messages.
    model : nn.Module, mapping or path
        A model, a state dict (torch or numpy values), or the path of a file or folder.
    changes : callable
        Tells what changes. Nothing is copied or written before it has returned.
    destination : Destination
        Where to.
    argument : str
        What `function` calls the model.

    Returns
    -------
    dict, nn.Module or EditedCheckpoint
        A new state dict; `model` itself with ``inplace=True``; of a path, what was written.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `model` is of the wrong kind, holds no weight matrix or cannot be written to, or if
        `destination` does not fit it.
    FormatError, FileNotFoundError, OSError
        If a file cannot be read or written.
    """
    on_disk = isinstance(model, (str, os.PathLike))
    if not (on_disk or is_torch_module(model) or isinstance(model, Mapping)):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError(
            function, argument, "be a torch module, a state dict or a path", got
        )
    destination.check(function, on_disk)
    with called_as(function, model_or_path=argument, model=argument):
        edit = _edit_files if on_disk else _edit_memory
        return edit(function, model, changes, destination)


def _edit_memory(function: str, model: Any, changes: Changes, destination: Destination) -> Any:
    inplace = destination.inplace
    if inplace and isinstance(model, np.lib.npyio.NpzFile):
        memory = "be in memory with inplace=True"
        raise ArgumentTypeError(function, "model", memory, "an open .npz file")
    with open_weights(model) as source:  # before the copy: it refuses what nobody could copy
        _check_holds_weights(function, source)
        state: Any = model.state_dict() if is_torch_module(model) else model
        changed = changes(source, {key: tuple(x.shape) for key, x in _tensors(state).items()})
        target = state if inplace else copied(function, state)
        tensors = _tensors(target)
        for key in changed:  # all of them before the first is written to
            check_writable(function, key, tensors[key])
        with destination.bar(function, len(changed)) as advance:
            for key, new_values in changed.items():
                values = new_values()
                if values is not None:
                    write(tensors[key], values)
                advance(key)
    return model if inplace else target


def _edit_files(
    function: str, model: str | os.PathLike[str], changes: Changes, destination: Destination
) -> EditedCheckpoint:
    path = find_model(os.fspath(model))
    suffix = path.suffix.lower()
    if path.is_file() and suffix in suffixes() and suffix not in SUFFIXES:
        hint = f"edits write {', '.join(SUFFIXES)} and folders of these: convert the model first"
        got = repr(str(path))
        raise ArgumentValueError(function, "model", "be of a format that is written", got, hint)
    target = check_target(function, destination.out, [path], destination.overwrite)
    with open_weights(path) as source:
        checkpoint = open_checkpoint(path, "edited")
        inputs = [*source.files, *destination.inputs]
        target.check_not_input([*checkpoint.files, *inputs])
        _check_holds_weights(function, source)
        changed = changes(source, {key: x.shape for key, x in checkpoint.tensors.items()})
        with destination.bar(function, len(checkpoint.tensors)) as advance:
            return write_edited(target, checkpoint, changed, inputs, advance)


def _tensors(state: Mapping[Any, Any]) -> dict[str, Any]:
    flat = state_dict.flat(state)
    return {key: value for key, value in flat.items() if hasattr(value, "shape")}


def _check_holds_weights(function: str, source: WeightSource) -> None:
    if not source.layers:
        got = f"{source.name}, {reasons_for_none(source.skipped)}"
        raise ArgumentValueError(function, "model", "hold a weight matrix", got)
