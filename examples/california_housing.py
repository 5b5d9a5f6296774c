"""House prices in California: train and validation error side by side, and what they say.

A small network learns the price of a census block from eight numbers. A history keeps its errors, a
watch looks at the loop, and in the end the plot is drawn and read out in words::

    pip install "pyspectra-nn[torch,plot]"
    python examples/california_housing.py --plot curves.png

What to look at. The error of training is a mean over an epoch in which the model still improved,
and it is measured with dropout; that of validation is measured after the epoch, without. So
validation starts as the *better* of the two. After some epochs the curves cross, and the network
goes on to fit its 800 blocks better than others: neither the crossing nor the gap after it is a
fault. A validation curve that turns and gets worse is one, and the reading names the epoch before
it did.

Data: examples/data/README.md. RMSE and MAE are in units of 100,000 dollars.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pyspectra.training import History, Watch, plot_history, read_out
from pyspectra.training.metrics import Regression

DATA = Path(__file__).parent / "data" / "california_housing.csv"
FEATURES = (
    "income",
    "age",
    "rooms",
    "bedrooms",
    "population",
    "occupancy",
    "latitude",
    "longitude",
)


def load_blocks():
    """Features and prices of the blocks: the eight of scikit-learn's version of the data."""
    with open(DATA, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["total_bedrooms"]]
    columns = {
        name: np.array([float(row[name]) for row in rows])
        for name in rows[0]
        if name != "ocean_proximity"
    }
    households = columns["households"]
    features = [
        columns["median_income"],
        columns["housing_median_age"],
        columns["total_rooms"] / households,
        columns["total_bedrooms"] / households,
        columns["population"],
        columns["population"] / households,
        columns["latitude"],
        columns["longitude"],
    ]
    return np.stack(features, axis=1), columns["median_house_value"] / 1e5


def split(features, prices, seed, share=0.8):
    """Training and validation sets; the scale is that of the training set alone."""
    order = np.random.default_rng(seed).permutation(len(prices))
    n_val = int(share * len(prices))
    val, train = order[:n_val], order[n_val:]
    mean, std = features[train].mean(axis=0), features[train].std(axis=0)
    # A few blocks, as prisons and resorts, are far out: they are brought in, not left out.
    scaled = np.clip((features - mean) / std, -4, 4)

    def tensors(rows):
        x = torch.tensor(scaled[rows], dtype=torch.float32)
        return x, torch.tensor(prices[rows], dtype=torch.float32).unsqueeze(1)

    return tensors(train), tensors(val)


def train(history, *, epochs=60, batch=32, lr=2e-3, dropout=0.05, width=128, seed=0):
    """Train, and record the errors of both sets at each step and epoch."""
    torch.manual_seed(seed)
    (x, y), (x_val, y_val) = split(*load_blocks(), seed)
    model = nn.Sequential(
        nn.Linear(len(FEATURES), width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(width, 1),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    loss_fn = nn.MSELoss()
    steps = -(-len(x) // batch)
    watch = Watch(model, optimizer, loss="mse", history=history, steps_per_epoch=steps)

    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            predicted = model(x[rows])
            loss = loss_fn(predicted, y[rows])
            loss.backward()
            optimizer.step()
            mae = (predicted.detach() - y[rows]).abs().mean()
            watch.step(
                loss, inputs=x[rows], targets=y[rows], outputs=predicted, mse=loss.detach(), mae=mae
            )
        metrics = Regression()
        with watch.evaluating():
            for start in range(0, len(x_val), 256):
                rows = slice(start, start + 256)
                metrics.update(model(x_val[rows]), y_val[rows])
        found = metrics.compute()
        history.log(split="val", n=metrics.n, loss=found["mse"], **found)
        watch.end_epoch()
    watch.close()
    return watch.report()


def main(arguments=None):
    """Train, print what was found and what the curves say, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--history", help="keep the history in this file, for pyspectra diagnose")
    parser.add_argument("--plot", help="draw the curves to this file")
    options = parser.parse_args(arguments)

    history = History(options.history, config=vars(options), seed=options.seed)
    report = train(history, epochs=options.epochs, seed=options.seed)
    history.close()
    print(report)
    print()
    for metric in ("rmse", "mae"):
        best = history.best(f"val_{metric}")
        print(f"best validation {metric}: {best.value:.3f} in epoch {best.epoch}")
    print("\n".join(read_out(history, ["rmse", "mae"])))
    if options.plot:
        axes = plot_history(history, ["rmse", "mae"])
        axes.set_title("House prices: error in units of 100,000 dollars", fontsize="medium")
        axes.figure.savefig(options.plot, dpi=120)
    return history


if __name__ == "__main__":
    main()
