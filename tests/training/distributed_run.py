"""One process of a distributed run that is watched; `test_distributed` starts two of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from pyspectra.training import Watch

X = torch.randn(240, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
BATCH, STEPS = 24, 12

CASES = ("ddp", "fsdp", "fsdp budget", "ddp compiled", "ddp nan")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 33), nn.ReLU(), nn.Linear(33, 16), nn.ReLU(),
                         nn.Linear(16, 3))  # fmt: skip


def part(step: int, rank: int, world: int) -> slice:
    """Rows of a step in a process: of two, the first has two thirds of the batch."""
    start = BATCH * step % len(X)
    if world == 1:
        return slice(start, start + BATCH)
    cut = start + 2 * BATCH // 3
    return slice(start, cut) if rank == 0 else slice(cut, start + BATCH)


def wrapped(model: Any, case: str) -> Any:
    if case.startswith("fsdp"):
        from torch.distributed.fsdp import fully_shard

        for layer in (model[0], model[2]):
            fully_shard(layer)
        return fully_shard(model)
    if case.startswith("ddp"):
        model = nn.parallel.DistributedDataParallel(model)
    return torch.compile(model, backend="aot_eager") if "compiled" in case else model


def whole(model: Any) -> list[torch.Tensor]:
    return [p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone()
            for p in model.parameters()]  # fmt: skip


def run(case: str, rank: int, world: int, history: Path | None) -> dict[str, Any]:
    """Train for two epochs; with a path also watch, and return what the watch says."""
    model = wrapped(network(), case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    watch = None
    if history is not None:
        spectra = {"spectra_budget": 0.9} if "budget" in case else {"spectra_every": 6}
        watch = Watch(
            model, optimizer, history=history, on="collect", every=4, loss="cross_entropy",
            steps_per_epoch=STEPS // 2, process_group=dist.group.WORLD if world > 1 else None,
            **spectra,
        )  # fmt: skip
    for step in range(STEPS):
        rows = part(step, rank, world)
        x, y = X[rows].clone(), Y[rows]
        if "nan" in case and step == 5 and rank == world - 1:
            x[0, 0] = float("nan")
        optimizer.zero_grad()
        out = model(x)
        loss = F.cross_entropy(out, y)
        loss.backward()
        optimizer.step()
        if watch is None:
            continue
        watch.step(loss, inputs=x, targets=y, outputs=out, twice=2 * loss.detach())
        if step % (STEPS // 2) == STEPS // 2 - 1:
            with watch.evaluating():
                rows = part(0, rank, world)
                out = model(X[rows])
                watch.eval_batch(F.cross_entropy(out, Y[rows]), outputs=out, targets=Y[rows])
            watch.end_epoch()
    result: dict[str, Any] = {"weights": whole(model)}
    if watch is not None:
        checks = [list(rows) for c in watch._run._checks for rows in c]
        result["steps"] = [
            {t.name: (t.statistics.grad_norm, t.statistics.update_norm, t.statistics.n)
             for t in rows if t.statistics is not None}
            for rows in checks
        ]  # fmt: skip
        result["findings"] = [
            (x.code, x.severity, x.evidence.get("rank")) for x in watch.report().all_findings
        ]
        watch.close()
    return result


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    results = {}
    for case in CASES:
        torch.compiler.reset()
        results[f"{case} alone"] = run(case, rank, world, None)
        torch.compiler.reset()
        results[case] = run(case, rank, world, folder / f"{case}.jsonl")
    torch.save(results, folder / f"results{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # As in optim/sharded_run.py: gloo's threads may outlive the interpreter.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
