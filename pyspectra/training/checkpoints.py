"""Averaging of checkpoints, tensor by tensor."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyspectra._support.progress import progress_bar
from pyspectra.errors import FormatError
from pyspectra.training.averaging import Job
from pyspectra.training.checkpoint_files import (
    TORCH_SUFFIXES,
    Checkpoint,
    find_checkpoints,
    open_checkpoint,
)

__all__ = ["AveragedCheckpoint", "average_checkpoints"]

_LAST: Final = 8
# Configuration, tokenizer and the code of a model: what a folder needs besides its weights.
_COMPANIONS: Final = (".json", ".txt", ".model", ".jinja", ".py", ".vocab", ".bpe", ".tiktoken")
# Not that of "llama-1.5b": such a name is for a folder.
_LIKE_A_SUFFIX = re.compile(r"\.[a-z]\w*")
_NOT_COMPANIONS = re.compile(r"trainer_state\.json|.*\.index\.json", re.IGNORECASE)


@dataclass(frozen=True)
class AveragedCheckpoint:
    """What has been averaged.

    Attributes
    ----------
    path : str
        What was written.
    checkpoints : tuple of str
        The inputs, in the order of `weights`.
    weights : tuple of float
        Their shares; the sum is 1.
    n_averaged : int
        Floating-point tensors, averaged.
    n_copied : int
        Integer and boolean tensors, taken from the newest checkpoint.
    not_finite : tuple of str
        Names of averaged tensors that hold a NaN or an infinity.
    """

    path: str
    checkpoints: tuple[str, ...]
    weights: tuple[float, ...]
    n_averaged: int
    n_copied: int
    not_finite: tuple[str, ...]


def average_checkpoints(
    paths_or_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    last: int | None = None,
    weights: Sequence[float] | None = None,
    progress: bool | str = "auto",
) -> AveragedCheckpoint:
    """Average checkpoints of one model.

    Parameters
    ----------
    paths_or_dir : path or sequence of paths
        The folder of a training run, of which the last checkpoints count; or the checkpoints:
        ``.safetensors`` files, indices of shards, torch checkpoints, model folders.
    out : path
        A ``.safetensors`` or torch file, which is replaced, or a new folder: it gets
        ``model.safetensors`` (of an adapter ``adapter_model.safetensors``) and the configuration
        and tokenizer files of the newest checkpoint. One file, however many shards went in.
    last : int, optional
        Of a folder, how many checkpoints (by default 8), by the natural order of their names:
        ``checkpoint-500`` comes before ``checkpoint-1000``. A sequence is averaged as a whole.
    weights : sequence of float, optional
        One per checkpoint, oldest first or in the order given; not negative. Normalised.
    progress : bool or "auto"
        Whether to show a bar on standard error for what takes over two seconds; ``"auto"``: on a
        terminal.

    Returns
    -------
    AveragedCheckpoint
        What was averaged, and the names of tensors that are not finite.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    FormatError
        If a checkpoint is broken, or two do not match in names, shapes or element types.
    TypeError, ValueError
        If an argument is not as described, or `out` is one of the inputs.
    OSError
        If the output cannot be written. Nothing is left half-written.

    Notes
    -----
    Sums are float64, each rounded once, to nearest even, to the tensor's own type. Integer and
    boolean tensors come from the newest checkpoint: the one with the greatest numbers in its name,
    compared from the left, or the last of the sequence if a name has none. Memory is that of a few
    megabytes, not of a model; but a torch output is held whole, as is every torch input in the
    layout before torch 1.6. Checkpoints with weight 0 are compared and not read.

    References
    ----------
    Vaswani et al. 2017, section 6.1; Izmailov et al. 2018, arXiv 1803.05407; Wortsman et al.
    2022, arXiv 2203.05482.
    """
    if progress not in (True, False, "auto"):
        raise ValueError(
            f"average_checkpoints: 'progress' must be True, False or 'auto', got {progress!r}."
        )
    paths = _inputs(paths_or_dir, last)
    shares = _shares(weights, len(paths))
    target = _path(out, "out").expanduser()
    kind = _check_out(target, paths)
    checkpoints = [open_checkpoint(path) for path in paths]
    _check_not_input(target, checkpoints)
    newest = checkpoints[_newest(paths)]
    for checkpoint in checkpoints:
        _check_match(newest, checkpoint)
    if not any(t.dtype.is_float for t in newest.tensors.values()):
        raise FormatError(f"{newest.path}: holds no floating-point tensors to average.")
    if kind != "torch" and newest.extras:
        name = next(iter(newest.extras))
        raise FormatError(
            f"{newest.path}: {name!r} is not a tensor, and has no place in a safetensors file. "
            "Hint: give 'out' the suffix .pt."
        )

    real = Path(os.path.realpath(target))
    temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(8)}.tmp")
    job = Job(newest, checkpoints, shares)
    try:
        with progress_bar(len(newest.tensors), "averaging", progress) as advance:
            if kind == "torch":
                job.write_torch(temporary, advance)
            elif kind == "folder":
                temporary.mkdir()
                job.write_safetensors(temporary / _weights_name(newest), advance)
                _copy_companions(newest.path, temporary)
            else:
                job.write_safetensors(temporary, advance)
        if real.is_file():
            shutil.copymode(real, temporary)  # a private file stays private
        os.replace(temporary, real)
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
            # The caller knows `out`, not the name that it has while it is written.
            raise type(error)(error.errno, error.strerror, os.fspath(target)) from error
        raise
    n_averaged = sum(t.dtype.is_float for t in newest.tensors.values())
    return AveragedCheckpoint(
        path=os.fspath(target),
        checkpoints=tuple(map(str, paths)),
        weights=tuple(shares) if shares else (1 / len(paths),) * len(paths),
        n_averaged=n_averaged,
        n_copied=len(newest.tensors) - n_averaged,
        not_finite=tuple(job.not_finite),
    )


# --- arguments ----------------------------------------------------------------------------------


def _path(x: Any, argument: str) -> Path:
    text = os.fspath(x) if isinstance(x, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(
            f"average_checkpoints: {argument!r} must be a path, got an object of type "
            f"{type(x).__name__}."
        )
    if not text or "\0" in text:
        raise ValueError(f"average_checkpoints: {argument!r} must be a path, got {text!r}.")
    return Path(text)


def _inputs(paths_or_dir: Any, last: int | None) -> list[Path]:
    if last is not None and type(last) is not int:
        raise TypeError(
            "average_checkpoints: 'last' must be an integer, got an object of type "
            f"{type(last).__name__}."
        )
    if last is not None and last < 1:
        raise ValueError(f"average_checkpoints: 'last' must be at least 1, got {last}.")
    if isinstance(paths_or_dir, (str, os.PathLike)):
        folder = _path(paths_or_dir, "paths_or_dir").expanduser()
        _check_exists(folder)
        if not folder.is_dir():
            raise ValueError(
                "average_checkpoints: 'paths_or_dir' must be a folder of checkpoints or several "
                f"paths, got the one file {str(folder)!r}."
            )
        return find_checkpoints(folder)[-(_LAST if last is None else last) :]
    if not isinstance(paths_or_dir, Sequence) or isinstance(paths_or_dir, bytes):
        raise TypeError(
            "average_checkpoints: 'paths_or_dir' must be a folder or a sequence of paths, got an "
            f"object of type {type(paths_or_dir).__name__}."
        )
    if last is not None:
        raise ValueError(
            f"average_checkpoints: 'last' must come with one folder of checkpoints, got {last} "
            f"with {len(paths_or_dir)} paths."
        )
    paths = [_path(path, "paths_or_dir").expanduser() for path in paths_or_dir]
    if not paths:
        raise ValueError("average_checkpoints: 'paths_or_dir' must name checkpoints, got none.")
    seen: set[str] = set()
    for path in paths:
        _check_exists(path)
        real = os.path.realpath(path)
        if real in seen:
            raise ValueError(
                f"average_checkpoints: 'paths_or_dir' names {str(path)!r} twice. Hint: a "
                "greater weight (weights=, --weights) counts a checkpoint for more."
            )
        seen.add(real)
    return paths


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"average_checkpoints: 'paths_or_dir' must exist, got {str(path)!r}."
        )


def _shares(weights: Sequence[float] | None, count: int) -> list[float] | None:
    if weights is None:
        return None
    try:
        values = [float(w) for w in weights]
    except (TypeError, ValueError) as error:
        raise TypeError("average_checkpoints: 'weights' must be a sequence of numbers.") from error
    if len(values) != count:
        raise ValueError(
            f"average_checkpoints: 'weights' must have one number for each of the {count} "
            f"checkpoints, got {len(values)}."
        )
    if not all(math.isfinite(w) and w >= 0 for w in values):
        raise ValueError(
            f"average_checkpoints: 'weights' must be finite and not negative, got {values}."
        )
    largest = max(values)
    if largest == 0:
        raise ValueError("average_checkpoints: 'weights' must not all be 0.")
    values = [w / largest for w in values]  # so that the sum cannot overflow
    total = math.fsum(values)
    return [w / total for w in values]


def _check_out(target: Path, paths: list[Path]) -> str:
    suffix = target.suffix.lower()
    kinds = {".safetensors": "safetensors", **dict.fromkeys(TORCH_SUFFIXES, "torch")}
    kind = kinds.get(suffix, "folder")
    start = f"average_checkpoints: 'out' must be a file or a new folder, got {str(target)!r}"
    for path in paths:
        if target.exists() and os.path.samefile(path, target):
            raise ValueError(f"average_checkpoints: 'out' {str(target)!r} is one of the inputs.")
    if kind == "folder" and os.path.lexists(target):
        empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
        if not empty:
            raise ValueError(f"{start}, which exists.")
    elif kind == "folder" and _LIKE_A_SUFFIX.fullmatch(suffix):
        raise ValueError(
            f"{start}, whose suffix is none of {', '.join(kinds)}. Hint: if that is to be a "
            "folder, make it first."
        )
    elif target.exists() and not target.is_file():
        raise ValueError(f"{start}, which is not a file.")
    parent = Path(os.path.realpath(target)).parent
    if not parent.is_dir():
        raise ValueError(f"{start}, but there is no folder {str(parent)!r}.")
    return kind


def _check_not_input(target: Path, checkpoints: list[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        for file in checkpoint.files:
            if target.exists() and os.path.samefile(file, target):
                raise ValueError(
                    f"average_checkpoints: 'out' {str(target)!r} is one of the inputs."
                )


def _newest(paths: list[Path]) -> int:
    steps = [re.findall(r"\d+", path.stem if path.is_file() else path.name) for path in paths]
    if not all(steps):
        return len(paths) - 1
    # All numbers, as in the order of a folder: the last one may be a loss. Digits as text, by
    # length and then by value: Python refuses to convert very long ones.
    digits = [[number.lstrip("0") for number in found] for found in steps]
    keys = [([(len(d), d) for d in found], i) for i, found in enumerate(digits)]
    return max(keys)[1]


def _check_match(newest: Checkpoint, other: Checkpoint) -> None:
    where = f"{other.path} does not match {newest.path}"
    for has, lacks in ((newest, other), (other, newest)):
        missing = [key for key in has.tensors if key not in lacks.tensors]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise FormatError(f"{where}: tensor {missing[0]!r}{more} is only in {has.path}.")
    for key, a in newest.tensors.items():
        b = other.tensors[key]
        if a.shape != b.shape:
            raise FormatError(f"{where}: tensor {key!r} has shape {b.shape} instead of {a.shape}.")
        if a.dtype != b.dtype:
            raise FormatError(
                f"{where}: tensor {key!r} has dtype {b.dtype.code} instead of {a.dtype.code}."
            )


# --- folders ------------------------------------------------------------------------------------


def _weights_name(newest: Checkpoint) -> str:
    adapter = newest.files[0].name.startswith("adapter_model")
    return "adapter_model.safetensors" if adapter else "model.safetensors"


def _copy_companions(source: Path, folder: Path) -> None:
    """Copy the small files of a model folder, and of its subfolders that hold no weights."""
    if not source.is_dir():
        return
    for path in source.iterdir():
        if path.is_dir():
            inside = [p for p in path.iterdir() if p.is_file()]
            if inside and all(p.suffix.lower() in _COMPANIONS for p in inside):
                (folder / path.name).mkdir()
                for p in inside:
                    shutil.copyfile(p, folder / path.name / p.name)
        elif path.suffix.lower() in _COMPANIONS and not _NOT_COMPANIONS.fullmatch(path.name):
            shutil.copyfile(path, folder / path.name)
