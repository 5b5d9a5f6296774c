"""Hugging Face folders: one weights file, or an index and its shards; adapters too."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry, natural_key
from pyspectra.weights.formats._files import check_head, open_binary
from pyspectra.weights.lora import LoraScale

__all__ = ["INDEX_SUFFIX", "read_folder", "read_index"]

INDEX_SUFFIX: Final = ".index.json"
STANDARD: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
ADAPTER_CONFIG: Final = "adapter_config.json"
_MAX_JSON_BYTES: Final = 100_000_000
# Trainers leave these beside the model, with the suffixes of weights files.
_TRAINING_STATE = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state)\b|rng_state_")
# The regular expressions come from a file that may be hostile: matching what repeats a group, or
# strings together many repeats or alternatives, could take for ever.
_SAFE_PATTERN = re.compile(r"\^?(?:[\w\-|()]|(?:\\d|\[0-9\]|\\?\.)[+*]?)*\$?", re.ASCII)
_MAX_PATTERN: Final = 1000
_MAX_REPEATS: Final = 2
_MAX_ALTERNATIVES: Final = 8

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
        As if the model were in one file. LoRA pairs are scaled as ``adapter_config.json`` says.

    Raises
    ------
    FormatError
        If there is no weights file, more than one to choose from, a shard is missing, or the
        adapter's configuration is invalid.
    """
    try:
        names = sorted((p.name for p in folder.iterdir() if p.is_file()), key=natural_key)
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read: {error.strerror or error}") from error
    contents = _open(_choose(folder, names, formats), formats)
    # A folder without LoRA need not have a configuration of it that is valid.
    if ADAPTER_CONFIG in names and any("lora_" in entry.key for entry in contents.entries):
        return replace(contents, lora_scale=_lora_scale(folder / ADAPTER_CONFIG))
    return contents


def _choose(folder: Path, names: list[str], formats: Mapping[str, Reader]) -> Path:
    for name in STANDARD:
        if name in names:
            return folder / name
    found = [
        name
        for name in names
        if Path(name).suffix.lower() in formats and not _TRAINING_STATE.match(name)
    ]
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return folder / indices[0]
    if len(found) == 1:
        return folder / found[0]
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


def _read_json(path: Path, expected: str) -> Any:
    check_head(path, expected)
    with open_binary(path) as file:
        raw = file.read(_MAX_JSON_BYTES + 1)
    if len(raw) > _MAX_JSON_BYTES:
        raise FormatError(f"{path}: not {expected}: over {_MAX_JSON_BYTES} bytes.")
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not {expected}: {error}") from error


def _lora_scale(path: Path) -> LoraScale | None:
    """Read the scale of LoRA pairs from PEFT's configuration; None if it tells no alpha."""
    expected = "a valid adapter configuration"
    config = _read_json(path, expected)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: not {expected}: not a JSON object.")
    stabilised, patterns = config.get("use_rslora"), config.get("alpha_pattern")
    if not isinstance(stabilised, (bool, type(None))):
        raise FormatError(f"{path}: not {expected}: 'use_rslora' is {_short(stabilised)}.")
    if not isinstance(patterns, (dict, type(None))):
        raise FormatError(f"{path}: not {expected}: 'alpha_pattern' is {_short(patterns)}.")
    for pattern in patterns or {}:
        if not _is_safe_pattern(pattern):
            raise FormatError(
                f"{path}: 'alpha_pattern' has {_short(pattern)}, which is invalid or too intricate "
                "a regular expression to be matched safely. Hint: pass the path of the weights "
                "file instead of the folder's; the update is then not scaled."
            )
    if "lora_alpha" not in config:  # PEFT always writes it
        return None
    return LoraScale(
        _number(path, "lora_alpha", config["lora_alpha"]),
        bool(stabilised),
        {p: _number(path, "alpha_pattern", alpha) for p, alpha in (patterns or {}).items()},
    )


def _number(path: Path, name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise FormatError(
        f"{path}: not a valid adapter configuration: {name!r} must be a finite number, "
        f"got {_short(value)}."
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:80]


def _is_safe_pattern(pattern: str) -> bool:
    if len(pattern) > _MAX_PATTERN or not _SAFE_PATTERN.fullmatch(pattern):
        return False
    if pattern.count("+") + pattern.count("*") > _MAX_REPEATS:
        return False
    if pattern.count("|") >= _MAX_ALTERNATIVES:
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError):
        return False
    return True


def _weight_map(path: Path) -> dict[str, str]:
    index = _read_json(path, "a valid index of shards")
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
