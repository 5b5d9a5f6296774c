"""What a file keeps beside its model under other names: moving averages, states of optimizers.

In nested checkpoints they are mappings (`pyspectra.weights.formats.wrappers`). Files of flat names
have them too: ``model_ema.…`` of Stable Diffusion, ``….exp_avg`` of sharded checkpoints. They are
listed, and are no layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pyspectra.weights.entries import TensorEntry
from pyspectra.weights.kinds import layer_name
from pyspectra.weights.skip import Skip

__all__ = ["chosen", "set_aside"]

_AVERAGE: Final = re.compile(r"(?:^|_)ema(?:$|_)")
_OPTIMIZER: Final = re.compile(r"(?:optim|optimizer|optimizers)(?:_states?|_state_dict)?")
# What optimizers keep for each parameter, where its name is followed by theirs.
_STATES: Final = frozenset((
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg",
    "acc_delta", "exp_inf", "exp_avg_diff", "fp32_param", "main_param",
))  # fmt: skip
_PREFIX_PARTS: Final = 2


def set_aside(entries: Sequence[TensorEntry]) -> list[TensorEntry]:
    """Mark tensors that are copies of weights, or belong to the training, as such.

    Parameters
    ----------
    entries : sequence of TensorEntry
        What a format lists.

    Returns
    -------
    list of TensorEntry
        The same, of which copies and states say what they are.

    Notes
    -----
    A moving average goes by a name with ``ema`` in one of its first two parts, and most matrices
    under that prefix have a partner of the same shape whose name ends in the same way. Dots do not
    count: names of buffers cannot have them.
    """
    prefixes = _averages(entries)
    return [_marked(entry, prefixes) for entry in entries]


def chosen(entries: Sequence[TensorEntry], key: str) -> list[TensorEntry]:
    """Return the tensors whose names begin with a prefix, by what follows it.

    Parameters
    ----------
    entries : sequence of TensorEntry
        What a format lists.
    key : str
        The prefix, without the dot at its end.

    Returns
    -------
    list of TensorEntry
        Empty if there are none.
    """
    dot = f"{key}."
    return [
        replace(entry, key=entry.key.removeprefix(dot))
        for entry in entries
        if entry.key.startswith(dot) and entry.key != dot
    ]


def _marked(entry: TensorEntry, averages: Mapping[str, int]) -> TensorEntry:
    if entry.problem is not None or entry.is_weight is not None:
        return entry
    first, _, rest = entry.key.partition(".")
    if (rest and _OPTIMIZER.fullmatch(first)) or entry.key.rpartition(".")[2] in _STATES:
        return replace(entry, problem=Skip("training_state"), is_weight=False)
    for prefix in _prefixes(entry.key):
        if prefix in averages:
            skip = Skip("average_copy", {"key": prefix})
            return replace(entry, problem=skip, is_weight=False)
    return entry


def _averages(entries: Sequence[TensorEntry]) -> dict[str, int]:
    """Return the prefixes under which copies lie, with their numbers of tensors."""
    groups: dict[str, list[TensorEntry]] = {}
    for entry in entries:
        for prefix in _prefixes(entry.key):
            groups.setdefault(prefix, []).append(entry)
    found: dict[str, int] = {}
    for prefix, group in groups.items():
        dot = f"{prefix}."
        others = {
            (ending, entry.shape)
            for entry in entries
            if not entry.key.startswith(dot)
            for ending in _endings(entry.key)
        }
        matrices = [e for e in group if e.shape is not None and len(e.shape) > 1]
        fits = sum(
            any((ending, e.shape) in others for ending in _endings(e.key.removeprefix(dot)))
            for e in matrices
        )
        if matrices and 2 * fits > len(matrices):
            found[prefix] = len(group)
    return found


def _prefixes(key: str) -> Iterator[str]:
    """Yield what a name begins with up to a part that says ``ema``."""
    parts = key.split(".")
    for i, part in enumerate(parts[: min(_PREFIX_PARTS, len(parts) - 1)]):
        if _AVERAGE.search(part.lower()):
            yield ".".join(parts[: i + 1])
            return


def _dotless(name: str) -> str:
    return layer_name(name).replace(".", "").removesuffix("weight")


def _endings(key: str) -> Iterator[str]:
    """Yield how a name ends after each of its first dots, without dots."""
    parts = key.split(".")
    for i in range(min(len(parts), _PREFIX_PARTS + 1)):
        ending = _dotless(".".join(parts[i:]))
        if ending:
            yield ending
