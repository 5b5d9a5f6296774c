"""Where a callback finds the averaged weights: in an `EMA`, or in an optimizer that has its own."""

from __future__ import annotations

import contextlib
from typing import Any

from pyspectra.errors import ArgumentTypeError
from pyspectra.optim import EMA
from pyspectra.optim._fused.base import FusedOptimizer


def innermost(optimizer: Any) -> Any:
    """Return the torch optimizer inside the wrappers that frameworks put around it."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    return optimizer


def check_ema(function: str, ema: Any) -> None:
    """Refuse what is no `EMA`."""
    if ema is not None and not isinstance(ema, EMA):
        raise ArgumentTypeError(
            function,
            "ema",
            "be an EMA or None",
            f"an object of type {type(ema).__name__}",
            "None for ChildAdamW(ema_decay=...)",
        )


def source(ema: EMA | None, optimizer: Any) -> EMA | FusedOptimizer:
    """Return the one that keeps the average.

    Raises
    ------
    ValueError
        If there is none.
    """
    if ema is not None:
        return ema
    found = innermost(optimizer)
    if isinstance(found, FusedOptimizer) and any(
        group["ema_decay"] is not None for group in found.param_groups
    ):
        return found
    raise ValueError(
        f"EMACallback: the optimizer must keep an average, got {type(found).__name__}. "
        "Hint: EMACallback(EMA(model)), or ChildAdamW(..., ema_decay=...)."
    )


def swap(averages: EMA | FusedOptimizer) -> contextlib.AbstractContextManager[None]:
    """Put the averaged weights in place for the length of a ``with`` block."""
    return averages.swap() if isinstance(averages, EMA) else averages.swap_ema()
