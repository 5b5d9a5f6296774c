"""Do small networks hide in a large one? The lottery ticket on Fashion-MNIST; table of lottery.md.

    python benchmarks/lottery.py run OUT [--seeds 5]
    python benchmarks/lottery.py table OUT

A network of two hidden layers (300 and 100, as in the paper) learns 12 000 images of
Debian's dataset-fashion-mnist with AdamW for 8 epochs. Rounds of training, pruning and rewinding to
step 50 go down to 80, 90 and 95 % of zeros. Each ticket is compared with three networks of as many
weights that never saw another round: its mask with other initial weights; a random mask of the same
share in each layer, with the same initial weights; and the dense network pruned once, at the end,
without training on.
"""

import argparse
import copy
import gzip
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pyspectra as ps
from pyspectra.finetune import LotteryTicket, layer_scores
from pyspectra.optim import ChildAdamW

DATA = Path("/usr/share/datasets/fashion-mnist")
SPARSITIES = (0.4, 0.65, 0.8, 0.9, 0.95)
SHOWN = (0.8, 0.9, 0.95)
IMAGES, EPOCHS, BATCH, REWIND = 12000, 8, 100, 50


def load(part):
    with gzip.open(DATA / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(DATA / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = torch.from_numpy((pixels.astype(np.float32) / 255 - 0.2860) / 0.3530)
    return images, torch.from_numpy(labels.astype(np.int64))


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )  # fmt: skip


def optimizer_of(model, **options):
    return ChildAdamW(model.named_parameters(), lr=1e-3, weight_decay=0.05, mode="D", **options)


def train(model, optimizer, x, y, seed, first=0, last=EPOCHS * IMAGES // BATCH):
    """The steps from `first` to `last` of a run whose order of images the seed decides."""
    draws = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(x), generator=draws) for _ in range(EPOCHS)])
    for step in range(first, last):
        now = order[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        cross_entropy(model(x[now]), y[now]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model, x, y):
    return float((model(x).argmax(1) == y).float().mean())


def alphas(model):
    return {row.key: row.value for row in layer_scores(model)}


def masked(model, masks):
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    return model


def shuffled(masks, seed):
    draws = torch.Generator().manual_seed(seed)
    return {
        n: m.flatten()[torch.randperm(m.numel(), generator=draws)].reshape(m.shape)
        for n, m in masks.items()
    }


def one(seed, sets):
    (x, y), test = sets
    model = network(seed)
    optimizer = optimizer_of(model)
    ticket = LotteryTicket(model, optimizer)
    train(model, optimizer, x, y, seed, 0, REWIND)
    ticket.record()
    train(model, optimizer, x, y, seed, REWIND)
    dense = copy.deepcopy(model)
    rows = [
        {"what": "dense", "sparsity": 0.0, "test": accuracy(model, *test), "alpha": alphas(model)}
    ]
    for target in SPARSITIES:
        ticket.prune(1 - (1 - target) / (1 - ticket.sparsity))
        train(model, optimizer, x, y, seed, REWIND)
        if target not in SHOWN:
            continue

        def row(what, net, target=target):
            found = accuracy(net, *test)
            rows.append({"what": what, "sparsity": target, "test": found, "alpha": alphas(net)})

        row("ticket", model)
        for what, start, masks in (
            ("mask, other weights", network(1000 + seed), ticket.masks),
            ("random mask", network(seed), shuffled(ticket.masks, seed)),
        ):
            other = masked(start, masks)
            train(other, optimizer_of(other, mask=masks), x, y, seed)
            row(what, other)
        row("pruned once, not trained on", smallest_removed(dense, target))
    return rows


def smallest_removed(model, target):
    return ps.prune(copy.deepcopy(model), target, scope="global", inplace=True)


def run(out, seeds):
    torch.set_num_threads(1)
    x, y = load("train")
    sets = (x[:IMAGES], y[:IMAGES]), load("t10k")
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        file = out / f"{seed}.json"
        if not file.exists():
            rows = one(seed, sets)
            file.write_text(json.dumps(rows))
            print(seed, [(r["what"], r["sparsity"], r["test"]) for r in rows], flush=True)


def summary(values):
    m = sum(values) / len(values)
    s = math.sqrt(sum((v - m) ** 2 for v in values) / max(1, len(values) - 1) / len(values))
    return f"{m:.2f} ± {s:.2f}"


def table(out):
    seeds = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    keys = [*dict.fromkeys((r["sparsity"], r["what"]) for r in seeds[0])]
    names = [*seeds[0][0]["alpha"]]
    heads = " | ".join(f"alpha of `{name}`" for name in names)
    print(
        f"\n| zeros | network | test accuracy, % | {heads} |\n|---|---|---|" + "---|" * len(names)
    )
    for sparsity, what in keys:
        rows = [r for some in seeds for r in some if (r["sparsity"], r["what"]) == (sparsity, what)]
        cells = [summary([100 * r["test"] for r in rows])]
        for name in names:
            found = [r["alpha"].get(name, math.nan) for r in rows]
            fine = [a for a in found if math.isfinite(a)]
            cells.append(f"{sum(fine) / len(fine):.2f}" if fine else "none")
        print(f"| {100 * sparsity:.0f} % | {what} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    if options.command == "run":
        run(options.out, options.seeds)
    table(options.out)
