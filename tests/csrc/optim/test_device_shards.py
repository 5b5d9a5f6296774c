"""The clip norm of sharded parameters on a device: squares there, added up, then the step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from csrc.optim.device_cases import named, on_host
from optim.optim_cases import HYPER

from pyspectra.optim import AdamW
from pyspectra.optim._fused.device_plan import DevicePlan

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo"
)
SHAPES = ((7, 30), (1, 6), (257,), (3, 4))


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    from torch.distributed.device_mesh import init_device_mesh

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def sharded(mesh: Any, x: Any, k: int) -> Any:
    """Two shards, a copy in each process, and one that is no DTensor."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    placement: Any = (Shard(0), Replicate(), Shard(x.ndim - 1), None)[k]
    return x if placement is None else distribute_tensor(x, mesh, [placement])


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("max_grad_norm", [0.3, 1e6])
def test_the_clip_factor_is_that_of_the_host(
    device: str, mesh: Any, monkeypatch: Any, max_grad_norm: float, processes: int
) -> None:
    if device != "cpu":
        pytest.skip("one process with gloo has its tensors in host memory")
    added = []

    def all_reduce(x: Any, group: Any) -> None:
        """As if so many processes had the same part."""
        added.append(x.numel())
        x.mul_(processes)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in SHAPES]
    runs = []
    for _ in range(2):
        params = [torch.nn.Parameter(sharded(mesh, x, k)) for k, x in enumerate(values)]
        runs.append((params, AdamW(named(params), max_grad_norm=max_grad_norm, **HYPER)))
    (host, a), (copies, b) = runs
    for t in range(3):
        for k, (p, q) in enumerate(zip(host, copies, strict=True)):
            grad = torch.randn(SHAPES[k], generator=torch.Generator().manual_seed(10 * t + k))
            p.grad, q.grad = sharded(mesh, grad, k), sharded(mesh, grad, k)
        on_host(a)
        b.step()
    assert type(b._plan) is DevicePlan
    assert 2 in added  # both shards at once
    locals_ = [[getattr(p, "_local_tensor", p) for p in params] for params in (host, copies)]
    for x, y in zip(*locals_, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-7)
