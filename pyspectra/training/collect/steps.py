"""What a step does to each parameter: from the fused step, or by one multi-tensor pass."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyspectra.optim._fused.base import FusedOptimizer
from pyspectra.training.processes import Alone
from pyspectra.training.rules.facts import NonFinite, StepRows, TensorStep
from pyspectra.types import StepStatistics

MOST_COPIED = 1 << 15
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
        self._taken: StepRows | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def take(self) -> StepRows | None:
        """Return what the last step did, once; None if it was not looked at."""
        taken, self._taken = self._taken, None
        return taken

    def peek(self) -> StepRows | None:
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
            self._taken = StepRows(self._row(p, g, statistics.get(id(p))) for p, g in self._params)
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


def _part(p: Tensor) -> Tensor:
    """Return a tensor, or evenly spaced rows of a large one."""
    p = local(p).detach()
    if p.numel() <= MOST_COPIED or p.dim() == 0:
        return p
    return p[:: math.ceil(p.numel() / MOST_COPIED)]


def _statistics(params: list[Tensor], before: list[Tensor]) -> dict[int, StepStatistics]:
    """Compare parameters with what they were: one wait for the results of all.

    All that is asked of a tensor is asked before the next one comes: most fit the cache. Where only
    a part is looked at, the norms of weights and update are those of the part times the square root
    of how much larger the whole is, NaN for an update whose part had no gradient while the rest had
    one. The norm of the gradient is that of the whole.
    """
    found = [
        [norm, *_numbers(p, old)]
        for p, old, norm in zip(params, before, _gradient_norms(params), strict=True)
    ]
    rows = torch.stack([x for numbers in found for x in numbers]).cpu().double()
    rows = rows.reshape(len(params), -1)
    out = {}
    for p, b, r in zip(params, before, rows.tolist(), strict=True):
        grad_norm, part_norm = r[0], r[1]
        n = local(p).numel()
        scale = n / b.numel()
        known = math.nan if part_norm == 0 and grad_norm != 0 else 1.0
        out[id(p)] = StepStatistics(
            n=n,
            grad_norm=grad_norm,
            param_norm=math.sqrt(scale) * r[2],
            update_norm=known * math.sqrt(scale) * r[3],
            grad_max=r[4],
            grad_dot_update=known * scale * r[5],
            n_zero=round(scale * r[6]),
            # Counted only where there are some: the norm tells.
            n_non_finite=0 if math.isfinite(grad_norm) else _n_non_finite(p),
            n_rounded_away=round(scale * r[7]),
        )
    return out


def _gradient_norms(params: list[Tensor]) -> list[Tensor]:
    """Return the 2-norms of gradients in float32, into which those of float16 fit."""
    gradients = [_gradient(p) for p in params]
    wide = [k for k, g in enumerate(gradients) if g.dtype == torch.float64]
    narrow = [k for k, g in enumerate(gradients) if g.dtype != torch.float64]
    out: dict[int, Tensor] = {}
    if wide:
        out |= zip(wide, torch._foreach_norm([gradients[k] for k in wide]), strict=True)
    if narrow:
        norms = torch._foreach_norm([gradients[k] for k in narrow], 2, torch.float32)
        out |= zip(narrow, norms, strict=True)
    return [out[k].float() for k in range(len(params))]


def _numbers(p: Tensor, before: Tensor) -> list[Tensor]:
    g, old, new = _part_of_gradient(p).float(), before.float(), _part(p).float()
    update = new - old
    norm = torch.linalg.vector_norm
    grad_norm, none = norm(g), g.new_zeros(())
    same = g.shape == update.shape
    dot = torch.dot(g.reshape(-1), update.reshape(-1)) if same else grad_norm * math.nan
    n_zero = n_rounded_away = none
    if before.dtype in (torch.bfloat16, torch.float16) and same:
        # What is rounded away is a share of what is not zero; in float32 neither is asked for.
        n_zero = (g == 0).sum().float()
        n_rounded_away = ((update == 0) & (g != 0)).sum().float()
    # The largest magnitude is several times faster than the infinity norm.
    values = [grad_norm, norm(old), norm(update), g.abs().amax() if g.numel() else none, dot]
    return [*values, n_zero, n_rounded_away]


def _n_non_finite(p: Tensor) -> int:
    return int((~torch.isfinite(_gradient(p))).sum())


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    g = p.grad.detach()
    # Several entries of a sparse gradient may stand for one element.
    return g.coalesce().values() if g.is_sparse else local(g)


def _part_of_gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return _gradient(p) if p.grad.is_sparse else _part(p.grad)


def bad_gradient(taken: Sequence[StepRows | None], step: int) -> NonFinite | None:
    """Return the first gradient or weight of a step that is not finite."""
    for rows in taken:
        for t in rows or ():
            s = t.statistics
            if s is not None and s.n_non_finite:
                return NonFinite(step, "gradient", "NaN", t.name, None, t.dtype)
            if s is not None and not np.isfinite(s.param_norm):
                return NonFinite(step, "weight", "NaN", t.name, None, t.dtype)
    return None


def without_gradient(checks: Sequence[deque[StepRows]]) -> frozenset[str]:
    """Return the parameters whose gradient was zero in each of the last three steps."""
    steps = [list(c)[-3:] for c in checks]
    names = [
        {t.name for t in rows if t.statistics is None or t.statistics.grad_norm == 0}
        for of_one in steps
        for rows in of_one
    ]
    return frozenset(set.intersection(*names)) if len(checks) == 1 and names else frozenset()
