"""Models in shards: the index that names them, and what they hold together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from pyspectra.errors import ArgumentValueError, FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats._files import read_json
from pyspectra.weights.formats.registry import format_of, read_file
from pyspectra.weights.order import natural_key

__all__ = [
    "INDEX_SUFFIX",
    "Index",
    "check_apart",
    "check_no_key",
    "is_file",
    "open_index",
    "read_index",
    "some",
    "together",
]

INDEX_SUFFIX: Final = ".index.json"


def _weight_map(path: Path) -> dict[str, str]:
    index = read_json(path, "a valid index of shards")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path}: not a valid index of shards: it has no 'weight_map'.")
    for shard in weight_map.values():
        if not isinstance(shard, str) or not _stays_inside(shard):
            raise FormatError(
                f"{path}: refused: the index names {shard!r}, which is not "
                "a file inside its folder."
            )
    return weight_map


def _stays_inside(name: str) -> bool:
    # By spelling only: caches link every shard to a file elsewhere, so that resolving the links
    # would refuse honest folders.
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and ".." not in parts
        and not PurePosixPath(name).is_absolute()
        and not PureWindowsPath(name).drive
        and "\\" not in name
        and name.isprintable()
    )


def read_index(path: Path, key: str | None = None) -> Contents:
    """List the tensors of the shards that an index names.

    Parameters
    ----------
    path : Path
        A file such as ``model.safetensors.index.json``.
    key : str, optional
        Must be None: shards hold one model.

    Returns
    -------
    Contents
        The tensors of all shards, in the order of a single file.

    Raises
    ------
    FormatError
        If the index is invalid or leaves its folder, a shard is missing or unsupported, a tensor
        is in two shards or in none.
    """
    check_no_key(key)
    index = open_index(path)
    opened = {shard: read_file(path.parent / shard) for shard in index.shards}
    contents = together(path, opened)
    index.check({shard: [e.key for e in opened[shard].entries] for shard in opened})
    return replace(contents, files=(path.absolute(), *contents.files))


@dataclass(frozen=True)
class Index:
    """An index of shards, which all exist.

    Attributes
    ----------
    path : Path
        The file.
    weight_map : Mapping
        Name of a tensor -> name of the shard that holds it.
    shards : tuple of str
        Names of the shards, in natural order.
    """

    path: Path
    weight_map: Mapping[str, str]
    shards: tuple[str, ...]

    def check(self, keys: Mapping[str, Sequence[str]]) -> None:
        """Compare with the names of the tensors that each shard holds.

        Raises
        ------
        FormatError
            If a tensor is not where the index has it.
        """
        held = {shard: set(names) for shard, names in keys.items()}
        for key, shard in self.weight_map.items():
            if key not in held[shard]:
                raise FormatError(
                    f"{self.path}: tensor {key!r} is not in {shard}, where the index has it."
                )


def open_index(path: Path) -> Index:
    """Read an index of shards.

    Raises
    ------
    FormatError
        If the index is invalid or leaves its folder, or a shard is missing or unsupported.
    """
    weight_map = _weight_map(path)
    shards = tuple(sorted(set(weight_map.values()), key=natural_key))
    missing = [shard for shard in shards if not is_file(path.parent / shard)]
    if missing:
        raise FormatError(
            f"{path}: {len(missing)} of {len(shards)} shards missing: {some(missing)}."
        )
    for shard in shards:
        if format_of(shard) is None:
            raise FormatError(f"{path}: the shard {shard!r} is of no supported format.")
    return Index(path, weight_map, shards)


def check_apart(path: Path, keys: Mapping[str, Sequence[str]]) -> None:
    """Check that no name of a tensor is in two shards.

    Parameters
    ----------
    path : Path
        The index, or the folder, for messages.
    keys : Mapping
        Name of a shard -> names of its tensors.

    Raises
    ------
    FormatError
        If one is.
    """
    owner: dict[str, str] = {}
    for shard, names in keys.items():
        for key in names:
            if owner.setdefault(key, shard) != shard:
                raise FormatError(
                    f"{path}: tensor {key!r} is in two shards, {owner[key]} and {shard}."
                )


def together(path: Path, opened: Mapping[str, Contents]) -> Contents:
    """Join what the shards of one model hold; their names are in natural order."""
    check_apart(path, {shard: [e.key for e in c.entries] for shard, c in opened.items()})
    parts = list(opened.values())
    entries: list[TensorEntry] = [entry for contents in parts for entry in contents.entries]
    format = parts[0].format
    if format == "safetensors":
        # As in a single file. Torch shards split a state dict in its own order, which
        # concatenation in the order of the shards' numbers restores.
        entries.sort(key=lambda entry: natural_key(entry.key))

    def close() -> None:
        for contents in parts:
            contents.close()

    files = tuple(file for contents in parts for file in contents.files)
    beside = tuple(skipped for contents in parts for skipped in contents.beside)
    described = [contents.quantisation for contents in parts if contents.quantisation]
    told = None
    if described:  # each shard describes its own tensors
        tensors = {key: text for one in described for key, text in one["tensors"].items()}
        told = {**described[0], "tensors": tensors}
    return Contents(format, entries, close, beside=beside, files=files, quantisation=told)


def check_no_key(key: str | None) -> None:
    """Refuse a choice where there is none: shards hold one model."""
    if key is not None:
        raise ArgumentValueError(
            "open_weights", "key", "be None for a model in shards, which hold one model", repr(key)
        )


def some(names: list[str], limit: int = 5) -> str:
    """List the first names of many."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def is_file(path: Path) -> bool:
    """Tell whether there is such a file."""
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False
