"""Write the golden folder of torch.distributed.checkpoint, of two processes: ``python make_...py``.

A model that FSDP shards, with the state of its optimizer, and the same weights in one file.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

FOLDER = Path(__file__).parent


class Half(nn.Linear):
    def __init__(self, n: int, m: int) -> None:
        super().__init__(n, m, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.bfloat16())


def run(rank: int) -> None:
    os.chdir(FOLDER)  # the metadata keeps the path that it was given
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517", RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 9), Half(9, 5))
    fully_shard(model[2], mesh=init_device_mesh("cpu", (2,)))
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.arange(7)).float().sum().backward()
    optimizer.step()
    states = get_state_dict(model, optimizer)
    saved = {"model": states[0], "optimizer": states[1], "step": 3}
    dcp.save(saved, checkpoint_id="sharded")
    full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        np.savez("sharded.npz", **{k: v.float().numpy() for k, v in full.items()})
    dist.destroy_process_group()


def main() -> None:
    shutil.rmtree(FOLDER / "sharded", ignore_errors=True)
    torch.multiprocessing.spawn(run, nprocs=2)


if __name__ == "__main__":
    main()
