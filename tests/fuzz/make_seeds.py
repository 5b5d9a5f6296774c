"""Write the good files that fuzzing starts from: ``python tests/fuzz/make_seeds.py``.

They are committed, so that every run starts from the same bytes; each is a few hundred bytes to a
few kilobytes.
"""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import pyspectra as ps
from pyspectra.training import History

SEEDS = Path(__file__).parent / "seeds"


def main() -> None:
    SEEDS.mkdir(exist_ok=True)
    torch.manual_seed(0)
    linear, conv = torch.randn(9, 8), torch.randn(3, 2, 3, 3)
    state = OrderedDict(
        {
            "a.weight": linear,
            "a.bias": torch.zeros(9),
            "c.weight": conv.half(),
            "n": torch.arange(3),
        }
    )
    save_file(dict(state), SEEDS / "plain.safetensors", metadata={"format": "pt"})
    save_file({"b.weight": linear.bfloat16(), "e": torch.zeros(0, 3)}, SEEDS / "bf16.safetensors")
    torch.save(state, SEEDS / "zip_state.pt")
    tied = {"model": {"x.weight": linear, "y.weight": linear, "z.weight": linear.t()[1:, ::2]}}
    torch.save({**tied, "epoch": 3, "lr": 0.1}, SEEDS / "zip_nested.pt")
    torch.save({"w": torch.nn.Parameter(linear.double())}, SEEDS / "zip_parameter.pt")
    torch.save(state, SEEDS / "legacy_state.pt", _use_new_zipfile_serialization=False)
    np.savez(SEEDS / "plain.npz", **{"a.weight": linear.numpy(), "b": np.arange(4)})
    np.savez_compressed(SEEDS / "deflated.npz", **{"a.weight": linear.double().numpy()})
    np.save(SEEDS / "plain.npy", linear.numpy())
    np.save(SEEDS / "fortran.npy", np.asfortranarray(linear.double().numpy()))

    shards = SEEDS / "shards"
    shards.mkdir(exist_ok=True)
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a.weight": linear}, shards / names[0])
    save_file({"b.weight": linear + 1}, shards / names[1])
    index = {
        "metadata": {"total_size": 576},
        "weight_map": dict(zip(("a.weight", "b.weight"), names, strict=True)),
    }
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))

    adapter = SEEDS / "adapter"
    adapter.mkdir(exist_ok=True)
    prefix = "base_model.model.layers.0.q_proj"
    pair = {
        f"{prefix}.lora_A.weight": torch.randn(2, 8),
        f"{prefix}.lora_B.weight": torch.randn(8, 2),
    }
    save_file(pair, adapter / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "rank_pattern": {},
        "alpha_pattern": {"layers.\\d+.q_proj": 8}, "target_modules": ["q_proj"],
    }  # fmt: skip
    (adapter / "adapter_config.json").write_text(json.dumps(config))

    report = ps.analyze({"a.weight": np.random.default_rng(0).standard_t(2, (12, 9))}, detx=True)
    report.save(SEEDS / "report.saved")
    write_runs()


def write_runs() -> None:
    """Write what training runs leave behind."""
    data = Path(__file__).parents[1] / "data"
    shutil.copyfile(data / "events.out.tfevents.runs", SEEDS / "run.tfevents.runs")
    steps = [{"step": i, "epoch": i / 4, "loss": 2.0 / i, "learning_rate": 1e-4} for i in (1, 2)]
    steps.append({"step": 2, "epoch": 0.5, "eval_loss": 1.1, "eval_accuracy": 0.7})
    state = {"log_history": steps, "max_steps": 20, "global_step": 2, "best_metric": None}
    (SEEDS / "run.history").write_text(json.dumps(state))
    (SEEDS / "run.table").write_text("step,epoch,train_loss,val_loss\n1,0,2.0,\n2,0,1.5,1.6\n")
    with History(SEEDS / "run.lines", config={"lr": 0.1}) as history:
        for step in (1, 2):
            history.log(step=step, epoch=step / 4, loss=1.0 / step, n=4)
        history.log(step=2, epoch=1, val_loss=0.75, val_accuracy=0.5)


if __name__ == "__main__":
    main()
