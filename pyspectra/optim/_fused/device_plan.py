"""The step on a CUDA device: the table, the step counts and the statistics stay there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._cuda import devices
from pyspectra.errors import ArgumentTypeError
from pyspectra.optim._fused import sharded
from pyspectra.optim._fused.plan import Plan, statistics_of, version
from pyspectra.optim._fused.rows import Entry
from pyspectra.types import StepStatistics

_FIELDS = len(ops.STATISTICS_COLUMNS)


def _capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def plan_class(owner: str, params: list[Tensor]) -> type[Plan]:
    """Return the plan for where the parameters are.

    Raises
    ------
    RuntimeError
        While a CUDA graph is being captured: a plan must be there before.
    """
    if not params[0].is_cuda:
        return Plan
    if _capturing():
        raise RuntimeError(
            f"{owner}: step() cannot begin inside a CUDA graph. Hint: take at least one step with "
            "the same parameters, state and hyper-parameters before the capture."
        )
    return DevicePlan


class _Statistics(Mapping[str, StepStatistics]):
    """Statistics that are read back when somebody looks."""

    def __init__(self, entries: list[Entry], buffer: Tensor) -> None:
        sizes = [sharded.local(e.p).numel() for e in entries]
        self._entries = {e.name: (k, sizes[k]) for k, e in enumerate(entries)}
        self._buffer = buffer

    def __getitem__(self, name: str) -> StepStatistics:
        k, n = self._entries[name]
        values = self._buffer.cpu().numpy()
        return statistics_of(n, values[_FIELDS * k : _FIELDS * (k + 1)], float(values[-1]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class DevicePlan(Plan):
    """Rows and options of a step over parameters on one CUDA device.

    A step launches kernels on torch's current stream and waits for nothing: whether a step is left
    out (``found_inf``), the clip factor and the count of steps are decided on the device. So it can
    be captured in a CUDA graph.
    """

    def __init__(
        self, owner: str, groups: list[dict[str, Any]], entries: list[Entry], taken: int
    ) -> None:
        device = entries[0].p.device
        _count_on_device(entries, device)
        super().__init__(owner, groups, entries, taken)
        options = self._step_options(lambda e: 1, 1.0)
        plan, self._count = ops.device_plan(self._table, options)
        n = len(entries)

        def doubles(size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        self._plan = torch.from_numpy(plan).to(device)
        self._masks = [e.state["mask"] for e in entries if e.compact]
        self._versions = self._mask_versions()
        if self._masks:
            index, stream = devices.current_stream(device)
            ops.device_ranks(tensors=n, plan=self._plan.data_ptr(), device=index, stream=stream)
        self._grads = torch.empty(n, dtype=torch.int64, device=device)
        self._prepared = torch.empty(
            ops.device_prepared_bytes(len(options)), dtype=torch.uint8, device=device
        )
        self._blocks = doubles(_FIELDS * sum(self._count))
        self._squares = doubles(n)
        self._cuts = sharded.cuts(self._params, device)
        self._totals = doubles(_FIELDS * n + 1)
        self._written: list[int] | None = None  # the addresses that self._grads holds
        self._captured = False

    def _mask_versions(self) -> list[int]:
        return [*map(version, self._masks)]

    def holds(
        self,
        groups: list[dict[str, Any]],
        params: list[Tensor],
        state_of: Mapping[Tensor, dict[str, Any]],
    ) -> bool:
        """Do as any plan does, and compare the masks too: they place the compact moments."""
        same = super().holds(groups, params, state_of)
        return same and self._mask_versions() == self._versions

    def run(
        self,
        *,
        found_inf: Tensor | None,
        loss_scale: Tensor | None,
        max_grad_norm: float | None,
        statistics: bool,
    ) -> Mapping[str, StepStatistics] | None:
        """Launch the step; statistics by name, where asked for."""
        device = self._params[0].device
        grads = self._usable_grads()
        addresses = [*map(Tensor.data_ptr, grads)]
        # A graph that was captured writes its own addresses at each replay.
        self._captured = self._captured or _capturing()
        unchanged = addresses == self._written and not self._captured
        self._written = addresses
        scalars = [_on_device(x, device) for x in (found_inf, loss_scale)]
        entries = [e for _, e in self._options.values()]
        index, stream = devices.current_stream(device)
        new_addresses = [] if unchanged else addresses
        across = self._sharded and max_grad_norm is not None
        if across:
            ops.device_squares(
                count=self._count,
                tensors=len(self._params),
                grads=new_addresses,
                grad_table=self._grads.data_ptr(),
                plan=self._plan.data_ptr(),
                blocks=self._blocks.data_ptr(),
                squares=self._squares.data_ptr(),
                device=index,
                stream=stream,
            )
            new_addresses = []
            sharded.add_over_processes(self._squares, self._cuts)
        ops.device_step(
            count=self._count,
            tensors=len(self._params),
            options=self._step_options(lambda e: 1, 1.0),
            steps=[e.state["step"].data_ptr() for e in entries],
            lrs=[_lr_address(self._owner, e.group["lr"], device) for e in entries],
            grads=new_addresses,
            grad_table=self._grads.data_ptr(),
            plan=self._plan.data_ptr(),
            prepared=self._prepared.data_ptr(),
            blocks=self._blocks.data_ptr(),
            squares=self._squares.data_ptr(),
            statistics=self._totals.data_ptr() if statistics else 0,
            found_inf=0 if scalars[0] is None else scalars[0].data_ptr(),
            loss_scale=0 if scalars[1] is None else scalars[1].data_ptr(),
            max_grad_norm=math.inf if max_grad_norm is None else max_grad_norm,
            squares_are_taken=across,
            device=index,
            stream=stream,
        )
        torch.autograd.graph.increment_version(self._params)
        return _Statistics(self._entries, self._totals) if statistics else {}


def _count_on_device(entries: list[Entry], device: torch.device) -> None:
    """Give the entries of a group that have taken the same steps a count of their own on `device`.

    Those of other plans must not go on with it: a parameter without a gradient takes no step.
    """
    counts: dict[tuple[int, int], Tensor] = {}
    before = [e.state["step"] for e in entries]
    for e, step in zip(entries, before, strict=True):
        key = (id(e.group), id(step) if isinstance(step, Tensor) else step)
        if key not in counts:
            counts[key] = torch.as_tensor(step, dtype=torch.int64).to(device, copy=True)
        e.state["step"] = counts[key]


def _on_device(x: Tensor | None, device: torch.device) -> Tensor | None:
    return None if x is None else x.to(device, torch.float32, non_blocking=True)


def _lr_address(owner: str, lr: float | Tensor, device: torch.device) -> int:
    """Address of a learning rate on the device, or 0 for one that is a number."""
    if not isinstance(lr, Tensor) or lr.is_cpu:
        return 0
    if lr.dtype is not torch.float32 or lr.device != device or lr.numel() != 1:
        raise ArgumentTypeError(
            owner,
            "lr",
            f"be a number or one float32 on {device}",
            f"{lr.dtype} of shape {tuple(lr.shape)} on {lr.device}",
        )
    return lr.data_ptr()
