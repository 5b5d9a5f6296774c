"""One process of a distributed fine-tuning; `test_finetuning_processes` starts two of them."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pyspectra.finetune import LIFT, LotteryTicket, TempBalance, child_mask, fisher_diag
from pyspectra.optim import ChildAdamW

WIDTH, BATCHES, ROWS = 5, 6, 4
LAYOUTS = ("plain", "ddp", "fsdp", "compiled")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 7), nn.Linear(7, WIDTH)
        self.narrow = nn.Linear(WIDTH, 1)  # one row: empty in the second process
        self.experts = nn.Module()
        self.experts.up = nn.Parameter(torch.randn(3, WIDTH, WIDTH) / 3)

    def forward(self, x: Any) -> Any:
        x = x + self.fc2(torch.tanh(self.fc1(x))) * self.narrow(x)
        return x + torch.einsum("bi,eio->bo", x, self.experts.up) / 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(2)])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def loss_fn(model: Any, batch: Any) -> Any:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def data() -> list[Any]:
    g = torch.Generator().manual_seed(3)
    return [
        (torch.randn(ROWS, WIDTH, generator=g), torch.randint(0, 3, (ROWS,), generator=g))
        for _ in range(BATCHES)
    ]


def built(layout: str, mesh: Any = None) -> Any:
    torch.manual_seed(0)
    model: Any = Model()
    if layout == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if layout == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return torch.compile(model, backend="aot_eager") if layout == "compiled" else model


def own(batches: list[Any], rank: int, world: int) -> list[Any]:
    """Uneven: of seven batches and two processes, the first has four."""
    return batches[rank::world]


def scored(layout: str, rank: int, world: int, mesh: Any, **options: Any) -> dict[str, Any]:
    return fisher_diag(built(layout, mesh), own(data(), rank, world), loss_fn, **options)


def tuned(layout: str, mode: str, rank: int, world: int, mesh: Any) -> dict[str, Any]:
    """Fine-tune by Child-Tuning: each process with its share of every batch."""
    model = built(layout, mesh)
    options: dict[str, Any] = {"mode": mode}
    if mode == "D":
        scores = fisher_diag(model, own(data(), rank, world), loss_fn)
        options["mask"] = child_mask(scores, 0.3)
    opt = ChildAdamW(model.named_parameters(), lr=0.03, ema_decay=0.9, **options)
    for x, y in data():
        part = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
        loss_fn(model, (x[part], y[part])).backward()
        opt.step()
        opt.zero_grad()
    names = [name.replace("module.", "") for name, _ in model.named_parameters()]
    with torch.no_grad():
        raw = [whole(p) for p in model.parameters()]
        with opt.swap_ema():
            averages = [whole(p) for p in model.parameters()]
    found = dict(zip(names, raw, strict=True))
    return found | {f"{n} average": a for n, a in zip(names, averages, strict=True)}


def layered(layout: str, rank: int, world: int, mesh: Any) -> dict[str, Any]:
    """Train with learning rates by alpha, and with masks by magnitude after rank reduction."""
    model = built(layout, mesh)
    adam = torch.optim.AdamW(model.parameters(), lr=0.03)
    child = ChildAdamW(model.named_parameters(), lr=0.03, mode="D")
    layers = TempBalance(min_evals=0, every=2).attach(adam, model)
    preset = replace(LIFT, rank=1, share=0.3, every=2)
    masks = preset.attach(child, model, params=lambda n, _: "fc" in n and n.endswith("weight"))
    for x, y in data():
        part = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
        loss_fn(model, (x[part], y[part])).backward()
        adam.step()
        child.step()
        model.zero_grad()
        layers.step()
    ticket = LotteryTicket(model, child, params=lambda n, _: "fc1.weight" in n)
    ticket.prune(0.5, rewind=False)
    found = {n.replace("module.", ""): whole(p) for n, p in model.named_parameters()}
    factors = {f"lr of {k}": torch.tensor(v["lr"]) for k, v in layers.factors.items()}
    chosen = {f"mask {n.replace('module.', '')}": m for n, m in masks.masks.items()}
    return found | factors | chosen


def whole(p: Any) -> torch.Tensor:
    x = p.full_tensor() if hasattr(p, "full_tensor") else p
    return x.detach().clone()


def told(function: Any) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def broken(layout: str, rank: int, mesh: Any) -> str:
    """Meet data that is not finite in the second process alone."""
    batches = own(data(), rank, 2)
    if rank == 1:
        batches[1][0][0, 0] = float("nan")
    return told(lambda: fisher_diag(built(layout, mesh), batches, loss_fn))


def left_whole(batches: list[Any], mesh: Any) -> dict[str, Any]:
    """Score a model whose last forward pass has left its parameters gathered."""
    from torch.distributed.fsdp import fully_shard

    model = built("plain")
    for module in (*model.layers, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    model(torch.ones(2, WIDTH))
    return fisher_diag(model, batches, loss_fn)


def main(rank: int, world: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    results: dict[str, Any] = {}
    for layout in LAYOUTS:
        results[f"scores {layout}"] = scored(layout, rank, world, mesh)
        results[f"samples {layout}"] = scored(layout, rank, world, mesh, per_sample=True)
        results[f"mask {layout}"] = child_mask(results[f"scores {layout}"], 0.3)
    hybrid = init_device_mesh("cpu", (world, 1), mesh_dim_names=("copies", "shards"))
    results["scores hsdp"] = scored("fsdp", rank, world, hybrid)
    alone = fisher_diag(built("plain"), own(data(), rank, world), loss_fn, process_group=None)
    results["alone"] = alone
    uneven = data()[: 5 if rank == 0 else 2]
    for layout in ("ddp", "fsdp"):
        results[f"uneven {layout}"] = fisher_diag(built(layout, mesh), uneven, loss_fn)
        none = data() if rank == 0 else []
        results[f"empty {layout}"] = told(
            lambda layout=layout, none=none: fisher_diag(built(layout, mesh), none, loss_fn)
        )
        results[f"broken {layout}"] = broken(layout, rank, mesh)
        results[f"layered {layout}"] = layered(layout, rank, world, mesh)
        for mode in "DF":
            results[f"tuned {layout} {mode}"] = tuned(layout, mode, rank, world, mesh)
    results["left whole"] = left_whole(uneven, mesh)
    sharded = dict(built("fsdp", mesh).named_parameters())
    results["mask of shards"] = child_mask({n: p.detach() for n, p in sharded.items()}, 0.3)
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # The interpreter is not ended: gloo's threads may outlive it (see optim/sharded_run.py).
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
