"""Does the spectrum of a network tell that it was trained with enough data?

One network learns clothes from 1, 10 and 100 % of Fashion-MNIST, from five seeds. Less data means
either fewer steps (as many epochs) or more epochs (as many steps), so every run takes the same
steps and is looked at on the way: at 47, 469 and 4690 steps, which are ten epochs of 1, 10 and
100 %. That is a grid of data against training, in which neither stands for the other::

    pip install "pyspectra-nn[torch,plot]"
    apt-get install dataset-fashion-mnist
    python examples/enough_data.py --out enough_data.jsonl

``--network cnn`` is the network on which what was seen on the first one was tried; ``--noise 0.6``
gives so many images a class at random. What was found lies beside this script, and becomes tables
and a picture, which `docs/enough-data.md` discusses::

    python examples/enough_data.py --show examples/results/enough_data.jsonl --plot picture.png

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017; 60 000 and 10 000 grey images of 28 x 28.
"""

import argparse
import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
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
            "alpha": round(layer.alpha, 3),
            "stderr": round(layer.fit.alpha_stderr, 3),
            "warning": layer.warning,
            "log_norm": round(layer.metrics["log_norm"], 3),
            "log_spectral_norm": round(layer.metrics["log_spectral_norm"], 3),
            "stable_rank": round(layer.metrics["stable_rank"], 2),
        }
        for layer in report.layers
    ]
    return {"verdict": report.verdict.label, "layers": layers}


def run(network, share, seed, *, train_set, test_set, noise=0.0, steps=STEPS):
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
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
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
                    "train_accuracy": round(accuracy(model, x[:6000], y[:6000]), 4),
                    "test_accuracy": round(accuracy(model, *test_set), 4), **spectra(model),
                })  # fmt: skip
            if step == steps[-1]:
                break
    return rows


def is_judged(layer):
    """Tell whether a layer has enough eigenvalues for its alpha to be looked at."""
    return layer["warning"] != "too small to tell"


def mean_alpha(row):
    """Mean over the layers with 32 eigenvalues or more."""
    return float(np.mean([layer["alpha"] for layer in row["layers"] if is_judged(layer)]))


def groups(rows):
    """Rows of one network, noise, number of steps and share, in this order."""
    found = {}
    for row in rows:
        key = row["network"], row["noise"], row["step"], row["share"]
        found.setdefault(key, []).append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0][0] != "dense", item[0])))


def spread(values, digits):
    """Mean and standard deviation over the seeds, as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def mean_norm(row):
    """Mean of log10 of the sums of squared weights, over the same layers."""
    return float(np.mean([layer["log_norm"] for layer in row["layers"] if is_judged(layer)]))


def rank_correlation(number, rows):
    """Spearman's correlation of a number of the rows with the accuracy on new images, as text."""
    accuracies = [row["test_accuracy"] for row in rows]
    return f"{spearmanr([number(row) for row in rows], accuracies).statistic:+.2f}"


def comparisons(rows):
    """Yield what is compared with what: its name, and rows of one network."""
    yield "all runs, at all steps", rows
    ends = list(zip(SHARES, STEPS, strict=True))
    yield (
        "as many epochs: 47, 469, 4690 steps",
        [r for r in rows if (r["share"], r["step"]) in ends],
    )
    for step in STEPS:
        yield f"1, 10 and 100%, {step} steps", [r for r in rows if r["step"] == step]
    for share in SHARES:
        yield f"{share:.0%}: 47, 469 and 4690 steps", [r for r in rows if r["share"] == share]
    for share in SHARES:
        end = share, STEPS[-1]
        yield (
            f"{share:.0%}, {STEPS[-1]} steps: seeds",
            [r for r in rows if (r["share"], r["step"]) == end],
        )


