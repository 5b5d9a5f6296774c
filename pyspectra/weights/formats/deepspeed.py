"""Checkpoints of DeepSpeed: ``latest`` names the step, whose folder has a file for each rank.

Without ZeRO, and in its stages 1 and 2, the model states are whole. Stage 3 cuts every parameter in
pieces, which DeepSpeed's own script puts together.

References
----------
https://deepspeed.readthedocs.io/en/latest/model-checkpointing.html
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats.model_parallel import MEGATRON, check_no_key, joined
from pyspectra.weights.formats.registry import Folder, read_file
from pyspectra.weights.order import natural_key

__all__ = ["FOLDER", "read"]

_LATEST: Final = "latest"
_MODEL: Final = re.compile(r"mp_rank_(\d{2,3})_model_states\.pt")
_PIECE: Final = re.compile(r"(?:bf16_)?zero_pp_rank_\d+_mp_rank_\d+_(?:model|optim)_states\.pt")
_STEP: Final = re.compile(r"[\w.=+-]{1,100}")


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
    return sorted(found, key=lambda path: natural_key(path.name))


def read(folder: Path, *, key: str | None = None) -> Contents:
    """List the tensors of the latest step, or of the one whose folder this is.

    Parameters
    ----------
    folder : Path
        The root of a run, or the folder of a step.
    key : str, optional
        Which part of the file, of a model in one piece.

    Raises
    ------
    FormatError
        If the step is not there, or was saved by stage 3 of ZeRO.
    """
    step, root = folder, folder
    if not _holds_states(folder):
        step = _latest(folder)
    elif (folder.parent / _LATEST).is_file():
        root = folder.parent
    paths = _files(step, _MODEL)
    if not paths:
        raise FormatError(
            f"{step}: stage 3 of ZeRO cut the parameters in the pieces of its ranks. Hint: run "
            f"`python zero_to_fp32.py . weights --safe_serialization` in {root}, where DeepSpeed "
            "left that script, and pass the folder that it writes."
        )
    if len(paths) == 1:
        contents = read_file(paths[0], key)
    else:
        check_no_key(key)
        contents = joined(step, [read_file(path) for path in paths], MEGATRON)
    pieces = tuple(path.absolute() for path in _files(step, _PIECE))
    return replace(contents, files=(*contents.files, *pieces))


def _latest(folder: Path) -> Path:
    text = (folder / _LATEST).read_bytes()[:128].decode("utf-8", "replace").strip()
    if _STEP.fullmatch(text) is None or text in (".", ".."):
        raise FormatError(f"{folder}: {_LATEST!r} names no step: {text[:40]!r}.")
    if not (folder / text).is_dir():
        raise FormatError(f"{folder}: {_LATEST!r} names {text}, which is not there.")
    return folder / text


def _holds_states(folder: Path) -> bool:
    return bool(_files(folder, _MODEL) or _files(folder, _PIECE))


def _recognises(folder: Path) -> bool:
    if _holds_states(folder):
        return True
    if not (folder / _LATEST).is_file() or huggingface_weights(folder):
        return False
    steps = (path for path in folder.iterdir() if path.is_dir())
    return any(_holds_states(step) for step in steps)


def huggingface_weights(folder: Path) -> bool:
    """Tell whether a trainer left the whole model beside the pieces."""
    names = ("model*.safetensors*", "pytorch_model*.bin*", "adapter_model*")
    return any(any(folder.glob(name)) for name in names)


FOLDER = Folder("deepspeed", _recognises, read)
