"""The file formats: one record each, found in the modules of this package.

To add a format, add a module with a `FORMAT` to this package. Nothing else repeats it: what can be
opened, what a folder is searched for, the messages and the help of the command line derive from
the records.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import cast

from pyspectra.errors import ArgumentValueError, FormatError, missing_dependency
from pyspectra.weights.copies import chosen
from pyspectra.weights.entries import Contents
from pyspectra.weights.formats.ways import way_of

__all__ = [
    "Folder",
    "Format",
    "folder_of",
    "format_of",
    "formats",
    "read_file",
    "suffixes",
]


@dataclass(frozen=True)
class Format:
    """One file format.

    Attributes
    ----------
    name : str
        What sources of it say they are, e.g. ``"safetensors"``.
    suffixes : tuple of str
        Suffixes of its files, in lower case, with their dots.
    read : callable
        Takes a path and lists what is in the file: names, shapes and element types, and where the
        elements are. It reads no elements. If `keyed`, it also takes a keyword ``key``.
    extra : str or None
        The extra of this distribution that installs what reading needs; None if nothing is needed.
    keyed : bool
        True if a file may hold several models, of which ``key`` names one.
    rank : int
        Place in lists for people: the most usual comes first.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., Contents]
    extra: str | None = None
    keyed: bool = False
    rank: int = 9


@dataclass(frozen=True)
class Folder:
    """One kind of folder that is not simply that of a model's files; `FOLDER` of its module.

    Attributes
    ----------
    name : str
        What it is called.
    recognises : callable
        Tells by the names in a folder whether it is one; nothing is opened.
    read : callable
        Takes the folder, and a keyword ``key``, which of several models is meant; lists what is in
        it.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[..., Contents]


@functools.cache
def formats() -> tuple[Format, ...]:
    """Return every format, the most usual first."""
    found = [module.FORMAT for module in _modules() if hasattr(module, "FORMAT")]
    return tuple(sorted(found, key=lambda f: (f.rank, f.name)))


@functools.cache
def _names() -> tuple[str, ...]:
    package = importlib.import_module(__package__)
    return tuple(module.name for module in pkgutil.iter_modules(package.__path__))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


def _modules() -> list[ModuleType]:
    return [_module(name) for name in _names()]


def folder_of(path: Path) -> Folder | None:
    """Return the kind of a folder, or None for one that is simply that of a model's files.

    Raises
    ------
    FormatError
        If it cannot be looked into.
    """
    try:
        return next((folder for folder in _folders() if folder.recognises(path)), None)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error


@functools.cache
def _folders() -> tuple[Folder, ...]:
    return tuple(module.FOLDER for module in _modules() if hasattr(module, "FOLDER"))


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all files that can be read, the most usual first."""
    return tuple(suffix for format in formats() for suffix in format.suffixes)


def format_of(path: Path | str) -> Format | None:
    """Return the format that the suffix of a file tells, or None."""
    suffix = Path(path).suffix.lower()
    # A module that is called as the suffix has that format; to load all takes as long as to open
    # a model.
    if suffix[1:] in _names():
        format = getattr(_module(suffix[1:]), "FORMAT", None)
        if format is not None and suffix in format.suffixes:
            return cast(Format, format)
    return next((f for f in formats() if suffix in f.suffixes), None)


def read_file(path: Path, key: str | None = None) -> Contents:
    """List what a file holds.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        Which of several models in it.

    Returns
    -------
    Contents

    Raises
    ------
    FormatError
        If the file is of no format that is read, or broken.
    ArgumentValueError
        If there is no choice for `key` to make.
    MissingDependencyError
        If reading needs a package that is not installed.
    """
    format = format_of(path)
    if format is None:
        supported = f"Supported are {', '.join(suffixes())} and model folders."
        way = way_of(path)
        if way is not None:
            raise FormatError(f"{path}: {way.what}, which is not read. Hint: {way.hint}")
        suffix = path.suffix.lower()
        raise FormatError(f"{path}: no supported weights file (suffix {suffix!r}). {supported}")
    try:
        contents = format.read(path, key=key) if format.keyed else format.read(path)
    except ModuleNotFoundError as error:
        if format.extra is None or error.name is None:
            raise
        raise missing_dependency(error.name, f"reading {path.name}", extra=format.extra) from error
    if key is not None and not format.keyed:
        part = chosen(contents.entries, key)
        if not part:
            kind = f"be None for a {format.suffixes[0]} file, or what names in it begin with"
            raise ArgumentValueError("open_weights", "key", kind, repr(key))
        contents = replace(contents, entries=part)
    return replace(contents, files=(path.absolute(), *contents.files))
