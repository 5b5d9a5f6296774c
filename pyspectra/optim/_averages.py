"""Moving averages of weights: swapping them in, and writing them out as a state dict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra.optim import _sharded


@contextlib.contextmanager
def in_place(averages: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Put averages in the place of their parameters for the length of a ``with`` block.

    The weights come back bit for bit, after an exception too. Needs memory for one copy of them.
    """
    raw = {p: p.detach().clone() for p in averages}
    try:
        with torch.no_grad():
            for p, average in averages.items():
                p.copy_(average)
        yield
    finally:
        with torch.no_grad():
            for p, weights in raw.items():
                p.copy_(weights)


def averaged_state_dict(
    model: torch.nn.Module, averages: Mapping[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Return the model's state dict with averages (copies, in the types of the model).

    Buffers and parameters that have no average come as they are.
    """
    out: dict[str, Tensor] = {}
    copies: dict[Tensor, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and value in averages:
            if value not in copies:  # tied weights stay tied
                copies[value] = averages[value].to(value.dtype, copy=True)
            out[name] = copies[value]
        else:
            out[name] = value.detach() if isinstance(value, Tensor) else value
    return out


def only_allocates(optimizer: Optimizer) -> bool:
    """Tell whether the step that is about to be taken is there to make the state and nothing else.

    Distributed checkpointing makes a state to load into, or to save, by a first step with zero
    gradients at a learning rate of zero. It must not count: the next step would draw other masks,
    and the average would move towards weights that are about to be replaced.
    """
    groups = optimizer.param_groups
    if optimizer.state or any(group.get("lr") is None or float(group["lr"]) for group in groups):
        return False
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    if not grads or any(grad.layout is not torch.strided for grad in grads):
        return False
    # Of all processes: they must come to the same answer.
    return _sharded.total((g, float(_sharded.local(g).count_nonzero())) for g in grads) == 0


class Averages(Optimizer):
    """Access to the ``ema`` entries of the state."""

    _swapped = False

    def _averages(self) -> dict[Tensor, Tensor]:
        if all(group["ema_decay"] is None for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: there is no moving average. Hint: pass ema_decay."
            )
        return {p: s["ema"] for p, s in self.state.items() if "ema" in s}

    def _refuse_while_swapped(self, function: str) -> None:
        if self._swapped:
            raise RuntimeError(
                f"{type(self).__name__}: {function}() while the averaged weights are in place. "
                "Hint: leave the swap_ema() block first."
            )

    @contextlib.contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Put the averaged weights in place for the length of a ``with`` block.

        The weights come back bit for bit, after an exception too. Parameters that have not been
        stepped keep their weights. Needs memory for one copy of the weights.

        Raises
        ------
        RuntimeError
            If there is no average, or inside another such block.
        """
        self._refuse_while_swapped("swap_ema")
        averages = self._averages()
        self._swapped = True
        try:
            with in_place(averages):
                yield
        finally:
            self._swapped = False

    def ema_state_dict(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """Return the model's state dict with averaged weights, in the types of the model.

        Parameters
        ----------
        model : torch.nn.Module
            The model whose parameters these are. Buffers and parameters that have no average come
            as they are.

        Returns
        -------
        dict of str to Tensor
            Averaged weights are copies; they fit ``model.load_state_dict``.
        """
        return averaged_state_dict(model, self._averages())
