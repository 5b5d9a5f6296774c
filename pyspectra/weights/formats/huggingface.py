"""Hugging Face folders: one weights file, or an index and its shards; adapters too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats.adapters import ADAPTER_CONFIG, lora_scale
from pyspectra.weights.formats.indices import (
    INDEX_SUFFIX,
    check_no_key,
    is_file,
    read_index,
    some,
    together,
)
from pyspectra.weights.formats.registry import read_file, suffixes
from pyspectra.weights.formats.ways import way_of_folder
from pyspectra.weights.order import natural_key
from pyspectra.weights.skip import Skip

__all__ = ["holds_weights", "read_folder", "weights_files"]

STANDARD: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
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


def _one_format(names: list[str]) -> list[str]:
    """Leave out copies of safetensors files in another format."""
    safe = {Path(name).stem for name in names if name.endswith(".safetensors")}
    kept = [n for n in names if n.endswith(".safetensors") or Path(n).stem not in safe]
    # The shards and the names of the two formats differ, as in model and pytorch_model.
    variants = {_variant(name) for name in names if name.endswith(".safetensors")}
    return [n for n in kept if n.endswith(".safetensors") or _variant(n) not in variants]


def _variant(name: str) -> str:
    """Return what tells a file of weights from others of its model, such as ``fp16``."""
    return Path(name).stem.removeprefix("pytorch_model").removeprefix("model")


def _belongs(name: str) -> bool:
    """Tell whether a file of a model folder is a part of the model, although it is not read."""
    return (
        name in STANDARD or name.endswith(INDEX_SUFFIX) or _OF_A_MODEL.fullmatch(name) is not None
    )


def _weights_of_folders(folders: list[Path]) -> Iterator[TensorEntry]:
    """List the standard files in the sub-folders of a model, which are not opened."""
    for folder in folders:
        name = next((name for name in STANDARD if is_file(folder / name)), None)
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
    found = _one_format(_candidates(names, formats))
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return indices
    if found and all(_SHARD.fullmatch(name) for name in found):
        return _complete_shards(folder, found)
    if len(found) == 1:
        return found
    if found:
        raise FormatError(
            f"{folder}: holds {len(found)} weights files and no index: {some(found)}. "
            "Hint: pass the path of one of them."
        )
    checkpoints = [p.name for p in folders if _CHECKPOINT.fullmatch(p.name)]
    if checkpoints:
        raise FormatError(
            f"{folder}: holds no weights itself, but the checkpoints of a training run: "
            f"{some(checkpoints)}. Hint: pass the path of one of them, or average them."
        )
    way = next(filter(None, map(way_of_folder, (folder, *folders))), None)
    if way is not None:
        raise FormatError(f"{folder}: {way.what}, which is not read. Hint: {way.hint}")
    inside = names + [f"{p.name}/" for p in folders]
    raise FormatError(
        f"{folder}: no weights found. Looked for {', '.join(STANDARD)}, and for a single file "
        f"ending in {', '.join(formats)}; the folder holds {some(inside) or 'no files'}."
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
            f"{folder}: holds the shards of {len(families)} models and no index: {some(found)}. "
            "Hint: pass the path of one of them."
        )
    (((_, count, _), shards),) = families.items()
    if len(shards) != len(found) or not set(shards) <= set(range(1, count + 1)):
        raise FormatError(f"{folder}: holds shards whose numbers make no sense: {some(found)}.")
    if len(shards) < count:
        missing = next(number for number in range(1, count + 1) if number not in shards)
        raise FormatError(
            f"{folder}: {count - len(shards)} of {count} shards missing, the first of them number "
            f"{missing}; there is no index, and the folder holds {some(found)}. Hint: download "
            "the others, or pass the path of one shard to analyse what is in it."
        )
    return found


def _open(folder: Path, names: list[str], key: str | None) -> Contents:
    if len(names) > 1:
        check_no_key(key)
        return together(folder, {name: read_file(folder / name) for name in names})
    if names[0].endswith(INDEX_SUFFIX):
        return read_index(folder / names[0], key)
    return read_file(folder / names[0], key)
