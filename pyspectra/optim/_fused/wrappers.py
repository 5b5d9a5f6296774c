"""The wrappers that frameworks put around an optimizer."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def innermost(optimizer: Any) -> Any:
    """Return the torch optimizer inside the wrappers that frameworks put around it."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    return optimizer


def extend_accelerate(names: Iterable[str]) -> None:
    """Give accelerate's wrapper methods of the optimizer inside, where accelerate is imported.

    Its wrapper is an optimizer without the attributes of the one that it holds, so that what
    ``Accelerator.prepare`` returns would have no averages. What the wrapper has stays.
    """
    module = sys.modules.get("accelerate.optimizer")
    if module is None:
        return
    for name in names:
        if not hasattr(module.AcceleratedOptimizer, name):
            setattr(module.AcceleratedOptimizer, name, _of_inner(name))


def _of_inner(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(innermost(self), name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Call `{name}` of the optimizer inside."
    return method
