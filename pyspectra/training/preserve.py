"""Put a model, its optimizer and the generators back as they were."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def preserved(
    model: torch.nn.Module, optimizers: Sequence[Any] = (), *, weights: bool = True
) -> Iterator[None]:
    """Restore all that a trial run may change when the block ends, by whatever way.

    Parameters
    ----------
    model : torch.nn.Module
        Its buffers, modes and gradients; its parameters too unless `weights` is False.
    optimizers : sequence of torch.optim.Optimizer
        Their states and groups.
    weights : bool
    """
    modes = [(m, m.training) for m in model.modules()]
    tensors = [*model.buffers(), *(model.parameters() if weights else ())]
    copies = [t.detach().clone() for t in tensors]
    grads = [
        (p, p.requires_grad, p.grad, None if p.grad is None or not weights else p.grad.clone())
        for p in model.parameters()
    ]
    states = [copy.deepcopy(o.state_dict()) for o in optimizers]
    with _generators():
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, copies, strict=True):
                    tensor.copy_(old)
            for module, training in modes:
                module.training = training
            for p, requires, grad, values in grads:
                p.requires_grad_(requires)
                p.grad = grad
                if grad is not None and values is not None:
                    grad.copy_(values)
            for optimizer, state in zip(optimizers, states, strict=True):
                # load_state_dict leaves a state alone that the saved one does not have.
                optimizer.state.clear()
                optimizer.load_state_dict(state)


@contextlib.contextmanager
def _generators() -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)
