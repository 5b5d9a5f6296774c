"""The folder of a training run: which of its files and folders are checkpoints, in what order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from pyspectra.errors import FormatError
from pyspectra.weights.formats import huggingface
from pyspectra.weights.order import natural_key

__all__ = ["find_checkpoints", "in_natural_order", "steps_of"]

# Trainers leave these beside the model, with the suffixes of weights files.
_TRAINING_STATE = re.compile(r"optim|sched|scaler|rng_state|training_args|tmp-|\.", re.IGNORECASE)
_SHARD = re.compile(r"-\d+-of-\d+\.\w+$")
_NUMBER = re.compile(r"\d+")


def find_checkpoints(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the numbered checkpoints of a training run, oldest first.

    Parameters
    ----------
    folder : Path
        Holds ``checkpoint-500/``, ``step_500.safetensors``, ``epoch=3-step=500.ckpt`` or the like:
        files and folders whose names differ in their numbers alone.
    suffixes : tuple of str
        Those of the files that count.

    Returns
    -------
    list of Path
        The checkpoints, in the natural order of their names.

    Raises
    ------
    FormatError
        If there is none, or there are two kinds to choose from.
    """
    families: dict[str, list[Path]] = {}
    try:
        found = list(folder.iterdir())
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read: {error.strerror or error}") from error
    for path in found:
        if not re.search(r"\d", path.stem) or _TRAINING_STATE.match(path.name):
            continue
        if path.is_dir():
            # An interrupted save counts too: leaving it out would average other checkpoints.
            if not path.name.startswith("checkpoint") and not huggingface.holds_weights(
                path, suffixes
            ):
                continue
            name = f"{path.name}/"
        elif path.name.lower().endswith(suffixes) and not _SHARD.search(path.name):
            name = path.name
        else:
            continue
        families.setdefault(re.sub(r"\d+", "N", name), []).append(path)
    if not families:
        raise FormatError(
            f"{folder}: holds no numbered checkpoints. Looked for folders such as checkpoint-500 "
            "and files such as step_500.safetensors or step_500.pt. Hint: pass a list of paths."
        )
    if len(families) > 1:
        raise FormatError(
            f"{folder}: holds {len(families)} kinds of checkpoints: {', '.join(sorted(families))}. "
            "Hint: pass a list of paths."
        )
    (paths,) = families.values()
    return sorted(paths, key=lambda p: natural_key(p.name))


def in_natural_order(names: Sequence[str]) -> list[int]:
    """Return the places of names in the order that their numbers tell, if anything does.

    Parameters
    ----------
    names : sequence of str
        Names of checkpoints.

    Returns
    -------
    list of int
        Where the names differ in their numbers alone, their indices in natural order
        (``step-9`` before ``step-10``); otherwise ``0, 1, ...``, the order given.
    """
    places = list(range(len(names)))
    if len({_NUMBER.sub("N", name) for name in names}) > 1:
        return places
    return sorted(places, key=lambda i: natural_key(names[i]))


def steps_of(names: Sequence[str]) -> tuple[float, ...]:
    """Return the steps of checkpoints by the numbers in their names, or 0, 1, 2 and so on.

    Parameters
    ----------
    names : sequence of str
        Names of checkpoints, oldest first.

    Returns
    -------
    tuple of float
        The last number of the names that rises from each to the next, where the names differ in
        their numbers alone; otherwise their places.
    """
    places = tuple(float(i) for i in range(len(names)))
    if len({_NUMBER.sub("N", name) for name in names}) > 1:
        return places
    numbers = [tuple(float(text) for text in _NUMBER.findall(name)) for name in names]
    rising = [
        column
        for column in zip(*numbers, strict=True)
        if all(one < other for one, other in itertools.pairwise(column))
    ]
    return rising[-1] if rising and len(names) > 1 else places
