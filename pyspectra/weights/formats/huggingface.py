"""Hugging Face folders: one weights file, or an index and its shards; adapters too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from pyspectra.errors import ArgumentValueError, FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats._files import read_json
from pyspectra.weights.formats.adapters import ADAPTER_CONFIG, lora_scale
from pyspectra.weights.formats.registry import format_of, read_file, suffixes
from pyspectra.weights.order import natural_key
from pyspectra.weights.skip import Skip

__all__ = [
    "INDEX_SUFFIX",
    "Index",
    "check_apart",
    "holds_weights",
    "open_index",
    "read_folder",
    "read_index",
    "weights_files",
]

INDEX_SUFFIX: Final = ".index.json"
STANDARD: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
# Trainers leave these beside the model, with the suffixes of weights files.
_TRAINING_STATE = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state)\b|rng_state_")

# A folder that a trainer saves in the course of a run: not a part of the model beside it.
_CHECKPOINT = re.compile(r"(?:checkpoint|global_step|epoch|step)[-_=]?\d+", re.IGNORECASE)
# Configuration, tokenizer and code of a model; not what people write beside it (report.json).
_OF_A_MODEL = re.compile(
    r".*config\.json|tokenizer.*|(?:vocab|special_tokens_map|added_tokens|modules|model_index"
    r"|trainer_state)\.json|(?:vocab|merges)\.txt|.*\.(?:py|jinja|tiktoken|spm|model)",
    re.IGNORECASE,
)
_SHARD = re.compile(r"(.+)-(\d{1,9})-of-(\d{1,9})(\.\w+)")


def read_folder(folder: Path, key: str | None = None) -> Contents:
    """List the tensors of a model folder.

    Parameters
    ----------
    folder : Path
        Holds one of the standard files, or exactly one file of a supported format, or the shards
        of one model.
    key : str, optional
        Which of several models in the one file.

    Returns
    -------
    Contents
        The tensors, as if the model were in one file. LoRA pairs are scaled as
        ``adapter_config.json`` says. Weights of sub-folders, where Sentence-Transformers keeps
        further layers, come last and are not analysed.

    Raises
    ------
    FormatError
        If there is no weights file, more than one to choose from, a shard is missing, or the
        adapter's configuration is invalid.
    """
    names, folders = _inside(folder)
    contents = _open(folder, _choose(folder, names, folders, suffixes()), key)
    # A folder without LoRA need not have a configuration of it that is valid.
    if ADAPTER_CONFIG in names and any("lora_" in entry.key for entry in contents.entries):
        contents = replace(contents, lora_scale=lora_scale(folder / ADAPTER_CONFIG))
    beside = list(_weights_of_folders(folders))
    kept = [folder.absolute() / name for name in names if _belongs(name)]
    kept += [folder.absolute() / entry.key for entry in beside]
    return replace(contents, entries=[*contents.entries, *beside], files=(*contents.files, *kept))


def weights_files(folder: Path, formats: tuple[str, ...]) -> list[str]:
    """Find the files of a folder that hold its model.

    Parameters
    ----------
    folder : Path
        As for `read_folder`.
    formats : tuple of str
        Suffixes of the files that the caller reads.

    Returns
    -------
    list of str
        One name: of a file, or of an index; or the names of all shards, if there is no index.

    Raises
    ------
    FormatError
        If there is none, more than one to choose from, or a shard is missing.
    """
    return _choose(folder, *_inside(folder), formats)


def holds_weights(folder: Path, formats: tuple[str, ...]) -> bool:
    """Tell whether a folder holds the files of one model, be they complete or not."""
    names, _ = _inside(folder)
    if any(name in STANDARD or name.endswith(INDEX_SUFFIX) for name in names):
        return True
    found = _candidates(names, formats)
    return len(found) == 1 or any(_SHARD.fullmatch(name) for name in found)


def _inside(folder: Path) -> tuple[list[str], list[Path]]:
    """List the names of the files in a folder, and the folders."""
    try:
        found = sorted(folder.iterdir(), key=lambda p: natural_key(p.name))
        names = [p.name for p in found if p.is_file()]
        return names, [p for p in found if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _candidates(names: list[str], formats: tuple[str, ...]) -> list[str]:
    suffixed = (name for name in names if Path(name).suffix.lower() in formats)
    return [name for name in suffixed if not _TRAINING_STATE.match(name)]


def _belongs(name: str) -> bool:
    """Tell whether a file of a model folder is a part of the model, although it is not read."""
    return (
        name in STANDARD or name.endswith(INDEX_SUFFIX) or _OF_A_MODEL.fullmatch(name) is not None
    )


def _weights_of_folders(folders: list[Path]) -> Iterator[TensorEntry]:
    """List the standard files in the sub-folders of a model, which are not opened."""
    for folder in folders:
        name = next((name for name in STANDARD if _is_file(folder / name)), None)
        if name is not None and not _CHECKPOINT.fullmatch(folder.name):
            skip = Skip("folder", {"path": f"{folder.name}/"})
            yield TensorEntry(f"{folder.name}/{name}", None, "none", None, problem=skip)


def _choose(
    folder: Path, names: list[str], folders: list[Path], formats: tuple[str, ...]
) -> list[str]:
    """Return the names of the files that hold the model: one, or its shards."""
    for name in STANDARD:
        if name in names:
            return [name]
    found = _candidates(names, formats)
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return indices
    if found and all(_SHARD.fullmatch(name) for name in found):
        return _complete_shards(folder, found)
    if len(found) == 1:
        return found
    if found:
        raise FormatError(
            f"{folder}: holds {len(found)} weights files and no index: {_some(found)}. "
            "Hint: pass the path of one of them."
        )
    checkpoints = [p.name for p in folders if _CHECKPOINT.fullmatch(p.name)]
    if checkpoints:
        raise FormatError(
            f"{folder}: holds no weights itself, but the checkpoints of a training run: "
            f"{_some(checkpoints)}. Hint: pass the path of one of them, or average them."
        )
    inside = names + [f"{p.name}/" for p in folders]
    raise FormatError(
        f"{folder}: no weights found. Looked for {', '.join(STANDARD)}, and for a single file "
        f"ending in {', '.join(formats)}; the folder holds {_some(inside) or 'no files'}."
    )


def _complete_shards(folder: Path, found: list[str]) -> list[str]:
    """Check that files named like shards are all those of one model."""
    families: dict[tuple[str, int, str], dict[int, str]] = {}
    for name in found:
        match = _SHARD.fullmatch(name)
        assert match is not None
        stem, number, count, suffix = match.groups()
        families.setdefault((stem, int(count), suffix), {})[int(number)] = name
    if len(families) > 1:
        raise FormatError(
            f"{folder}: holds the shards of {len(families)} models and no index: {_some(found)}. "
            "Hint: pass the path of one of them."
        )
    (((_, count, _), shards),) = families.items()
    if len(shards) != len(found) or not set(shards) <= set(range(1, count + 1)):
        raise FormatError(f"{folder}: holds shards whose numbers make no sense: {_some(found)}.")
    if len(shards) < count:
        missing = next(number for number in range(1, count + 1) if number not in shards)
        raise FormatError(
            f"{folder}: {count - len(shards)} of {count} shards missing, the first of them number "
            f"{missing}; there is no index, and the folder holds {_some(found)}. Hint: download "
            "the others, or pass the path of one shard to analyse what is in it."
        )
    return found


def _open(folder: Path, names: list[str], key: str | None) -> Contents:
    if len(names) > 1:
        _check_no_key(key)
        return _together(folder, {name: read_file(folder / name) for name in names})
    if names[0].endswith(INDEX_SUFFIX):
        return read_index(folder / names[0], key)
    return read_file(folder / names[0], key)


def _check_no_key(key: str | None) -> None:
    if key is not None:
        raise ArgumentValueError(
            "open_weights", "key", "be None for a model in shards, which hold one model", repr(key)
        )


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


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
    _check_no_key(key)
    index = open_index(path)
    opened = {shard: read_file(path.parent / shard) for shard in index.shards}
    contents = _together(path, opened)
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
    missing = [shard for shard in shards if not _is_file(path.parent / shard)]
    if missing:
        raise FormatError(
            f"{path}: {len(missing)} of {len(shards)} shards missing: {_some(missing)}."
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


def _together(path: Path, opened: Mapping[str, Contents]) -> Contents:
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
    return Contents(format, entries, close, beside=beside, files=files)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the system allows
        return False
