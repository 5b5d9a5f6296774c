"""Clothes in ten classes: overfit one batch, then learn from a balanced subset, then from all.

The order saves days. A model that cannot learn one batch by heart has a fault, which no amount of
data mends; a few hundred samples show whether it generalises at all, in seconds; and only then is
it worth to train on everything::

    pip install "pyspectra-nn[torch,plot]"
    apt-get install dataset-fashion-mnist
    python examples/fashion_mnist.py --html run.html --plot curves.png

What to look at. Step 1 prints a verdict, ``fits``, and then that of the same network with a softmax
before its cross-entropy: a fault that only makes training slow, so that nobody sees it in a run on
all data. Step 2 repeats a subset of 30 samples a class with other seeds: a difference between two
settings that is smaller than the spread of these repetitions says nothing. Step 3 records and
watches the training on all data; its history, findings and spectra are one page.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; 60 000 and 10 000 grey images of 28 x 28.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pyspectra.training import History, Watch, data, plot_history, read_out, sanity

DATA = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package
CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
           "bag", "boot")  # fmt: skip


def load(folder, part):
    """Images (N, 1, 28, 28) of mean 0 and standard deviation 1, and classes, of the idx files."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = (pixels.astype(np.float32) / 255 - 0.2860) / 0.3530  # of the training images
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def network(seed):
    """A small convolutional network; its initial weights depend on the seed alone."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, 10),
    )  # fmt: skip


def train(model, train_set, val_set, *, epochs, batch, history, seed, spectra_every=None):
    """Train with a watch, which records both splits and speaks if something is wrong."""
    x, y = train_set
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = -(-len(x) // batch)
    watch = Watch(
        model, optimizer, history=history, steps_per_epoch=steps, planned_steps=steps * epochs,
        spectra_every=spectra_every,
    )  # fmt: skip
    torch.manual_seed(seed)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            out = model(x[rows])
            loss = cross_entropy(out, y[rows])
            loss.backward()
            optimizer.step()
            watch.step(loss, inputs=x[rows], targets=y[rows], outputs=out)
        with watch.evaluating():
            for images, labels in zip(val_set[0].split(500), val_set[1].split(500), strict=True):
                out = model(images)
                watch.eval_batch(cross_entropy(out, labels), outputs=out, targets=labels)
        watch.end_epoch()
    watch.close()
    return watch.report()


def overfit_one_batch(train_set, seed):
    """Step 1: can the network learn 32 images by heart? And what if it has a fault?"""
    x, y = train_set
    rows = data.balanced_subset(y, 32, seed=seed)
    batch = x[rows], y[rows]
    good = sanity.overfit_one_batch(network(seed), cross_entropy, batch, steps=150)
    print(f"1. one batch: {good.verdict} (loss {good.losses[0]:.2f} to {good.losses[-1]:.2g})")
    faulty = nn.Sequential(network(seed), nn.Softmax(1))
    bad = sanity.overfit_one_batch(faulty, cross_entropy, batch, steps=150)
    print(f"   with a softmax before the loss: {bad.verdict}")
    for finding in bad.findings[:1]:
        print(f"   {finding.code}: {finding.message}")
    return good, bad


def balanced_subsets(train_set, val_set, *, seed, times, epochs):
    """Step 2: how well does it do from 30 images a class, and how much of that is chance?"""
    x, y = train_set
    found = []
    for rows in data.repeat_subsets(y, 300, times, seed=seed):
        history = History()
        part = x[rows], y[rows]
        train(network(seed), part, val_set, epochs=epochs, batch=16, history=history, seed=seed)
        found.append(history.best("val_accuracy").value)
    mean, spread = np.mean(found), np.std(found, ddof=1)
    print(f"2. {times} subsets of 300: accuracy {mean:.3f} +- {spread:.3f}")
    return found


def main(arguments=None):
    """Go through the three steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files")
    parser.add_argument("--epochs", type=int, default=4, help="of the training on all images")
    parser.add_argument("--images", type=int, default=60_000, help="so many stand for all")
    parser.add_argument("--repeats", type=int, default=3, help="subsets of step 2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--html", help="write the run on all images to this file, as one page")
    parser.add_argument("--plot", help="draw its curves to this file")
    options = parser.parse_args(arguments)

    x, y = load(options.data, "train")
    train_set = x[: options.images], y[: options.images]
    val_set = tuple(part[:2000] for part in load(options.data, "t10k"))

    good, bad = overfit_one_batch(train_set, options.seed)
    subsets = balanced_subsets(
        train_set, val_set, seed=options.seed, times=options.repeats, epochs=6
    )
    history = History(config=vars(options), seed=options.seed)
    report = train(
        network(options.seed), train_set, val_set, epochs=options.epochs, batch=64,
        history=history, seed=options.seed, spectra_every=100,
    )  # fmt: skip
    best = history.best("val_accuracy")
    print(f"3. all {len(train_set[0])}: accuracy {best.value:.3f} in epoch {best.epoch}")
    print(report)
    print("\n".join(read_out(history, ["loss", "accuracy"])))
    if options.html:
        report.to_html(options.html)
    if options.plot:
        plot_history(history, "loss").figure.savefig(options.plot, dpi=120)
    return good, bad, subsets, history, report


if __name__ == "__main__":
    main()
