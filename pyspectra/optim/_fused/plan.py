"""The kernel's table, kept from one step to the next.

Building a row checks everything that the kernel relies on. A step finds out whether all of it still
holds by comparing lists that C functions fill: identities, addresses, sizes, types, layouts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from operator import is_
from typing import Any

import torch
from torch import Tensor

from pyspectra import ops
from pyspectra.errors import DeviceError, RefusedTensorError
from pyspectra.optim._fused import groups as of_groups
from pyspectra.optim._fused import sharded, tensors
from pyspectra.optim._fused.names import parameter_key
from pyspectra.optim._fused.rows import Entry, row
from pyspectra.types import FloatArray, StepStatistics

_GRAD = ops.STEP_COLUMNS.index("grad")

_dtype_of = Tensor.dtype.__get__  # type: ignore[attr-defined]
_layout_of = Tensor.layout.__get__  # type: ignore[attr-defined]


def _key(step: int | Tensor) -> int:
    return id(step) if isinstance(step, Tensor) else step


def _fingerprint(watched: list[Tensor]) -> tuple[list[Any], ...]:
    return (
        [*map(Tensor.data_ptr, watched)],
        [*map(Tensor.numel, watched)],
        [*map(Tensor.is_contiguous, watched)],
        [*map(_dtype_of, watched)],
    )


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))


def version(x: Tensor) -> int:
    """Return how often `x` was written to, as autograd counts."""
    return 0 if x.is_inference() else x._version


def with_grads(groups: Iterable[Mapping[str, Any]]) -> list[Tensor]:
    """Return the parameters that take part in a step, in order."""
    return [p for group in groups for p in group["params"] if p.grad is not None]


class Plan:
    """Rows and options of a step over these parameters.

    Parameters
    ----------
    owner : str
        Class that error messages name.
    groups : list
        The optimizer's groups.
    entries : list of Entry
        The parameters with a gradient, in the order of the groups.
    taken : int
        Steps that the optimizer has taken before.
    """

    def __init__(
        self, owner: str, groups: list[dict[str, Any]], entries: list[Entry], taken: int
    ) -> None:
        self._owner = owner
        self._entries = entries
        self._params = [e.p for e in entries]
        self._sharded = any(map(sharded.is_sharded, self._params))
        self._states = [e.state for e in entries]
        self._lengths = [*map(len, self._states)]
        self._steps = [e.state["step"] for e in entries]
        self._groups = [*groups]  # options are read from these very dicts
        self._shaping = of_groups.shaping(groups)
        self._check_devices()
        self._in_order = all(sharded.local(p).is_contiguous() for p in self._params)
        # Masks that lie otherwise than their parameters, copies that do not, and their versions.
        self._turned: list[tuple[Tensor, Tensor, int]] = []
        # Index, and one that has it.
        self._options: dict[tuple[int, ...], tuple[int, Entry]] = {}
        # The steps that each has missed do not change while all of them take every step.
        self._leads: list[int] = []
        rows: list[tuple[int, ...]] = []
        # States by the key of an entry that the kernel reads or writes.
        self._users: dict[str, list[dict[str, Any]]] = {}
        for e, grad in zip(entries, self._usable_grads(), strict=True):
            same_options = (id(e.group), _key(e.state["step"]), e.momentum_start)
            found = self._options.setdefault(same_options, (len(self._options), e))
            if len(self._leads) < len(self._options):
                self._leads.append(max(0, taken - int(e.state["step"])))
            for kept in e.used:
                self._users.setdefault(kept.key, []).append(e.state)
            random = of_groups.is_random(e.group)
            key = parameter_key(e.group["seed"], e.name) if random else 0
            rows.append(row(owner, e, grad, self._mask(e), key=key, option=found[0]))
        of_groups.warn_of_rounding(owner, ((e.name, e.p, e.group) for e in entries))
        self._table = ops.optim_table(rows)
        self._tensors = self._current_tensors()
        self._fingerprint = _fingerprint(self._tensors)
        self._strides = [*map(Tensor.stride, self._params)]

    def _mask(self, e: Entry) -> Tensor | None:
        """Return the packed mask that the kernel reads."""
        if not any(kept.key == "mask" for kept in e.used):
            return None
        mask: Tensor = e.state["mask"]
        turned = tensors.mask_in_memory(mask, sharded.local(e.p))
        if turned is not mask:
            self._turned.append((mask, turned, version(mask)))
        return turned

    def _check_devices(self) -> None:
        home = self._params[0].device
        for e in self._entries:
            if e.p.device != home:
                raise DeviceError(
                    f"{self._owner}: parameter {e.name!r} must be on {home}, as the others of the "
                    f"step, got {e.p.device}. Hint: make one optimizer for each device."
                )

    def _current_tensors(self) -> list[Any]:
        out: list[Any] = [*self._params]
        for key, states in self._users.items():
            out += [state.get(key) for state in states]
        return [*map(sharded.local, out)] if self._sharded else out

    def holds(
        self,
        groups: list[dict[str, Any]],
        params: list[Tensor],
        state_of: Mapping[Tensor, dict[str, Any]],
    ) -> bool:
        """Tell whether the rows are right for a step over `params`, gradients aside."""
        if not _same(params, self._params) or not _same(groups, self._groups):
            return False
        if of_groups.shaping(groups) != self._shaping:
            return False
        states = [state_of[p] for p in params]
        if not _same(states, self._states) or [*map(len, states)] != self._lengths:
            return False
        if [state["step"] for state in states] != self._steps:
            return False
        if any(version(mask) != then for mask, _, then in self._turned):
            return False
        if not self._in_order and [*map(Tensor.stride, params)] != self._strides:
            return False
        current = self._current_tensors()
        return _same(current, self._tensors) and _fingerprint(current) == self._fingerprint

    def _usable_grads(self) -> list[Tensor]:
        grads: list[Tensor] = [p.grad for p in self._params]  # type: ignore[misc]
        strided = torch.strided
        if (
            all(layout is strided for layout in map(_layout_of, grads))
            and all(map(Tensor.is_contiguous, grads))
            and {*map(Tensor.get_device, grads)} == {self._params[0].get_device()}
            and not any(map(Tensor.is_neg, grads))
            and [*map(_dtype_of, grads)] == [*map(_dtype_of, self._params)]
            and [*map(Tensor.size, grads)] == [*map(Tensor.size, self._params)]
            and self._in_order
            and not self._sharded
        ):
            return grads
        return [tensors.usable_grad(self._owner, e.p, e.name) for e in self._entries]

    def _step_options(self, step: Callable[[Entry], int], scale: float) -> list[Any]:
        return [
            of_groups.step_options(
                e.rule,
                e.group,
                step(e),
                scale,
                momentum_start=e.momentum_start,
                ema_lead=lead,
            )
            for (_, e), lead in zip(self._options.values(), self._leads, strict=True)
        ]

    def taken(self) -> int | Tensor:
        """Return how many steps the optimizer has taken by now; on a device the count is there."""
        count: int | Tensor = self._states[0]["step"]
        return count + self._leads[0]

    def run(
        self,
        *,
        found_inf: Tensor | None,
        loss_scale: Tensor | None,
        max_grad_norm: float | None,
        statistics: bool,
    ) -> Mapping[str, StepStatistics] | None:
        """Take the step; statistics by name, where asked for. None if it was left out."""
        if found_inf is not None and float(found_inf) != 0:
            return None
        unscale = 1.0 if loss_scale is None else 1.0 / float(loss_scale)
        grads = self._usable_grads()  # alive until the kernel has read them
        self._table[:, _GRAD] = [*map(Tensor.data_ptr, grads)]
        scale = unscale
        if max_grad_norm is not None:
            squares = ops.optim_grad_squares(self._table)
            total = sharded.total(zip(self._params, map(float, squares), strict=True))
            scale *= clip_factor(total, unscale, max_grad_norm)
        options = self._step_options(lambda e: e.state["step"] + 1, scale)
        try:
            table = ops.optim_step(self._table, options, statistics=statistics)
        except RefusedTensorError as error:
            names = [e.name for e in self._entries]
            raise ValueError(error.told(self._owner, names)) from error
        # Autograd must know: a backward pass through the old weights is an error.
        torch.autograd.graph.increment_version(self._params)
        self._steps = [step + 1 for step in self._steps]
        for state, step in zip(self._states, self._steps, strict=True):
            state["step"] = step
        parts = self._tensors[: len(self._entries)]
        return {
            e.name: statistics_of(part.numel(), row, unscale)
            for e, part, row in zip(self._entries, parts, table, strict=statistics)
        }


def clip_factor(squares: float, unscale: float, max_norm: float) -> float:
    """Factor that `torch.nn.utils.clip_grad_norm_` would multiply the gradients with.

    Formed in float64 from the sum of squares of gradients still to be multiplied by `unscale`. As
    there, a norm that is Inf gives 0 and one that is NaN gives NaN.
    """
    total = math.sqrt(squares) * unscale
    factor = max_norm / (total + 1e-6)
    return 1.0 if factor >= 1.0 else factor


def statistics_of(n: int, row: FloatArray, unscale: float) -> StepStatistics:
    """Name what the kernel counted for one tensor, of gradients times `unscale`."""
    x = dict(zip(ops.STATISTICS_COLUMNS, map(float, row), strict=True))
    return StepStatistics(
        n=n,
        grad_norm=math.sqrt(x["grad_squares"]) * unscale,
        grad_max=x["grad_max"] * unscale,
        param_norm=math.sqrt(x["param_squares"]),
        update_norm=math.sqrt(x["update_squares"]),
        grad_dot_update=x["grad_dot_update"] * unscale,
        n_non_finite=int(x["non_finite"]),
        n_zero=int(x["zero"]),
        n_rounded_away=int(x["rounded_away"]),
    )
