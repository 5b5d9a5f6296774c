"""What a step does to each parameter: from the fused step, or by one multi-tensor pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pyspectra.optim._fused.base import FusedOptimizer
from pyspectra.training.processes import Alone
from pyspectra.training.rules.facts import TensorStep
from pyspectra.types import StepStatistics

MOST_COPIED = 1 << 18
"""Elements of a tensor that are copied to see how a step changes it; of larger ones a part is."""


def is_local(p: Tensor) -> bool:
    """Tell whether a tensor is an ordinary one, held whole by this process."""
    return type(p).__name__ != "DTensor"


def local(p: Tensor) -> Tensor:
    """Return the part of a tensor that is in this process."""
    return p if is_local(p) else cast(Any, p).to_local()


class StepCollector:
    """Statistics of the steps of one optimizer that are looked at.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    names : dict of int to str
        Names of the parameters by their identity.
    due : callable
        Whether a step of this number is looked at.
    sparse : collection of str
        Parts of names of parameters that not every batch uses.
    processes : Alone or Group, optional
        The processes among which parameters may be sharded.
    """

    def __init__(
        self,
        optimizer: Any,
        names: dict[int, str],
        due: Callable[[int], bool],
        sparse: Collection[str] = (),
        processes: Alone | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.n_steps = 0
        self._names, self._due, self._sparse = names, due, tuple(sparse)
        self._processes = processes
        self._fused = isinstance(optimizer, FusedOptimizer) and optimizer._takes_statistics
        self._before: dict[int, Tensor] = {}
        self._params: list[tuple[Tensor, dict[str, Any]]] = []
        self._taken: list[TensorStep] | None = None
        # Large tensors of which only a part is looked at, where that part had no gradient and the
        # rest had one.
        self._unseen: set[int] = set()
        self._handles = [
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> list[TensorStep] | None:
        """Return what the last step did, once; None if it was not looked at."""
        taken, self._taken = self._taken, None
        return taken

    def peek(self) -> list[TensorStep] | None:
        """Return what `take` will."""
        return self._taken

    # --- hooks ----------------------------------------------------------------------------------

    def _pre(self, *_: Any) -> None:
        self._params = []
        if self._due(self.n_steps + 1):
            self._params = list(self._trainable())
            if not self._fused:
                with torch.no_grad():
                    # Parameters without a gradient are copied too: a closure makes theirs during
                    # the step.
                    self._before = {id(p): _part(p).clone() for p, _ in self._params}

    def _post(self, *_: Any) -> None:
        self.n_steps += 1
        if self._params:
            with torch.no_grad():
                statistics = self._of_fused() if self._fused else self._of_copies()
                if self._processes is not None and self._processes.sums:
                    statistics = self._of_all(statistics)
            self._taken = [
                self._row(p, g, statistics.get(id(p)))
                for p, g in self._params
                if id(p) not in self._unseen
            ]
            self._unseen.clear()
        self._params, self._before = [], {}

    def _trainable(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p.requires_grad and p.numel() > 0:
                    yield p, group

    def _row(self, p: Tensor, group: dict[str, Any], s: StepStatistics | None) -> TensorStep:
        name = self._names.get(id(p), "")
        state = self.optimizer.state.get(p, {})
        return TensorStep(
            name=name,
            shape=tuple(p.shape),
            dtype=str(p.dtype).removeprefix("torch."),
            lr=float(group.get("lr", math.nan)),
            statistics=s,
            sparse=any(part in name for part in self._sparse),
            master="master" in state,
            masked="mask" in state,
        )

    def _of_fused(self) -> dict[int, StepStatistics]:
        found = self.optimizer.statistics()
        return {
            id(p): found[name]
            for name, p, _ in self.optimizer._named()
            if p.grad is not None and name in found
        }

    def _of_all(self, own: dict[int, StepStatistics]) -> dict[int, StepStatistics]:
        """Put together the statistics of the parts of sharded parameters in all processes."""
        assert self._processes is not None
        sharded = [p for p, _ in self._params if not is_local(p)]
        if not sharded:
            return own
        parts = [own.get(id(p)) if _counts_once(p) else None for p in sharded]
        every = self._processes.gather(parts)
        for p, found in zip(sharded, zip(*every, strict=True), strict=True):
            present = [part for part in found if part is not None]
            if present:
                own[id(p)] = _together(present)
        return own

    def _of_copies(self) -> dict[int, StepStatistics]:
        # This process may hold no part of a sharded parameter.
        with_grad = [p for p, _ in self._params if p.grad is not None and local(p).numel() > 0]
        out: dict[int, StepStatistics] = {}
        for device in {p.device for p in with_grad}:
            pairs = [(p, self._before[id(p)]) for p in with_grad if p.device == device]
            out |= _statistics([p for p, _ in pairs], [old for _, old in pairs])
        still = [p for p in with_grad if out[id(p)].grad_norm == 0 and _is_in_part(p)]
        self._unseen = {id(p) for p in still if bool((local(cast(Any, p.grad)) != 0).any())}
        return out


def _counts_once(p: Any) -> bool:
    """Tell whether the part of a parameter in this process is the one of its copies that counts."""
    coordinate = p.device_mesh.get_coordinate()
    return all(
        place == 0
        for place, placement in zip(coordinate, p.placements, strict=True)
        if placement.is_replicate()
    )


def _together(parts: Sequence[StepStatistics]) -> StepStatistics:
    """Return the statistics of a tensor from those of its parts."""
    return StepStatistics(
        n=sum(s.n for s in parts),
        grad_norm=math.hypot(*(s.grad_norm for s in parts)),
        param_norm=math.hypot(*(s.param_norm for s in parts)),
        update_norm=math.hypot(*(s.update_norm for s in parts)),
        grad_max=max(s.grad_max for s in parts),
        grad_dot_update=math.fsum(s.grad_dot_update for s in parts),
        n_zero=sum(s.n_zero for s in parts),
        n_non_finite=sum(s.n_non_finite for s in parts),
        n_rounded_away=sum(s.n_rounded_away for s in parts),
    )


def _is_in_part(p: Tensor) -> bool:
    return local(p).numel() > MOST_COPIED and p.grad is not None and not p.grad.is_sparse


def _part(p: Tensor) -> Tensor:
    """Return a tensor, or evenly spaced rows of a large one."""
    p = local(p).detach()
    if p.numel() <= MOST_COPIED or p.dim() == 0:
        return p
    return p[:: math.ceil(p.numel() / MOST_COPIED)]


def _statistics(params: list[Tensor], before: list[Tensor]) -> dict[int, StepStatistics]:
    """Compare parameters with what they were: one wait for the results of all.

    All that is asked of a tensor is asked before the next one comes: most fit the cache.
    """
    found = [_numbers(p, old) for p, old in zip(params, before, strict=True)]
    rows = torch.stack([x for numbers in found for x in numbers]).cpu().double()
    rows = rows.reshape(len(params), -1)
    return {
        id(p): StepStatistics(
            n=b.numel(),
            grad_norm=r[0],
            param_norm=r[1],
            update_norm=r[2],
            grad_max=r[3],
            grad_dot_update=r[4],
            n_zero=int(r[5]),
            # Counted only where there are some: the norm tells.
            n_non_finite=0 if math.isfinite(r[0]) else _n_non_finite(p),
            n_rounded_away=int(r[6]),
        )
        for p, b, r in zip(params, before, rows.tolist(), strict=True)
    }


def _numbers(p: Tensor, before: Tensor) -> list[Tensor]:
    g, old, new = _part_of_gradient(p).float(), before.float(), _part(p).float()
    update = new - old
    norm = torch.linalg.vector_norm
    values = [norm(g), norm(old), norm(update), norm(g, math.inf)]
    same = g.shape == update.shape
    values.append(torch.dot(g.reshape(-1), update.reshape(-1)) if same else values[0] * math.nan)
    if before.dtype in (torch.bfloat16, torch.float16) and same:
        # What is rounded away is a share of what is not zero; in float32 neither is asked for.
        return [*values, (g == 0).sum().float(), ((update == 0) & (g != 0)).sum().float()]
    return [*values, torch.zeros_like(values[0]), torch.zeros_like(values[0])]


def _n_non_finite(p: Tensor) -> int:
    return int((~torch.isfinite(_part_of_gradient(p))).sum())


def _part_of_gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    g = p.grad.detach()
    if g.is_sparse:
        g = g.coalesce().values()
        return g
    g = local(g)
    if g.numel() <= MOST_COPIED or g.dim() == 0:
        return g
    return g[:: math.ceil(g.numel() / MOST_COPIED)]
