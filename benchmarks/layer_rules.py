"""What do rules by layer and child networks do for a small network? Tables of layer_rules.md.

    python benchmarks/layer_rules.py run OUT [--seeds 3]
    python benchmarks/layer_rules.py table OUT

A residual network of six blocks on Fashion-MNIST (Debian's dataset-fashion-mnist). *From the start*
on 10 000 images: learning rates by alpha (TempBalance) and decay by alpha (AlphaDecay), against one
value for all layers, and against the same factors dealt out at random, which tells the effect of
alpha from that of different rates. *Fine-tuning* on 300 images turned by 90 degrees of a network
that knows upright ones: which part of it is trained. Every arm has three learning rates, of which
the one with the best mean on 5 000 other images counts; the table has the accuracy on the test set.
"""

import argparse
import copy
import gzip
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pyspectra.finetune import (
    FISH,
    GMT,
    HFT,
    LIFT,
    LISA,
    LT_SFT,
    SIFT,
    AlphaDecay,
    BitFit,
    Decision,
    FreezeWellTrained,
    LayerRule,
    Spectrum,
    TempBalance,
    change_scores,
    fisher_diag,
)
from pyspectra.optim import ChildAdamW

DATA = Path("/usr/share/datasets/fashion-mnist")
RATES = (3e-4, 1e-3, 3e-3)
DECAY = 0.1
EPOCHS, BATCH, STEPS = 8, 100, 150


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self, seed, width=96, depth=6):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Linear(784, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.flatten(1))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


# --- rivals ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Dealt(LayerRule):
    """The factors of another rule, dealt out to its layers at random."""

    rule: LayerRule
    seed: int

    def decide(self, found, scores, turn):
        decision = self.rule.decide(found, scores, turn)
        order = np.random.default_rng((self.seed, turn)).permutation(len(decision.factors))
        values = [*decision.factors.values()]
        return Decision({k: values[i] for k, i in zip(decision.factors, order, strict=True)})


class DealtRate(Dealt):
    options = ("lr",)


class DealtDecay(Dealt):
    options = ("weight_decay",)


@dataclass(frozen=True, kw_only=True)
class Named(LayerRule):
    """Trains the parameters of which a name begins as told."""

    begins: tuple

    def decide(self, found, scores, turn):
        names = [n for unit in found for n in unit.names]
        return Decision(frozen=frozenset(n for n in names if not n.startswith(self.begins)))


@dataclass(frozen=True, kw_only=True)
class RandomLayers(LayerRule):
    """As many layers of each type as Spectrum trains, whatever their signal."""

    percent: float
    seed: int

    def decide(self, found, scores, turn):
        draws = np.random.default_rng(self.seed)
        noise = {k: replace(v, value=float(draws.random())) for k, v in scores.items()}
        return Spectrum(percent=self.percent).decide(found, noise, turn)


def start_rules(seed):
    temp, decay = TempBalance(), AlphaDecay(high=5.0, every=100)
    deal = {"score": temp.score, "seed": seed}
    return {
        "one rate": None,
        "TempBalance": temp,
        "its factors, at random": DealtRate(rule=temp, every=1, **deal),
        "AlphaDecay": decay,
        "its factors, dealt at random": DealtDecay(rule=decay, every=100, **deal),
    }


def tuning_rules(seed):
    return {
        "everything": None,
        "head alone": Named(begins=("head",)),
        "BitFit": BitFit(),
        "HFT": HFT(seed=seed),
        "LISA, 2 of 6 blocks": LISA(active=2, every=20, seed=seed),
        "Spectrum, 50 %": Spectrum(),
        "half of each type at random": RandomLayers(score="snr", percent=50, seed=seed),
        "Spectrum, 25 %": Spectrum(percent=25),
        "a quarter of each type at random": RandomLayers(score="snr", percent=25, seed=seed),
        "alpha from 2 to 4 frozen": FreezeWellTrained(),
    }


CHILDREN = {
    "GMT": GMT,
    "SIFT (0.8 %)": SIFT,
    "FISH (0.5 %)": FISH,
    "LT-SFT (1 %)": LT_SFT,
    "LIFT (rank 16, 5 %)": replace(LIFT, rank=16, every=50),
}


# --- data and training ----------------------------------------------------------------------------


