"""The step as one operator of torch, for the graphs of ``torch.compile``.

Dynamo cannot trace what builds and runs the kernel's table: without an operator every few lines of
it become a graph of their own. The operator declares what matters to a graph, that it reads
gradients and writes parameters. Hyper-parameters, counts and state stay with the optimizer and are
read when it runs: the graph depends on none of them.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import Tensor


class Steps(Protocol):
    """What a graph needs of an optimizer: `FusedOptimizer`, which imports this module."""

    param_groups: list[dict[str, Any]]
    _handle: int

    def _step(self) -> None: ...


_optimizers: weakref.WeakValueDictionary[int, Steps] = weakref.WeakValueDictionary()
_handles = itertools.count()


def register(optimizer: Steps) -> int:
    """Return the number by which a graph knows the optimizer, as long as that lives."""
    handle = next(_handles)
    _optimizers[handle] = optimizer
    return handle


def step(optimizer: Steps) -> None:
    """Put the step into the graph that is being made."""
    params, grads, positions = [], [], []
    position = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                params.append(p)
                grads.append(p.grad)
                positions.append(position)
            position += 1
    if params:
        with torch.no_grad():
            _step(params, grads, positions, optimizer._handle)


def _run(params: list[Tensor], grads: list[Tensor], positions: list[int], handle: int) -> None:
    optimizer = _optimizers[handle]
    every = [p for group in optimizer.param_groups for p in group["params"]]
    own = [every[position] for position in positions]
    kept = [p.grad for p in every]
    # A functional graph works on copies, which it writes back afterwards.
    copies = [
        (p, given) for p, given in zip(own, params, strict=True) if p.data_ptr() != given.data_ptr()
    ]
    with torch.no_grad():
        for p, given in copies:
            p.copy_(given)
        for p in every:
            p.grad = None
        for p, grad in zip(own, grads, strict=True):
            p.grad = grad
        try:
            optimizer._step()
        finally:
            for p, saved in zip(every, kept, strict=True):
                p.grad = saved
        for p, given in copies:
            given.copy_(p)


_SCHEMA = "(Tensor(a!)[] params, Tensor[] grads, SymInt[] positions, SymInt handle) -> ()"
_step = torch.library.custom_op(
    "pyspectra::optimizer_step", _run, mutates_args=("params",), schema=_SCHEMA
)
# A graph is made with tensors that have no data: nothing comes back, so nothing is to be made up.
_step.register_fake(lambda params, grads, positions, handle: None)
