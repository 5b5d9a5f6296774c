"""Where a callback finds the averaged weights, and which weights they belong to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra.errors import ArgumentTypeError
from pyspectra.optim import EMA
from pyspectra.optim._fused.averages import averaged_state_dict, in_place
from pyspectra.optim._fused.base import FusedOptimizer
from pyspectra.optim._fused.wrappers import innermost

Keeper = EMA | FusedOptimizer


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


def keepers(ema: EMA | None, optimizers: Iterable[Any]) -> list[Keeper]:
    """Return what keeps an average: `ema`, or all optimizers that average by themselves.

    Raises
    ------
    ValueError
        If there is none.
    """
    if ema is not None:
        return [ema]
    inner = [innermost(optimizer) for optimizer in optimizers]
    found: list[Keeper] = [
        optimizer
        for optimizer in inner
        if isinstance(optimizer, FusedOptimizer)
        and any(group["ema_decay"] is not None for group in optimizer.param_groups)
    ]
    if not found:
        got = ", ".join(type(optimizer).__name__ for optimizer in inner) or "none"
        raise ValueError(
            f"EMACallback: the optimizer must keep an average, got {got}. "
            "Hint: EMACallback(EMA(model)), or ChildAdamW(..., ema_decay=...)."
        )
    return found


def attach(ema: EMA, optimizers: Iterable[Any]) -> None:
    """Let `ema` average after the steps of all optimizers that move its parameters."""
    ema.detach()
    inner = [innermost(optimizer) for optimizer in optimizers]
    own = {*ema._params.values()}
    moving = [
        optimizer
        for optimizer in inner
        if any(p in own for group in optimizer.param_groups for p in group["params"])
    ]
    ema.attach(*(moving or inner[:1]))  # which says what is wrong


@contextlib.contextmanager
def swap(found: Iterable[Keeper]) -> Iterator[None]:
    """Put the averaged weights in place for the length of a ``with`` block."""
    with contextlib.ExitStack() as stack:
        for keeper in found:
            stack.enter_context(keeper._swapping())
        yield


def averaged(found: Iterable[Keeper], model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict with the averages of all keepers."""
    own: dict[Tensor, Tensor] = {}
    moved: set[Tensor] = set()
    for keeper in found:
        own.update(keeper._in_place())
        moved.update(keeper._moved())
    return averaged_state_dict("EMACallback", model, own, moved)


def put_in(
    model: torch.nn.Module, weights: Mapping[str, Tensor]
) -> contextlib.AbstractContextManager[None]:
    """Put weights of a file in place, by name, for the length of a ``with`` block."""
    values = model.state_dict(keep_vars=True)
    pairs = {
        value: weights[name]
        for name, value in values.items()
        if isinstance(value, Tensor) and name in weights
    }
    return in_place(pairs)


class Left:
    """Tells whether a model still has the weights that training has left.

    Averages belong to those. Whoever loads other weights afterwards, by whatever way, wants them
    evaluated and saved. Torch counts the changes of each tensor: to move a model, or to cast it,
    changes none.
    """

    def __init__(self) -> None:
        self._versions: dict[Tensor, int] | None = None

    def note(self, model: torch.nn.Module) -> None:
        """Remember the weights of now as those that training has left."""
        self._versions = {p: p._version for p in model.parameters()}

    def forget(self) -> None:
        """Training goes on: its averages belong to whatever the weights are."""
        self._versions = None

    @property
    def noted(self) -> bool:
        """Whether training has ended."""
        return self._versions is not None

    def replaced(self, model: torch.nn.Module) -> bool:
        """Tell whether the model has other weights than training has left."""
        now = {p: p._version for p in model.parameters()}
        return self._versions is not None and self._versions != now

    @contextlib.contextmanager
    def unchanged(self, model: torch.nn.Module) -> Iterator[None]:
        """Overlook the changes within a ``with`` block, which are taken back by its end."""
        before = self.noted and not self.replaced(model)
        try:
            yield
        finally:
            if before:
                self.note(model)
