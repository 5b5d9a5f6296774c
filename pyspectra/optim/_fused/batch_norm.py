"""Statistics of batch normalisation for weights that were not trained, but averaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyspectra.errors import ArgumentValueError


def batch_statistics(
    owner: str, loader: Iterable[Any], model: torch.nn.Module, device: Any
) -> dict[Tensor, Tensor]:
    """Return running statistics under the weights in place, by the buffers that they belong in.

    They are the mean over all batches, as ``torch.optim.swa_utils.update_bn`` takes it. Buffers,
    momenta and modes of the model are afterwards as before, after an exception too.

    Raises
    ------
    ValueError
        If there is no batch.
    """
    layers = [
        m
        for m in model.modules()
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    if not layers:
        return {}
    modes = {m: m.training for m in model.modules()}
    momenta = {layer: layer.momentum for layer in layers}
    before = {b: b.clone() for layer in layers for b in layer.buffers(recurse=False)}
    count = 0
    try:
        model.train()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches
        with torch.no_grad():
            for batch in loader:
                inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
                count += 1
        if not count:
            raise ArgumentValueError(f"{owner}.update_bn", "loader", "have batches", "none")
        return {buffer: buffer.clone() for buffer in before}
    finally:
        with torch.no_grad():
            for buffer, value in before.items():
                buffer.copy_(value)
        for layer, momentum in momenta.items():
            layer.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
