"""The wrappers that frameworks put around an optimizer."""

from __future__ import annotations

from typing import Any


def innermost(optimizer: Any) -> Any:
    """Return the torch optimizer inside the wrappers that frameworks put around it."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    return optimizer
