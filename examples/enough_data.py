"""Does the spectrum of a network tell that it was trained with enough data?

One network learns clothes from 1, 10 and 100 % of Fashion-MNIST, from five seeds. Less data means
either fewer steps (as many epochs) or more epochs (as many steps), so every run takes the same
steps and is looked at on the way: at 47, 469 and 4690 steps, which are ten epochs of 1, 10 and
100 %. That is a grid of data against training, in which neither stands for the other::

    pip install "pyspectra-nn[torch,plot]"
    apt-get install dataset-fashion-mnist
    python examples/enough_data.py --out enough_data.json

``--network cnn`` and ``--network wide`` are the networks on which what was seen on the first one
was tried; ``--noise 0.6`` gives so many images a class at random. ``--table FILE ...`` prints the
tables of `docs/enough-data.md` and ``--plot FILE`` draws its picture from results that were kept.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; 60 000 and 10 000 grey images of 28 x 28.
"""

import argparse
import gzip
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pyspectra as ps

DATA = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package
SHARES = (0.01, 0.1, 1.0)
STEPS = (47, 469, 4690)  # ten epochs of each share
BATCH = 128


def load(folder, part):
    """Images (N, 1, 28, 28) of mean 0 and standard deviation 1, and classes, of the idx files."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = (pixels.astype(np.float32) / 255 - 0.2860) / 0.3530  # of the training images
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def dense(*sides):
    """A network of linear layers with ReLU between them."""
    layers = [nn.Flatten()]
    for inputs, outputs in pairwise(sides):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional():
    """Three convolutions that halve the picture, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


NETWORKS = {
    "dense": lambda: dense(784, 384, 256, 128, 10),
    "cnn": convolutional,
    "wide": lambda: dense(784, 768, 768, 10),
}


def accuracy(model, x, y):
    """Share of images whose class is found."""
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in x.split(2000)])
    return float((found == y).float().mean())


def spectra(model):
    """Numbers of the layers and the verdict, as they go into the results."""
    report = ps.analyze(model, progress=False)
    layers = [
        {
            "name": layer.name,
            "alpha": layer.alpha,
            "stderr": layer.fit.alpha_stderr,
            "warning": layer.warning,
            "log_norm": layer.metrics["log_norm"],
            "log_spectral_norm": layer.metrics["log_spectral_norm"],
            "stable_rank": layer.metrics["stable_rank"],
        }
        for layer in report.layers
    ]
    return {"verdict": report.verdict.label, "layers": layers}


def run(network, share, seed, *, train_set, test_set, noise=0.0, steps=STEPS, lr=1e-3):
    """Train once; return a row for each of the steps at which the network is looked at."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(train_set[0]), generator=generator)
    chosen = chosen[: round(share * len(chosen))]
    x, y = (part[chosen] for part in train_set)
    if noise:
        wrong = torch.rand(len(y), generator=generator) < noise
        y = torch.where(wrong, torch.randint(10, y.shape, generator=generator), y)
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    rows, step = [], 0
    while step < steps[-1]:
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            step += 1
            if step in steps:
                rows.append({
                    "network": network, "share": share, "noise": noise, "seed": seed, "step": step,
                    "train_accuracy": accuracy(model, x[:6000], y[:6000]),
                    "test_accuracy": accuracy(model, *test_set), **spectra(model),
                })  # fmt: skip
            if step == steps[-1]:
                break
    return rows


def main(arguments=None):
    """Train all runs, or show what runs have found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files")
    parser.add_argument("--network", choices=NETWORKS, default="dense")
    parser.add_argument("--noise", type=float, default=0.0, help="share of labels drawn at random")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, help="write the rows to this file, as JSON")
    options = parser.parse_args(arguments)

    train_set, test_set = load(options.data, "train"), load(options.data, "t10k")
    rows = []
    for seed in options.seeds:
        for share in options.shares:
            start = time.perf_counter()
            rows += run(
                options.network, share, seed, train_set=train_set, test_set=test_set,
                noise=options.noise, lr=options.lr,
            )  # fmt: skip
            print(f"seed {seed}, {share:.0%}: {time.perf_counter() - start:.0f} s", flush=True)
            for row in rows[-len(STEPS) :]:
                alphas = [
                    f"{la['alpha']:.2f}{'*' if la['warning'] else ''}" for la in row["layers"]
                ]
                print(f"  {row['step']:5d} {row['train_accuracy']:.3f} {row['test_accuracy']:.3f} "
                      f"{row['verdict']:18s} {' '.join(alphas)}", flush=True)  # fmt: skip
            if options.out:
                options.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