def load(part):
    with gzip.open(DATA / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(DATA / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = torch.from_numpy((pixels.astype(np.float32) / 255 - 0.2860) / 0.3530)
    return images, torch.from_numpy(labels.astype(np.int64))


def turned(x):
    return torch.rot90(x, 1, (1, 2))


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    return float((model(x).argmax(1) == y).float().mean())


def train(model, optimizer, x, y, steps, seed, each=None, epoch=None):
    """Steps of a linear schedule to zero; `each` and `epoch` are stepped."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 - s / steps)
    draws = torch.Generator().manual_seed(seed)
    model.train()
    left = []
    for _ in range(steps):
        if len(left) == 0:
            left = torch.randperm(len(x), generator=draws)
        now, left = left[:BATCH], left[BATCH:]
        optimizer.zero_grad()
        cross_entropy(model(x[now]), y[now]).backward()
        optimizer.step()
        schedule.step()
        if each is not None:
            each.step()
        if epoch is not None and len(left) == 0:
            epoch.step()


def from_start(name, seed, lr, sets):
    (x, y), val, test = sets["train"], sets["val"], sets["test"]
    model = Net(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=DECAY)
    rule = start_rules(seed)[name]
    scheduler = None if rule is None else rule.attach(optimizer, model)
    per_epoch = "lr" in rule.options if rule else False
    train(model, optimizer, x, y, EPOCHS * len(x) // BATCH, seed,
          None if per_epoch else scheduler, scheduler if per_epoch else None)  # fmt: skip
    factors = [] if scheduler is None else [*scheduler.factors.values()]
    return {
        "val": accuracy(model, *val),
        "test": accuracy(model, *test),
        "factors": sorted(v for f in factors for v in f.values()),
    }


def tuned(name, seed, lr, sets, model):
    """Fine-tune a copy of `model`; return accuracies on turned and on upright images."""
    model = copy.deepcopy(model)
    x, y = sets["small", seed]
    share = 1.0
    if name in CHILDREN:
        weights = [n for n, p in model.named_parameters() if p.ndim > 1 and "head" not in n]
        preset, scores = CHILDREN[name], None
        if preset is FISH:
            scores = fisher_diag(model, [(x, y)], lambda m, b: cross_entropy(m(b[0]), b[1]),
                                 params=weights, per_sample=True, max_grad_norm=None)  # fmt: skip
        if preset is LT_SFT:
            before = copy.deepcopy(model.state_dict())
            full = torch.optim.AdamW(model.parameters(), lr=1e-3)
            train(model, full, x, y, STEPS, seed)
            scores = change_scores(model, before, weights)
            model.load_state_dict(before)
        optimizer = ChildAdamW(model.named_parameters(), lr=lr, mode="D", decay_masked=False)
        chosen = preset.attach(optimizer, model, params=None if scores else weights, scores=scores)
        train(model, optimizer, x, y, STEPS, seed)
        total = sum(p.numel() for p in model.parameters())
        masked = sum(m.numel() - int(m.sum()) for m in chosen.masks.values())
        share = 1 - masked / total
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        rule = tuning_rules(seed)[name]
        scheduler = None if rule is None else rule.attach(optimizer, model)
        train(model, optimizer, x, y, STEPS, seed, scheduler)
        trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
        share = trains / sum(p.numel() for p in model.parameters())
    v, t = sets["val"], sets["test"]
    return {
        "val": accuracy(model, turned(v[0]), v[1]),
        "test": accuracy(model, turned(t[0]), t[1]),
        "upright": accuracy(model, *t),
        "share": share,
    }


def run(out, seeds):
    torch.set_num_threads(1)
    x, y = load("train")
    sets = {"train": (x[:10000], y[:10000]), "val": (x[55000:], y[55000:]), "test": load("t10k")}
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name in start_rules(seed):
            for lr in RATES:
                save(
                    out,
                    "start",
                    name,
                    seed,
                    lr,
                    lambda n=name, r=lr, s=seed: from_start(n, s, r, sets),
                )
        draws = torch.Generator().manual_seed(seed)
        some = 20000 + torch.randperm(30000, generator=draws)[:300]
        sets["small", seed] = turned(x[some]), y[some]
        model = Net(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY)
        train(model, optimizer, *sets["train"], EPOCHS * 100, seed)
        for name in (*tuning_rules(seed), *CHILDREN):
            for lr in RATES:
                save(out, "tuning", name, seed, lr,
                     lambda n=name, r=lr, s=seed, m=model: tuned(n, s, r, sets, m))  # fmt: skip


def save(out, task, name, seed, lr, work):
    file = out / f"{task}-{name.replace(' ', '_')}-{lr}-{seed}.json"
    if not file.exists():
        row = {"task": task, "name": name, "seed": seed, "lr": lr, **work()}
        file.write_text(json.dumps(row))
        print(row, flush=True)


# --- tables ---------------------------------------------------------------------------------------


def mean(values):
    return sum(values) / len(values)


def spread(values):
    """Standard error of the mean."""
    m = mean(values)
    return math.sqrt(sum((v - m) ** 2 for v in values) / max(1, len(values) - 1) / len(values))


def best(rows):
    """The rows of the learning rate with the best mean on the validation images."""
    by_rate = {}
    for row in rows:
        by_rate.setdefault(row["lr"], []).append(row)
    return max(by_rate.values(), key=lambda some: mean([row["val"] for row in some]))


def table(out):
    rows = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    for task, names, base in (
        ("start", start_rules(0), "one rate"),
        ("tuning", (*tuning_rules(0), *CHILDREN), "everything"),
    ):
        tuning = task == "tuning"
        extra = " upright | trained |" if tuning else ""
        print(f"\n| what | lr | test accuracy, % | against {base}, points |{extra}")
        print("|---|---|---|---|" + ("---|---|" if tuning else ""))
        of = {n: best([r for r in rows if r["task"] == task and r["name"] == n]) for n in names}
        plain = {row["seed"]: row["test"] for row in of[base]}
        for name, some in of.items():
            tests = [100 * row["test"] for row in some]
            gains = [100 * (row["test"] - plain[row["seed"]]) for row in some]
            line = f"| {name} | {some[0]['lr']:g} | {mean(tests):.2f} ± {spread(tests):.2f} | "
            line += "" if name == base else f"{mean(gains):+.2f} ± {spread(gains):.2f}"
            if tuning:
                line += f" | {100 * mean([row['upright'] for row in some]):.1f}"
                line += f" | {100 * mean([row['share'] for row in some]):.1f} %"
            print(line + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.command == "run":
        run(options.out, options.seeds)
    table(options.out)
