"""Checkpoints of Megatron-LM: ``iter_0000100/mp_rank_00/model_optim_rng.pt`` and its like."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats import huggingface
from pyspectra.weights.formats.model_parallel import MEGATRON, check_no_key, joined
from pyspectra.weights.formats.registry import Folder, folder_of, read_file
from pyspectra.weights.order import natural_key

__all__ = ["FOLDER", "read"]

_LATEST: Final = "latest_checkpointed_iteration.txt"
_RANK: Final = re.compile(r"mp_rank_(\d{2,3})(?:_(\d{3}))?(?:_\d{3})?")
_FILES: Final = ("model_optim_rng.pt", "model_rng.pt")


def _rank_folders(folder: Path) -> list[Path]:
    found = [path for path in folder.iterdir() if path.is_dir() and _RANK.fullmatch(path.name)]
    return sorted(found, key=lambda path: natural_key(path.name))


def read(folder: Path, *, key: str | None = None) -> Contents:
    """List the tensors of the latest iteration, or of the one whose folder this is.

    Parameters
    ----------
    folder : Path
        The root of a run, or the folder of an iteration.
    key : str, optional
        Which part of the file, of a model in one piece.

    Raises
    ------
    FormatError
        If the latest iteration is not there, a rank is missing, or stages of a pipeline would have
        to be put together.
    """
    if not (folder / _LATEST).is_file():
        return _read_iteration(folder, key)
    iteration = _latest(folder)
    kind = folder_of(iteration)  # a folder of ranks, or of torch.distributed
    read_it = huggingface.read_folder if kind is None else kind.read
    contents = read_it(iteration, key=key)
    return replace(contents, files=(*contents.files, (folder / _LATEST).absolute()))


def _latest(folder: Path) -> Path:
    text = (folder / _LATEST).read_bytes()[:64].decode("utf-8", "replace").strip()
    if re.fullmatch(r"release|\d{1,9}", text) is None:
        raise FormatError(f"{folder}: {_LATEST} names no iteration: {text[:40]!r}.")
    name = text if text == "release" else f"iter_{int(text):07}"
    if not (folder / name).is_dir():
        raise FormatError(f"{folder}: {_LATEST} names {name}, which is not there.")
    return folder / name


def _read_iteration(folder: Path, key: str | None) -> Contents:
    ranks = _rank_folders(folder)
    matches = [match for path in ranks if (match := _RANK.fullmatch(path.name)) is not None]
    stages = {match[2] for match in matches if match[2] is not None}
    if len(stages) > 1 or len({match[1] for match in matches}) != len(matches):
        raise FormatError(
            f"{folder}: holds {len(ranks)} ranks of a pipeline, whose stages number their layers "
            "from 0 each. Hint: convert it to one rank with Megatron-LM's tools/checkpoint/"
            "convert.py (--target-tensor-parallel-size 1 --target-pipeline-parallel-size 1)."
        )
    numbers = [int(match[1]) for match in matches]
    if numbers != list(range(len(numbers))):
        raise FormatError(f"{folder}: ranks are missing; there are {numbers[:8]}.")
    paths = [_file(path) for path in ranks]
    if len(paths) == 1:
        return read_file(paths[0], key)
    check_no_key(key)
    return joined(folder, [read_file(path) for path in paths], MEGATRON)


def _file(rank: Path) -> Path:
    path = next((rank / name for name in _FILES if (rank / name).is_file()), None)
    if path is None:
        raise FormatError(f"{rank}: holds none of {', '.join(_FILES)}.")
    return path


def _recognises(folder: Path) -> bool:
    return (folder / _LATEST).is_file() or bool(_rank_folders(folder))


FOLDER = Folder("megatron", _recognises, read)
