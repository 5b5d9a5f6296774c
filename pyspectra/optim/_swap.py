"""What every moving average of the weights shares: its place in the model, and its state dict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


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
