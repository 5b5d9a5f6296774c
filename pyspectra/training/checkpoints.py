"""Averaging of checkpoints, tensor by tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyspectra._support.arguments import check_flag
from pyspectra._support.progress import check_progress, progress_bar
from pyspectra.edit.files import Checkpoint, check_target, open_checkpoint, write_checkpoint
from pyspectra.errors import FormatError
from pyspectra.training.averaging import Mean
from pyspectra.training.averaging_arguments import check_inputs, check_weights

__all__ = ["AveragedCheckpoint", "average_checkpoints"]


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
    target = check_target("average_checkpoints", out, paths, replace)
    checkpoints = [open_checkpoint(path, "averaged") for path in paths]
    files = [file for checkpoint in checkpoints for file in checkpoint.files]
    target.check_not_input(files)
    newest = checkpoints[_newest(paths)]
    _check_contents(newest, checkpoints)
    mean = Mean(checkpoints, shares)
    with progress_bar(len(newest.tensors), "averaging", progress) as advance:
        write_checkpoint(
            target, newest, mean.values, inputs=files, one_file=True,
            same_memory=mean.same_memory, advance=advance,
        )  # fmt: skip
    n_averaged = sum(t.dtype.is_float for t in newest.tensors.values())
    return AveragedCheckpoint(
        path=os.fspath(target.path),
        checkpoints=tuple(map(str, paths)),
        weights=tuple(shares) if shares else (1 / len(paths),) * len(paths),
        n_averaged=n_averaged,
        n_copied=len(newest.tensors) - n_averaged,
        not_finite=tuple(mean.not_finite),
    )


def _check_contents(newest: Checkpoint, checkpoints: list[Checkpoint]) -> None:
    for checkpoint in checkpoints:
        _check_match(newest, checkpoint)
    if not any(t.dtype.is_float for t in newest.tensors.values()):
        raise FormatError(f"{newest.path}: holds no floating-point tensors to average.")


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
