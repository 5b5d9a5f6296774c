"""What backward passes find in ``.grad``: hooks on a few small parameters."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from pyspectra.training.rules.facts import Backwards

# Leaves that are looked at in each group of an optimizer: small ones, near the loss first.
LEAVES = 2
SMALL = 65536


class StaleGradients:
    """Watch whether gradients were cleared between two steps of an optimizer.

    A hook on a leaf runs before the new gradient is added to ``.grad``, so that what it finds is
    what the loop left behind.
    """

    def __init__(self, optimizer: Any, names: dict[int, str]) -> None:
        self._found: dict[str, list[Tensor | bool]] = {}
        self._handles = []
        self.active = True
        for group in optimizer.param_groups:
            for p in _leaves(group["params"]):
                name = names.get(id(p), "")
                self._found[name] = []
                self._handles.append(cast(Any, p).register_hook(self._hook(p, name)))

    def _hook(self, p: Tensor, name: str) -> Any:
        found = self._found[name]

        def look(_gradient: Tensor) -> None:
            if self.active:
                old = p.grad
                # Kept on its device: nothing waits for it. NaN counts as cleared, since 0 times NaN
                # stays NaN in loops that clear by multiplication.
                if old is None:
                    found.append(False)
                else:
                    found.append((old.detach().abs().sum() > 0) & torch.isfinite(old).all())

        return look

    def taken(self, step: int) -> list[Backwards]:
        """Return what was found since the last call, for the step that has just been made."""
        facts = [
            Backwards(step, name, len(found), sum(bool(x) for x in found))
            for name, found in self._found.items()
            if found
        ]
        for found in self._found.values():
            found.clear()
        # One of them is enough to tell of, the one that found most.
        return sorted(facts, key=lambda x: x.n_stale - x.n_backwards)[-1:]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _leaves(params: list[Tensor]) -> list[Tensor]:
    # A tensor that has a grad_fn is no leaf, and one that is frozen takes no hook.
    trainable = [p for p in params if p.requires_grad and p.is_leaf and p.numel() > 0]
    small = [p for p in reversed(trainable) if p.numel() <= SMALL]
    if small:
        return small[:LEAVES]
    return sorted(trainable, key=lambda p: p.numel())[:1]
