"""Folders of diffusers: ``model_index.json`` and a folder for each component with weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentValueError, FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats import huggingface
from pyspectra.weights.formats._files import read_json
from pyspectra.weights.formats.registry import Folder, format_of
from pyspectra.weights.skip import SkippedLayer

__all__ = ["FOLDER", "read"]

_INDEX: Final = "model_index.json"


def _components(folder: Path) -> list[str]:
    """Return the components that have weights, in the order of the index."""
    index = read_json(folder / _INDEX, "a valid index of a pipeline")
    if not isinstance(index, dict):
        raise FormatError(f"{folder / _INDEX}: not a valid index of a pipeline.")
    named = [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)
    ]
    return [name for name in named if _has_weights(folder, name)]


def _has_weights(folder: Path, name: str) -> bool:
    if not name.isidentifier():  # it is the name of an argument, and of nothing outside the folder
        return False
    inside = folder / name
    return inside.is_dir() and any(format_of(path) is not None for path in inside.iterdir())


def read(folder: Path, *, key: str | None = None) -> Contents:
    """List the tensors of every component, or of one.

    Parameters
    ----------
    folder : Path
        Of the pipeline.
    key : str, optional
        A component: ``"unet"``. By default all of them, each under its name.

    Raises
    ------
    FormatError
        If the index is invalid, or the weights of a component are.
    ArgumentValueError
        If there is no such component.
    """
    names = _components(folder)
    if not names:
        raise FormatError(f"{folder}: no component that {_INDEX} lists has weights.")
    if key is not None and key not in names:
        requirement = f"be one of {', '.join(map(repr, names))}"
        hint = did_you_mean(key, names)
        raise ArgumentValueError("open_weights", "key", requirement, repr(key), hint)
    opened = {
        name: huggingface.read_folder(folder / name) for name in (names if key is None else (key,))
    }
    entries: list[TensorEntry] = []
    beside: list[SkippedLayer] = []
    for name, contents in opened.items():
        dot = f"{name}." if key is None else ""
        entries += [replace(entry, key=dot + entry.key) for entry in contents.entries]
        beside += [replace(skipped, name=dot + skipped.name) for skipped in contents.beside]

    def close() -> None:
        for contents in opened.values():
            contents.close()

    files = tuple(file for contents in opened.values() for file in contents.files)
    index = (folder / _INDEX).absolute()
    return Contents("diffusers", entries, close, beside=tuple(beside), files=(index, *files))


def _recognises(folder: Path) -> bool:
    return (folder / _INDEX).is_file()


FOLDER = Folder("diffusers", _recognises, read)
