"""A toy that tells which weights were evaluated and saved, in every trainer.

The one weight is t after t steps, and the best one is 2.3. Its average with a decay of 1/2 lags
behind, so that the best checkpoint of the average, that of step 4, is not that of the weight, 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pyspectra.optim import EMA, AdamW

DECAY, BEST = 0.5, 2.3
OPTIONS: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.0}
AVERAGE: dict[str, Any] = {"ema_decay": DECAY, "ema_warmup": None}


class Toy(torch.nn.Module):
    """Training moves the weight by one a step; evaluation notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[float] = []

    def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
        if self.training:
            return {"loss": -self.weight.sum(), "logits": self.weight.reshape(1, 1)}
        weight = self.weight.detach().clone()
        self.seen.append(weight.item())
        return {"loss": (weight - BEST).square().sum(), "logits": weight.reshape(1, 1)}


def averages(steps: int) -> list[float]:
    values = [0.0]
    for t in range(1, steps + 1):
        values.append(values[-1] + (1 - DECAY) * (t - values[-1]))
    return values


def which(value: float, steps: int = 12) -> str:
    """Name a weight: "raw 4" or "average 4", after four steps."""
    table = {f"average {t}": x for t, x in enumerate(averages(steps)) if t}
    table |= {f"raw {t}": float(t) for t in range(steps + 1)}
    name = min(table, key=lambda k: abs(table[k] - value))
    assert abs(table[name] - value) < 1e-4, value
    return name


def names(values: Iterable[Any]) -> list[str]:
    return [which(torch.as_tensor(x).item()) for x in values]


def keeper(model: Any, fused: bool) -> tuple[Any, EMA | None]:
    """Return an optimizer, and an average beside it where that has none of its own."""
    if fused:
        return AdamW(model.named_parameters(), **OPTIONS, **AVERAGE), None
    return torch.optim.AdamW(model.parameters(), **OPTIONS), EMA(model, DECAY, None)


# --- a loop of one's own --------------------------------------------------------------------------


class Plain:
    """A loop over ``optimizer.step()``; what it keeps is a file of torch."""

    def __init__(self, folder: Path, fused: bool) -> None:
        self.folder = folder
        self.model = Toy()
        self.optimizer, self.ema = keeper(self.model, fused)
        if self.ema is not None:
            self.ema.attach(self.optimizer)
        self.done = 0

    @property
    def averages(self) -> Any:
        return self.optimizer if self.ema is None else self.ema

    def swap(self) -> Any:
        return self.optimizer.swap_ema() if self.ema is None else self.ema.swap()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model.train()(None)["loss"].backward()
        self.optimizer.step()

    def evaluate(self) -> float:
        with self.swap():
            return float(self.model.eval()(None)["loss"])

    def fit(self, until: int) -> None:
        losses: dict[int, float] = {}
        while self.done < until:
            self.step()
            self.done += 1
            if self.done % 2 == 0:
                losses[self.done] = self.evaluate()
                self.save(self.folder / f"{self.done}")
        self.best = min(losses, key=losses.__getitem__, default=0)

    def save(self, path: Path) -> None:
        own = {} if self.ema is None else {"ema": self.ema.state_dict()}
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **own}
        torch.save({**state, "averaged": self.averages.ema_state_dict(self.model)}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.done = int(path.name)

    def load_best(self) -> None:
        self.load(self.folder / f"{self.best}")

    def predict(self) -> float:
        with self.swap():
            return float(self.model.eval()(None)["logits"])

    def saved(self, path: Path) -> list[str]:
        state = torch.load(path, weights_only=True)
        return names([state["model"]["weight"], state["averaged"]["weight"]])


class Accelerate(Plain):
    """The same loop with what ``Accelerator.prepare`` returns, and its checkpoints."""

    def __init__(self, folder: Path, fused: bool) -> None:
        from accelerate import Accelerator

        super().__init__(folder, fused)
        if self.ema is not None:
            self.ema.detach()
        self.accelerator = Accelerator(cpu=True)
        self.model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        if self.ema is not None:
            self.ema.attach(self.optimizer)
            self.accelerator.register_for_checkpointing(self.ema)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.accelerator.backward(self.model.train()(None)["loss"])
        self.optimizer.step()

    def save(self, path: Path) -> None:
        self.accelerator.save_state(str(path))
        model = self.accelerator.unwrap_model(self.model)
        torch.save(self.averages.ema_state_dict(model), path / "averaged.pt")

    def load(self, path: Path) -> None:
        self.accelerator.load_state(str(path))
        self.done = int(path.name)

    def saved(self, path: Path) -> list[str]:
        from safetensors.torch import load_file

        raw = load_file(path / "model.safetensors")["weight"]
        return names([raw, torch.load(path / "averaged.pt", weights_only=True)["weight"]])
