"""Averaging of checkpoints, tensor by tensor."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyspectra._support.arguments import check_flag, check_path
from pyspectra._support.progress import check_progress, progress_bar
from pyspectra._support.termination import cleaning_up
from pyspectra.errors import FormatError
from pyspectra.training.averaging import Job
from pyspectra.training.averaging_arguments import (
    check_inputs,
    check_not_input,
    check_out,
    check_weights,
    exists_already,
)
from pyspectra.training.checkpoint_files import Checkpoint, open_checkpoint

__all__ = ["AveragedCheckpoint", "average_checkpoints"]

# Configuration, tokenizer and the code of a model: what a folder needs besides its weights.
_COMPANIONS: Final = (".json", ".txt", ".model", ".jinja", ".py", ".vocab", ".bpe", ".tiktoken")
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

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import save_file
    >>> run = Path(tempfile.mkdtemp())
    >>> for step in (1, 2):
    ...     save_file({"w": np.ones(3, np.float32)}, run / f"step_{step}.safetensors")
    >>> done = average_checkpoints(run, run / "mean.safetensors")
    >>> done.weights, done.n_averaged, done.not_finite
    ((0.5, 0.5), 1, ())
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
    overwrite: bool = False,
    progress: bool | str = "auto",
) -> AveragedCheckpoint:
    """Average checkpoints of one model.

    Parameters
    ----------
    paths_or_dir : path or sequence of paths
        The folder of a training run, of which the last checkpoints count; or the checkpoints, two
        or more: ``.safetensors`` files, indices of shards, torch checkpoints, model folders (with
        an index, or with all shards and none).
    out : path
        A ``.safetensors`` or torch file, or a new folder: it gets
        ``model.safetensors`` (of an adapter ``adapter_model.safetensors``) and the configuration
        and tokenizer files of the newest checkpoint. One file, however many shards went in.
    last : int, optional
        How many of the last checkpoints of a folder count: two or more, by default 8, by the
        natural order of their names (``checkpoint-500`` comes before ``checkpoint-1000``). A
        sequence is averaged as a whole.
    weights : sequence of float, optional
        One weight per checkpoint, oldest first or in the order given; none is negative. They are
        divided by their sum.
    overwrite : bool
        Whether `out` may be a file that exists. A file that is read is never replaced, by
        whatever path or link it goes.
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
        If an argument is not as described, `out` is one of the inputs, or exists and `overwrite`
        is False.
    OSError
        If the output cannot be written. Nothing is left half-written.

    Notes
    -----
    Sums are float64, each rounded once, to nearest even, to the tensor's own type. Integer and
    boolean tensors come from the newest checkpoint: the one with the greatest numbers in its name,
    compared from the left, or the last of the sequence if a name has none. Elements that are the
    same in all checkpoints stay as they are. A ``.ckpt`` made from checkpoints of Lightning is one
    too, without states of training, so that ``load_from_checkpoint`` reads it. Memory is that of a
    few megabytes, not of a model; but a torch output is held whole. Checkpoints with weight 0 are
    compared and not read.

    References
    ----------
    Vaswani et al. 2017, section 6.1; Izmailov et al. 2018, arXiv 1803.05407; Wortsman et al.
    2022, arXiv 2203.05482.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from safetensors.numpy import load_file, save_file
    >>> run = Path(tempfile.mkdtemp())
    >>> for step in (1, 2, 6):
    ...     save_file({"w": np.full(3, step, np.float32)}, run / f"step_{step}.safetensors")
    >>> done = average_checkpoints(run, run / "mean.safetensors")
    >>> done.n_averaged, len(done.checkpoints)
    (1, 3)
    >>> load_file(run / "mean.safetensors")["w"]
    array([3., 3., 3.], dtype=float32)
    """
    check_progress("average_checkpoints", progress)
    paths = check_inputs(paths_or_dir, last)
    shares = check_weights(weights, len(paths))
    replace = check_flag("average_checkpoints", "overwrite", overwrite)
    target = check_path("average_checkpoints", "out", out)
    kind = check_out(target, paths, replace)
    checkpoints = [open_checkpoint(path) for path in paths]
    files = [file for checkpoint in checkpoints for file in checkpoint.files]
    check_not_input(target, files)
    newest = checkpoints[_newest(paths)]
    _check_contents(newest, checkpoints, kind)
    job = Job(newest, checkpoints, shares)
    with (
        cleaning_up(),
        _written(target, replace, files) as temporary,
        progress_bar(len(newest.tensors), "averaging", progress) as advance,
    ):
        if kind == "torch":
            job.write_torch(temporary, target.suffix.lower(), advance)
        elif kind == "folder":
            temporary.mkdir()
            job.write_safetensors(temporary / _weights_name(newest), advance)
            _copy_companions(newest.path, temporary)
        else:
            job.write_safetensors(temporary, advance)
    n_averaged = sum(t.dtype.is_float for t in newest.tensors.values())
    return AveragedCheckpoint(
        path=os.fspath(target),
        checkpoints=tuple(map(str, paths)),
        weights=tuple(shares) if shares else (1 / len(paths),) * len(paths),
        n_averaged=n_averaged,
        n_copied=len(newest.tensors) - n_averaged,
        not_finite=tuple(job.not_finite),
    )


@contextlib.contextmanager
def _written(target: Path, overwrite: bool, inputs: list[Path]) -> Iterator[Path]:
    """Yield another name to write to, which becomes `target` if all goes well."""
    real = Path(os.path.realpath(target))
    temporary = real.with_name(f".{real.name[:200]}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        check_not_input(target, inputs)  # again: it may have become a link in the meantime
        if real.is_file():
            if not overwrite:  # somebody has written it in the meantime
                raise exists_already(target)
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


def _check_contents(newest: Checkpoint, checkpoints: list[Checkpoint], kind: str) -> None:
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
    complaint = f"{other.path} does not match {newest.path}"
    for has, lacks in ((newest, other), (other, newest)):
        missing = [key for key in has.tensors if key not in lacks.tensors]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise FormatError(f"{complaint}: tensor {missing[0]!r}{more} is only in {has.path}.")
    for key, a in newest.tensors.items():
        b = other.tensors[key]
        if a.shape != b.shape:
            raise FormatError(
                f"{complaint}: tensor {key!r} has shape {b.shape} instead of {a.shape}."
            )
        if a.dtype != b.dtype:
            raise FormatError(
                f"{complaint}: tensor {key!r} has dtype {b.dtype.code} instead of {a.dtype.code}."
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
