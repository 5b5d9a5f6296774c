"""What `average_checkpoints` is given: what is averaged, and by which weights."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pyspectra._support.arguments import check_count, check_number, check_path
from pyspectra.edit.files import SUFFIXES
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, MissingPathError
from pyspectra.weights.run_folder import find_checkpoints

__all__ = ["check_inputs", "check_weights"]

_FUNCTION: Final = "average_checkpoints"
_LAST: Final = 8


def check_inputs(paths_or_dir: Any, last: Any) -> list[Path]:
    """Return the paths of two or more checkpoints: the last of a folder, or those given.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError, MissingPathError
        If there are fewer, or one does not exist or is named twice.
    FormatError
        If a folder holds no numbered checkpoints.
    """
    count = None if last is None else check_count(_FUNCTION, "last", last, least=2)
    if isinstance(paths_or_dir, str | os.PathLike):
        return _of_folder(check_path(_FUNCTION, "paths_or_dir", paths_or_dir), count or _LAST)
    if not isinstance(paths_or_dir, Sequence) or isinstance(paths_or_dir, bytes):
        got = f"an object of type {type(paths_or_dir).__name__}"
        requirement = "be a folder or a sequence of paths"
        raise ArgumentTypeError(_FUNCTION, "paths_or_dir", requirement, got)
    if count is not None:
        got = f"{count} with {len(paths_or_dir)} paths"
        raise ArgumentValueError(_FUNCTION, "last", "come with one folder of checkpoints", got)
    paths = [check_path(_FUNCTION, "paths_or_dir", path) for path in paths_or_dir]
    if not paths:
        raise ArgumentValueError(_FUNCTION, "paths_or_dir", "name checkpoints", "none")
    for i, path in enumerate(paths):
        _check_exists(path)
        if any(os.path.samefile(path, other) for other in paths[:i]):
            hint = "a greater weight (weights=, --weights) counts a checkpoint for more"
            got = f"{str(path)!r} twice"
            raise ArgumentValueError(
                _FUNCTION, "paths_or_dir", "name each checkpoint once", got, hint
            )
    if len(paths) == 1:
        raise _single(repr(str(paths[0])))
    return paths


def _of_folder(folder: Path, last: int) -> list[Path]:
    _check_exists(folder)
    if not folder.is_dir():
        requirement = "be a folder of checkpoints or several paths"
        got = f"the one file {str(folder)!r}"
        raise ArgumentValueError(_FUNCTION, "paths_or_dir", requirement, got)
    found = find_checkpoints(folder, SUFFIXES)
    if len(found) == 1:
        raise _single(f"{str(folder)!r}, which holds one ({found[0].name})")
    return found[-last:]


def _single(got: str) -> ArgumentValueError:
    hint = "the mean of one checkpoint is that checkpoint; copy it instead"
    return ArgumentValueError(_FUNCTION, "paths_or_dir", "name two checkpoints or more", got, hint)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise MissingPathError(_FUNCTION, "paths_or_dir", "exist", repr(str(path)))


def check_weights(weights: Any, count: int) -> list[float] | None:
    """Return the shares of the checkpoints, whose sum is 1; None for equal ones.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is not one weight for each, or a weight is negative or not finite, or all are 0.
    """
    if weights is None:
        return None
    try:
        given = list(weights)
    except TypeError as error:
        got = f"an object of type {type(weights).__name__}"
        raise ArgumentTypeError(_FUNCTION, "weights", "be a sequence of numbers", got) from error
    values = [check_number(_FUNCTION, "weights", weight, least=0.0) for weight in given]
    if len(values) != count:
        requirement = f"have one number for each of the {count} checkpoints"
        raise ArgumentValueError(_FUNCTION, "weights", requirement, str(len(values)))
    largest = max(values)
    if largest == 0:
        raise ArgumentValueError(_FUNCTION, "weights", "not all be 0", repr(values))
    values = [w / largest for w in values]  # so that the sum cannot overflow
    total = math.fsum(values)
    return [w / total for w in values]
