"""From scores to masks: the highest, the lowest or a random part of the weights, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._support.arguments import check_choice, check_probability, check_seed
from pyspectra._support.random import Purpose, random_key
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused import sharded
from pyspectra.optim._fused.names import plain_names

__all__ = ["select"]

Array = npt.NDArray[np.float32]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCOPES = ("global", "tensor", "row")
_HOWS = ("top", "bottom", "random")


def select(
    scores: Mapping[str, Tensor],
    reserve_p: float,
    *,
    scope: str = "global",
    how: str = "top",
    seed: int = 0,
) -> dict[str, Tensor]:
    """Select a part of the weights by their scores.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Name -> scores, float32 (bfloat16 and float16 convert exactly), any shape and device.
        Infinities count by value. Those of a DTensor are gathered: all its processes have to call.
    reserve_p : float
        Part to select, in (0, 1]. Where many scores equal the threshold, such as the zeros of
        weights that no loss depends on, more is selected: up to everything.
    scope : {"global", "tensor", "row"}
        What the weights compete within: all tensors together, each tensor, or each row (all axes
        but the first; a tensor of fewer than two axes is one row).
    how : {"top", "bottom", "random"}
        The highest scores, the lowest, or a random part whatever the scores.
    seed : int
        Seed of the random part, in [0, 2^64). What is drawn for a tensor depends on the seed and
        the tensor's name alone.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> boolean mask of the shape of the scores, on their device; True = selected.

    Raises
    ------
    TypeError
        If scores are not tensors of a type above.
    ValueError
        If scores hold NaN (naming the tensor), are all zero (for "top" and "bottom"), there are
        none, or an argument is out of range.

    Notes
    -----
    Of N competitors the k-th highest is the threshold, k = N - ceil((1 - p)(N - 1)), and all ties
    with it are selected. This is ``F >= np.percentile(F, 100 (1 - p))`` in exact arithmetic: a
    (1 - p)(N - 1) within rounding error of a whole number counts as that number. "bottom" mirrors
    it. "random" gives every weight a uniform draw of 24 bits for a score.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import select
    >>> scores = {"w": torch.tensor([[1.0, 9.0], [2.0, 8.0]])}
    >>> select(scores, 0.5)["w"]
    tensor([[False,  True],
            [False,  True]])
    >>> select(scores, 0.25, how="bottom")["w"]
    tensor([[ True, False],
            [False, False]])
    """
    return masks_of(scores, reserve_p, scope, how, seed, "select")


def masks_of(
    scores: Mapping[str, Tensor], reserve_p: float, scope: str, how: str, seed: int, function: str
) -> dict[str, Tensor]:
    """Do what `select` says, with the name of the public function for messages."""
    reserve_p = check_probability(function, "reserve_p", reserve_p)
    scope = check_choice(function, "scope", scope, SCOPES)
    how = check_choice(function, "how", how, _HOWS)
    seed = check_seed(function, "seed", seed)
    if not isinstance(scores, Mapping):
        got = f"an object of type {type(scores).__name__}"
        raise ArgumentTypeError(function, "scores", "be a mapping of names to tensors", got)
    if not scores:
        raise ArgumentValueError(function, "scores", "hold at least one tensor", "none")
    arrays = {name: _host(name, score, function) for name, score in scores.items()}
    if how == "random":
        plain = dict(zip(arrays, plain_names(list(arrays)), strict=True))
        arrays = {name: _draws(seed, plain[name], a.shape) for name, a in arrays.items()}
    elif any(a.size for a in arrays.values()) and not any(a.any() for a in arrays.values()):
        raise ArgumentValueError(
            function,
            "scores",
            "tell the weights apart",
            "zeros alone",
            "see whether the loss that they come from depends on these weights",
        )
    limits = _thresholds(arrays, reserve_p, scope, how == "bottom", function)
    masks = {}
    for name, a in arrays.items():
        limit = limits[name]
        mask = np.asarray(a <= limit if how == "bottom" else a >= limit)
        masks[name] = torch.from_numpy(mask).to(scores[name].device)
    return masks


def _host(name: str, score: Tensor, function: str) -> Array:
    if not isinstance(score, Tensor) or score.dtype not in _DTYPES:
        got = score.dtype if isinstance(score, Tensor) else type(score).__name__
        requirement = f"hold a float32, bfloat16 or float16 tensor for {name!r}"
        hint = "convert it with .float()"
        raise ArgumentTypeError(function, "scores", requirement, str(got), hint)
    host: Array = sharded.whole(score).detach().to("cpu", torch.float32).contiguous().numpy()
    return host


def _draws(seed: int, name: str, shape: tuple[int, ...]) -> Array:
    """Uniform draws of 24 bits for a tensor, from the seed and its name alone."""
    key, size = random_key(Purpose.SELECTION, seed, name), math.prod(shape)
    high, low = (ops.random_draws(key, 0, stream, 0, size) for stream in (0, 1))
    bits = (high.astype(np.uint32) << 8) | (low >> 8)
    uniform: Array = (bits * np.float32(2.0**-24)).astype(np.float32)
    return uniform.reshape(shape)


def _index(size: int, reserve_p: float, bottom: bool) -> int:
    """Ascending position of the threshold among `size` elements."""
    # Rounding of p, 1 - p and the product moves a whole position by some 1e-16 of the size.
    index = max(math.ceil((1.0 - reserve_p) * (size - 1) - 1e-15 * size), 0)
    return size - 1 - index if bottom else index


def _thresholds(
    arrays: Mapping[str, Array], reserve_p: float, scope: str, bottom: bool, function: str
) -> dict[str, Any]:
    """Return, for each tensor, the scores that its elements have to reach, to broadcast."""

    def threshold(names: list[str]) -> float:
        size = sum(arrays[name].size for name in names)
        if size == 0:
            return 0.0  # nothing will be compared with it
        value, nan = ops.order_statistic(
            [arrays[name] for name in names], _index(size, reserve_p, bottom)
        )
        if nan >= 0:
            raise _nan(names[nan], function)
        return value

    if scope == "global":
        return dict.fromkeys(arrays, threshold(list(arrays)))
    if scope == "tensor":
        return {name: threshold([name]) for name in arrays}
    out: dict[str, Any] = {}
    for name, a in arrays.items():
        if a.ndim < 2 or a.size == 0:
            out[name] = threshold([name])
            continue
        if np.isnan(a).any():
            raise _nan(name, function)
        rows = a.reshape(len(a), -1)
        index = _index(rows.shape[1], reserve_p, bottom)
        column = np.partition(rows, index, axis=1)[:, index]
        out[name] = column.reshape(-1, *[1] * (a.ndim - 1))
    return out


def _nan(name: str, function: str) -> ArgumentValueError:
    hint = "see which data its gradients come from"
    return ArgumentValueError(function, "scores", "not hold NaN", f"some for {name!r}", hint)