def tables(rows):
    """Return two tables in Markdown: what each group is like, and how alpha and accuracy relate."""
    lines = [
        "| network | steps | data | accuracy on training images | on new images | mean alpha "
        "| alpha of each layer | log10 norm | verdicts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, noise, step, share), group in groups(rows).items():
        layers = zip(*([la for la in row["layers"] if is_judged(la)] for row in group), strict=True)
        labels = [row["verdict"] for row in group]
        lines.append("| " + " | ".join([
            f"{network}, {noise:.0%} of the labels random" if noise else network,
            str(step), f"{share:.0%}",
            f"{np.mean([row['train_accuracy'] for row in group]):.3f}",
            spread([row["test_accuracy"] for row in group], 3),
            spread([mean_alpha(row) for row in group], 2),
            ", ".join(f"{np.mean([la['alpha'] for la in layer]):.2f}" for layer in layers),
            f"{np.mean([mean_norm(row) for row in group]):.2f}",
            ", ".join(f"{labels.count(label)} {label}" for label in sorted(set(labels))),
        ]) + " |")  # fmt: skip
    lines += ["", "| network | what is compared | runs | alpha | norm |", "|---|---|---|---|---|"]
    for network in dict.fromkeys(row["network"] for row in rows):
        of_network = [r for r in rows if r["network"] == network and not r["noise"]]
        for name, some in comparisons(of_network):
            both = " | ".join(rank_correlation(number, some) for number in (mean_alpha, mean_norm))
            lines.append(f"| {network} | {name} | {len(some)} | {both} |")
    return "\n".join(lines)


def draw(rows, path):
    """Draw alpha against accuracy, a panel a network, to a file."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(4.0 * len(networks) + 1.8, 3.4), layout="constrained")
    axes = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    colours = dict(zip(SHARES, ("#0072b2", "#e69f00", "#009e73"), strict=True))
    for ax, network in zip(axes, networks, strict=True):
        for row in rows:
            if row["network"] == network:
                ax.plot(
                    mean_alpha(row), row["test_accuracy"],
                    marker="ovs"[STEPS.index(row["step"])], ms=5, ls="none", alpha=0.8,
                    color="#000000" if row["noise"] else colours[row["share"]],
                    mfc="none" if row["noise"] else None,
                )  # fmt: skip
        ax.set_title({"dense": "four linear layers", "cnn": "convolutions"}.get(network, network))
        ax.set_xscale("log")
        ax.set_xticks([2, 3, 4, 6], ["2", "3", "4", "6"])
        ax.minorticks_off()
        ax.set_xlabel("mean alpha")
    axes[0].set_ylabel("accuracy on new images")
    for share, colour in colours.items():
        axes[0].plot([], [], "o", color=colour, label=f"{share:.0%} of the data")
    if any(row["noise"] for row in rows):
        axes[0].plot([], [], "o", color="#000000", mfc="none", label="60% of the labels random")
    for marker, step in zip("ovs", STEPS, strict=True):
        axes[0].plot([], [], marker, color="0.6", label=f"{step} steps")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="small"
    )
    figure.savefig(path, dpi=100)


def main(arguments=None):
    """Train all runs, or show what runs have found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the four idx files")
    parser.add_argument("--network", choices=NETWORKS, default="dense")
    parser.add_argument("--noise", type=float, default=0.0, help="share of labels drawn at random")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--out", type=Path, help="append the rows to this file, a line each")
    parser.add_argument("--show", type=Path, help="train nothing: print the tables of such a file")
    parser.add_argument("--plot", type=Path, help="with --show: draw the picture")
    options = parser.parse_args(arguments)

    if options.show is not None:
        rows = [json.loads(line) for line in options.show.read_text().splitlines()]
        print(tables(rows))
        if options.plot is not None:
            draw(rows, options.plot)
        return
    train_set, test_set = load(options.data, "train"), load(options.data, "t10k")
    for seed in options.seeds:
        for share in options.shares:
            rows = run(
                options.network, share, seed, train_set=train_set, test_set=test_set,
                noise=options.noise, steps=options.steps,
            )  # fmt: skip
            for row in rows:
                print(f"seed {seed}, {share:.0%} of the data, {row['step']} steps: accuracy "
                      f"{row['test_accuracy']:.3f}, mean alpha {mean_alpha(row):.2f}, "
                      f"{row['verdict']}", flush=True)  # fmt: skip
            if options.out:
                with options.out.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
