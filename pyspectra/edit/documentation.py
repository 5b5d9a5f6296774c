"""What the docstrings of all edits have in common, written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["documented"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_TEXTS: Final = {
    "model": """\
model : nn.Module, mapping or path
        A model; a state dict (torch or numpy values); or a file or folder of safetensors or of
        torch, sharded or not, also the name of a model in the cache of the hub.""",
    "destination": """\
inplace : bool
        Write into `model` instead of a copy; not of a path.
    out : path, optional
        Of a path, the new file or folder; no file that is read is ever changed. A folder gets all
        files that the model has: shards, index, configuration, tokenizer.
    overwrite : bool
        Whether `out` may be a file that exists.
    progress : bool or "auto"
        Whether to show a bar on standard error for what takes over two seconds; ``"auto"``: on a
        terminal.""",
    "returns": """\
dict, nn.Module or EditedCheckpoint
        A new state dict that shares no memory with `model`; `model` itself with ``inplace=True``;
        of a path, what was written and how much of each tensor changed.""",
    "raises": """\
TypeError, ValueError
        If an argument is of the wrong kind or range, or `model` holds no weight matrix or cannot be
        written to: quantised weights, and files of other formats.
    FormatError, FileNotFoundError, OSError
        If a file cannot be read or written. Nothing is left half-written, also of an interrupt.""",
    "notes": """\
Tied weights stay tied. New values are float64, rounded once to the type of their tensor, the
    largest finite number of it at most. Files are read and written tensor by tensor (a torch file
    is held whole), and are equal to the result in memory, bit by bit.""",
}


def documented(function: _Function) -> _Function:
    """Put the common parts in the place of ``{model}``, ``{destination}`` and so on."""
    text = function.__doc__
    if text:  # python -OO strips it
        for name, common in _TEXTS.items():
            text = text.replace(f"{{{name}}}", common)
        function.__doc__ = text
    return function
