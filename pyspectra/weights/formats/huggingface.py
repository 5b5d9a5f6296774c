"""Hugging Face folders: one weights file, or an index and its shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry, natural_key
from pyspectra.weights.formats._files import check_head, open_binary

__all__ = ["INDEX_SUFFIX", "read_folder", "read_index"]

INDEX_SUFFIX: Final = ".index.json"
STANDARD: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_MAX_INDEX_BYTES: Final = 100_000_000
# Trainers leave these beside the model, with the suffixes of weights files.
_TRAINING_STATE = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state)\b|rng_state_")

Reader = Callable[[Path], Contents]


def read_folder(folder: Path, formats: Mapping[str, Reader]) -> Contents:
    """List the tensors of a model folder.

    Parameters
    ----------
    folder : Path
        Holds one of the standard files, or exactly one file of a supported format.
    formats : Mapping
        Suffix to reader.

    Returns
    -------
    Contents
        As if the model were in one file.

    Raises
    ------
    FormatError
        If there is no weights file, more than one to choose from, or a shard is missing.
    """
    try:
        names = sorted((p.name for p in folder.iterdir() if p.is_file()), key=natural_key)
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read: {error.strerror or error}") from error
    for name in STANDARD:
        if name in names:
            return _open(folder / name, formats)
    found = [
        name
        for name in names
        if Path(name).suffix.lower() in formats and not _TRAINING_STATE.match(name)
    ]
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return _open(folder / indices[0], formats)
    if len(found) == 1:
        return _open(folder / found[0], formats)
    if found:
        raise FormatError(
            f"{folder}: holds {len(found)} weights files and no index: {_some(found)}. "
            "Hint: pass the path of one of them."
        )
    raise FormatError(
        f"{folder}: no weights found. Looked for {', '.join(STANDARD)}, and for a single file "
        f"ending in {', '.join(formats)}; the folder holds {_some(names) or 'no files'}."
    )


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _open(path: Path, formats: Mapping[str, Reader]) -> Contents:
    if path.name.endswith(INDEX_SUFFIX):
        return read_index(path, formats)
    return formats[path.suffix.lower()](path)


def _weight_map(path: Path) -> dict[str, str]:
    check_head(path, "an index of shards")
    with open_binary(path) as file:
        raw = file.read(_MAX_INDEX_BYTES + 1)
    if len(raw) > _MAX_INDEX_BYTES:
        raise FormatError(f"{path}: an index of shards of over {_MAX_INDEX_BYTES} bytes.")
    try:
        index = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not a valid index of shards: {error}") from error
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


def read_index(path: Path, formats: Mapping[str, Reader]) -> Contents:
    """List the tensors of the shards that an index names.

    Parameters
    ----------
    path : Path
        A file such as ``model.safetensors.index.json``.
    formats : Mapping
        Suffix to reader.

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
    weight_map = _weight_map(path)
    shards = sorted(set(weight_map.values()), key=natural_key)
    missing = [shard for shard in shards if not _is_file(path.parent / shard)]
    if missing:
        raise FormatError(
            f"{path}: {len(missing)} of {len(shards)} shards missing: {_some(missing)}."
        )
    opened: list[Contents] = []
    home: dict[str, str] = {}
    for shard in shards:
        reader = formats.get(Path(shard).suffix.lower())
        if reader is None:
            raise FormatError(f"{path}: the shard {shard!r} is of no supported format.")
        contents = reader(path.parent / shard)
        opened.append(contents)
        for entry in contents.entries:
            if entry.key in home:
                raise FormatError(
                    f"{path}: tensor {entry.key!r} is in two shards, {home[entry.key]} and {shard}."
                )
            home[entry.key] = shard
    for key, shard in weight_map.items():
        if home.get(key) != shard:
            raise FormatError(f"{path}: tensor {key!r} is not in {shard}, where the index has it.")
    entries: list[TensorEntry] = [entry for contents in opened for entry in contents.entries]
    format = opened[0].format
    if format == "safetensors":
        # As in a single file. Torch shards split a state dict in its own order, which
        # concatenation in the order of the shards' numbers restores.
        entries.sort(key=lambda entry: natural_key(entry.key))

    def close() -> None:
        for contents in opened:
            contents.close()

    return Contents(format, entries, close)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False
