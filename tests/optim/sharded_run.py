"""What `test_sharded` runs in two processes, and once more in one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pyspectra.optim import EMA, ChildAdamW

# Uneven cuts, and parts that are empty in the second process.
SHAPES = {
    "w": (7, 30),
    "row": (1, 6),
    "column": (9, 1),
    "conv": (5, 4, 3, 3),
    "b": (257,),
    "s": (1,),
}
HYPER: dict[str, Any] = {"lr": 7e-3, "betas": (0.88, 0.987), "eps": 3e-7, "weight_decay": 0.06}
LAYOUTS = ("rows", "columns", "replicated", "fsdp")
CASES = {
    "F": {"mode": "F", "seed": 5},
    "D": {"mode": "D"},
    "D undecayed": {"mode": "D", "decay_masked": False},
    "D compact": {"mode": "D", "compact": True},
    "bfloat16": {"mode": "F", "stochastic_rounding": True},
    "bfloat16 master": {"mode": "F", "master_weights": True},
}
LOADED = (("columns", "D"), ("fsdp", "F"), ("rows", "bfloat16 master"))
RESUMED = ("F", "D", "D compact")


class Weights(torch.nn.Module):
    """A module of nothing but parameters."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            value = torch.randn(shape, generator=generator).to(dtype)
            setattr(self, name, torch.nn.Parameter(value))


def place(value: Any, like: Any) -> Any:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


def laid_out(model: Any, layout: str | None, mesh: Any) -> Any:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    if layout is None:
        return model
    if layout == "fsdp":
        return fully_shard(model, mesh=mesh)
    for name, p in list(model.named_parameters()):
        if layout == "replicated":
            placement: Any = Replicate()
        else:
            placement = Shard(min(p.ndim - 1, 0 if layout == "rows" else 1))
        whole = distribute_tensor(p.detach(), mesh, [placement])
        setattr(model, name, torch.nn.Parameter(whole))
    return model


def gathered(tensors: dict[str, Any]) -> dict[str, Any]:
    return {
        k: (x.full_tensor() if hasattr(x, "full_tensor") else x).detach().clone()
        for k, x in tensors.items()
    }


def masks(model: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(8)
    return {
        name: torch.rand(shape, generator=generator) < 0.4
        for name, shape in SHAPES.items()
        if name not in ("row", "s")
    }


def new(case: str, layout: str | None, mesh: Any, **options: Any) -> tuple[Any, Any]:
    dtype = torch.bfloat16 if "bfloat16" in case else torch.float32
    model = laid_out(Weights(dtype), layout, mesh)
    options = {**HYPER, **CASES[case], "ema_decay": 0.9, **options}
    mask = masks(model) if options["mode"] == "D" else None
    return model, ChildAdamW(model.named_parameters(), mask=mask, **options)


def set_grads(model: Any, step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for name, p in model.named_parameters():
        value = (0.2 * torch.randn(SHAPES[name], generator=generator)).to(p.dtype)
        p.grad = place(value, p)


def outcome(model: Any, opt: Any, ema: Any = None) -> dict[str, Any]:
    found = {}
    states = opt.state_dict()["state"]
    for k, (name, p) in enumerate(model.named_parameters()):
        found[name] = p
        for key in ("exp_avg", "exp_avg_sq", "ema", "master"):
            if key in states[k]:
                found[f"{name} {key}"] = states[k][key]
    if ema is not None:
        found |= {f"{k} attached": x for k, x in ema.state_dict()["shadow"].items()}
    with opt.swap_ema():
        found |= {f"{k} swapped": x for k, x in gathered(dict(model.named_parameters())).items()}
    return gathered(found)


def steps(case: str, layout: str | None, mesh: Any = None, **options: Any) -> dict[str, Any]:
    """Take steps with given gradients."""
    model, opt = new(case, layout, mesh, **options)
    ema = EMA(model, 0.8).attach(opt)
    for t in range(4):
        set_grads(model, t)
        opt.step()
    return outcome(model, opt, ema)


def loaded(case: str, layout: str, mesh: Any) -> dict[str, Any]:
    """Take half of the steps whole, load the state into shards, take the rest."""
    whole, first = new(case, None, None)
    for t in range(2):
        set_grads(whole, t)
        first.step()
    model, opt = new(case, layout, mesh)
    with torch.no_grad():
        for (_, p), (_, q) in zip(model.named_parameters(), whole.named_parameters(), strict=True):
            p.copy_(place(q.detach(), p))
    opt.load_state_dict(first.state_dict())
    for t in range(2, 4):
        set_grads(model, t)
        opt.step()
    return outcome(model, opt)


def train(mesh: Any) -> dict[str, Any]:
    """Train with real gradients, each process on its half of the batch."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    rank, world = 0, 1
    if mesh is not None:
        from torch.distributed.fsdp import fully_shard

        rank, world = mesh.get_local_rank(), mesh.size()
        for layer in (net[0], net[2], net):
            fully_shard(layer, mesh=mesh)
    options = {**HYPER, "mode": "F", "max_grad_norm": 0.05, "ema_decay": 0.9}
    opt = ChildAdamW(net.named_parameters(), **options)
    for t in range(5):
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(t)).chunk(world)[rank]
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()
        with opt.swap_ema():
            net(x)
    return outcome(net, opt)


def checkpointed(case: str, mesh: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train on, or from a distributed checkpoint."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model, opt = new(case, "fsdp", mesh)
    for t in range(3):
        set_grads(model, t)
        opt.step()
    opt.zero_grad()
    weights, state = get_state_dict(model, opt)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / case)
    for t in range(3, 6):
        set_grads(model, t)
        opt.step()
    whole = outcome(model, opt)

    model, opt = new(case, "fsdp", mesh, seed=1)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    weights, state = get_state_dict(model, opt)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder / case)
    set_state_dict(model, opt, model_state_dict=weights, optim_state_dict=state)
    for t in range(3, 6):
        set_grads(model, t)
        opt.step()
    return whole, outcome(model, opt)


def fresh(mesh: Any, *, save: bool) -> dict[str, Any]:
    """Ask for the state before the first step, or do not."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model, opt = new("F", "fsdp", mesh)
    if save:
        get_optimizer_state_dict(model, opt)
    for t in range(2):
        set_grads(model, t)
        opt.step()
    return outcome(model, opt)


def main(rank: int, world: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    results = {
        f"{layout} {case}": steps(case, layout, mesh) for layout in LAYOUTS for case in CASES
    }
    for layout in LAYOUTS:
        results[f"{layout} clipped"] = steps("F", layout, mesh, max_grad_norm=0.5)
    for layout, case in LOADED:
        results[f"{layout} {case} loaded"] = loaded(case, layout, mesh)
    results["fsdp train"] = train(mesh)
    for mode in RESUMED:
        whole, resumed = checkpointed(mode, mesh, folder)
        results[f"dcp {mode} whole"], results[f"dcp {mode} resumed"] = whole, resumed
    results["fresh saved"] = fresh(mesh, save=True)
    results["fresh left alone"] = fresh(mesh, save=False)
    if rank == 0:
        torch.save(results, folder / "results.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # Once there was a DTensor, torch keeps gloo's threads after destroy_process_group. One of them
    # that lets go of a tensor while the interpreter ends aborts the process (pytorch issue 190489;
    # shown with torch alone). So the interpreter is not ended; an error above still ends it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
