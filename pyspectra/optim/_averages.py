"""The moving average in the state of a fused optimizer: swapping it in, and writing it out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer


class Averages(Optimizer):
    """Access to the ``ema`` entries of the state."""

    # Weights as they were, while the averaged ones are in their place.
    _raw: dict[Tensor, Tensor] | None = None

    def _averages(self) -> dict[Tensor, Tensor]:
        if all(group["ema_decay"] is None for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: there is no moving average. Hint: pass ema_decay."
            )
        return {p: s["ema"] for p, s in self.state.items() if "ema" in s}

    def _refuse_while_swapped(self, function: str) -> None:
        if self._raw is not None:
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
        raw = {p: p.detach().clone() for p in averages}
        self._raw = raw
        try:
            with torch.no_grad():
                for p, ema in averages.items():
                    p.copy_(ema)
            yield
        finally:
            with torch.no_grad():
                for p, weights in raw.items():
                    p.copy_(weights)
            self._raw = None

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
        averages = self._averages()
        out: dict[str, Tensor] = {}
        for name, value in model.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor) and value in averages:
                out[name] = averages[value].to(value.dtype, copy=True)
            else:
                out[name] = value.detach() if isinstance(value, Tensor) else value
        return out
