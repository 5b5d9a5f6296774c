"""A small training run that saves itself every few steps: what `test_resume` kills and resumes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from pyspectra.optim import ChildAdamW, NoamLR

STEPS, SAVE_EVERY, MICRO_BATCHES = 40, 3, 2


class Transformer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(29, 16)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(16, 29)

    def forward(self, ids: Any) -> Any:
        return self.head(self.layers(self.embed(ids)))


def masks(model: torch.nn.Module) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.rand(p.shape, generator=generator) < 0.3
        for name, p in model.named_parameters()
        if name.startswith("layers") and p.ndim == 2
    }


def train(folder: Path, mode: str, *, report: Any = None) -> tuple[Any, Any, Any]:
    """Train from the last checkpoint in the folder, or from the start, to the end."""
    torch.manual_seed(0)
    model = Transformer()
    file = folder / "checkpoint.pt"
    saved = torch.load(file, weights_only=True) if file.exists() else None
    optimizer = ChildAdamW(
        model.named_parameters(),
        lr=1.0,
        weight_decay=0.1,
        mode=mode,
        reserve_p=0.3,
        # A resumed run has its mask from the checkpoint.
        mask=masks(model) if mode == "D" and saved is None else None,
        ema_decay=0.95,
        seed=11,
        max_grad_norm=0.5,
    )
    schedule = NoamLR(optimizer, model_dim=16, warmup_steps=10)
    first = 0
    if saved is not None:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["step"]
    for step in range(first, STEPS):
        optimizer.zero_grad()
        for micro in range(MICRO_BATCHES):
            generator = torch.Generator().manual_seed(1000 * step + micro)
            ids = torch.randint(0, 29, (4, 9), generator=generator)
            logits = model(ids[:, :-1]).flatten(0, 1)
            torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % SAVE_EVERY == 0:
            checkpoint = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": step + 1,
            }
            temporary = folder / "checkpoint.tmp"
            torch.save(checkpoint, temporary)
            os.replace(temporary, file)
        if report is not None:
            report(step)
    return model, optimizer, schedule


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), sys.argv[2], report=lambda step: print(step, flush=True))
    signal.pause()  # whoever is to kill this run may be late
