"""What is left of three tasks when models are merged, and do spectra help? Tables of merging.md.

    python benchmarks/merging.py run OUT [--seeds 3]
    python benchmarks/merging.py table OUT

The residual network of `layer_rules.py` learns 10 000 upright images of Debian's
dataset-fashion-mnist, and is tuned on 1000 others that are turned by 90, by 180 and by 270 degrees:
three models of one base. *Merging*: the scale, and the density where there is one, have the best
mean on 2000 further images, turned in all three ways; the table has the accuracy on the test set.
*Averaging*: eight tunings for the same turned images, with four learning rates and two orders of
images, are averaged with equal weights, and with weights that follow their alpha.
"""

import argparse
import copy
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from layer_rules import EPOCHS, Net, accuracy, load, mean, spread, train
from safetensors.torch import load_file, save_file

import pyspectra as ps
from pyspectra.training import average_checkpoints

TURNS = (1, 2, 3)  # quarters
SCALES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6)
DENSITIES = (0.1, 0.2, 0.4, 0.7)
IMAGES, STEPS, RATE = 1000, 200, 1e-3
SOUP_RATES = (3e-4, 1e-3, 3e-3, 6e-3)
METHODS = {
    "task_arithmetic": ({}, (None,)),
    "magnitude_prune": ({}, DENSITIES),
    "ties": ({}, DENSITIES),
    "ties, whole model": ({"scope": "global"}, DENSITIES),
    "dare_linear": ({"seed": 0}, DENSITIES),
    "dare_ties": ({"seed": 0}, DENSITIES),
}


def turned(x, quarters):
    return torch.rot90(x, quarters, (1, 2))


def tune(model, x, y, seed, lr=RATE, steps=STEPS):
    model = copy.deepcopy(model)
    train(model, torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01), x, y, steps, seed)
    return model


def scores(model, state, x, y):
    """Accuracy on the images turned in three ways, and upright, of a network with these weights."""
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    return [accuracy(model, turned(x, turn), y) for turn in (*TURNS, 0)]


def merged(base, models, name, val, test):
    """The merge with the best mean over the tasks on the validation images."""
    options, densities = METHODS[name]
    found = []
    for density, scale in itertools.product(densities, SCALES):
        given = {**options, "method": name.partition(",")[0], "scale": scale}
        if density is not None:
            given["density"] = density
        state = ps.merge(base, models, **given)
        found.append((mean(scores(base, state, *val)[:3]), given, state))
    best, given, state = max(found, key=lambda one: one[0])
    return {"val": best, "scale": given["scale"], "density": given.get("density"),
            "test": scores(base, state, *test)}  # fmt: skip


def alpha_of(model):
    """The mean alpha of the layers that have one."""
    alphas = ps.analyze(model)["alpha"]
    return float(np.nanmean(alphas))


def soups(base, x, y, val, test, seed):
    """Averages of eight tunings for one task, by several weights."""
    models = [
        tune(base, turned(x, 1), y, seed=100 * seed + order, lr=lr)
        for lr in SOUP_RATES for order in (1, 2)
    ]  # fmt: skip
    alphas = np.array([alpha_of(m) for m in models])
    on_val = np.array([accuracy(m, turned(val[0], 1), val[1]) for m in models])
    half = len(models) // 2
    order = np.argsort(alphas)
    low, high, good = np.zeros((3, len(models)))
    low[order[:half]], high[order[half:]] = 1, 1
    good[np.argsort(-on_val)[:half]] = 1
    # Alphas are close together: these weights make the most of what differs.
    steep = np.exp(-(alphas - alphas.mean()) / (alphas.std() + 1e-12))
    dealt = np.random.default_rng(seed).permutation(steep)
    weights = {
        "equal": np.ones(len(models)),
        "exp(-z), z of alpha": steep,
        "the same, dealt at random": dealt,
        "the half with the lowest alpha": low,
        "the half with the highest alpha": high,
        "the half that is best on validation": good,
    }
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"model-{i}.safetensors" for i in range(len(models))]
        for file, model in zip(files, models, strict=True):
            save_file(model.state_dict(), file)
        for name, shares in weights.items():
            out = Path(folder) / "mean.safetensors"
            average_checkpoints(files, out, weights=shares.tolist(), overwrite=True)
            model = copy.deepcopy(base)
            model.load_state_dict(load_file(out))
            rows[name] = accuracy(model, turned(test[0], 1), test[1])
    alone = [accuracy(m, turned(test[0], 1), test[1]) for m in models]
    rows["the one that is best on validation"] = alone[int(on_val.argmax())]
    rank = np.corrcoef(alphas.argsort().argsort(), np.array(alone).argsort().argsort())[0, 1]
    return {"rows": rows, "alphas": alphas.tolist(), "alone": alone, "rank": float(rank)}


def one_seed(seed, sets):
    base = Net(seed)
    rate = torch.optim.AdamW(base.parameters(), lr=1e-3, weight_decay=0.1)
    train(base, rate, *sets["train"], EPOCHS * 100, seed)
    draws = torch.Generator().manual_seed(seed)
    some = 20000 + torch.randperm(30000, generator=draws)[: IMAGES * len(TURNS)]
    parts = [(turned(sets["all"][0][i], t), sets["all"][1][i])
             for t, i in zip(TURNS, some.split(IMAGES), strict=True)]  # fmt: skip
    models = [tune(base, x, y, seed) for x, y in parts]
    together = tune(base, torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]),
                    seed, steps=STEPS * len(TURNS))  # fmt: skip
    val, test = sets["val"], sets["test"]
    rows = {
        "the base": {"test": scores(base, base.state_dict(), *test)},
        "trained on all three at once": {"test": scores(base, together.state_dict(), *test)},
    }
    for turn, model in zip(TURNS, models, strict=True):
        rows[f"tuned for {90 * turn} degrees"] = {"test": scores(base, model.state_dict(), *test)}
    mean_of = ps.merge(base, models, normalize=True)
    rows["plain average"] = {"test": scores(base, mean_of, *test)}
    for name in METHODS:
        rows[name] = merged(base, models, name, val, test)
    x, y = sets["all"][0][some[:IMAGES]], sets["all"][1][some[:IMAGES]]
    return {"seed": seed, "merging": rows, "averaging": soups(base, x, y, val, test, seed)}


def run(out, seeds):
    torch.set_num_threads(1)
    x, y = load("train")
    sets = {
        "all": (x, y),
        "train": (x[:10000], y[:10000]),
        "val": (x[55000:57000], y[55000:57000]),
        "test": load("t10k"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        file = out / f"merging-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(one_seed(seed, sets)))
            print(file, flush=True)


def table(out):
    found = [json.loads(file.read_text()) for file in sorted(out.glob("merging-*.json"))]
    print("\n| weights | 90 | 180 | 270 | mean of the three | upright | scale, density |")
    print("|---|---|---|---|---|---|---|")
    for name in found[0]["merging"]:
        rows = [one["merging"][name] for one in found]
        tests = 100 * np.array([row["test"] for row in rows])
        means = tests[:, :3].mean(axis=1)
        line = " | ".join(f"{v:.1f}" for v in tests[:, :3].mean(axis=0))
        line += f" | {mean(means):.1f} ± {spread(means):.1f} | {tests[:, 3].mean():.1f} | "
        chosen = [[row.get(key) for row in rows] for key in ("scale", "density")]
        line += ", ".join(f"{np.median(values):g}" for values in chosen if None not in values)
        print(f"| {name} | {line} |")
    print("\n| weights of the average | accuracy, % | against equal ones, points |")
    print("|---|---|---|")
    plain = [one["averaging"]["rows"]["equal"] for one in found]
    for name in found[0]["averaging"]["rows"]:
        tests = [100 * one["averaging"]["rows"][name] for one in found]
        gains = [t - 100 * p for t, p in zip(tests, plain, strict=True)]
        gain = "" if name == "equal" else f"{mean(gains):+.2f} ± {spread(gains):.2f}"
        print(f"| {name} | {mean(tests):.2f} ± {spread(tests):.2f} | {gain} |")
    ranks = [one["averaging"]["rank"] for one in found]
    print(f"\nrank correlation of alpha and accuracy alone: {mean(ranks):+.2f} "
          f"({min(ranks):+.2f} to {max(ranks):+.2f})")  # fmt: skip
    alphas = [a for one in found for a in one["averaging"]["alphas"]]
    alone = [100 * a for one in found for a in one["averaging"]["alone"]]
    print(f"alphas {min(alphas):.2f} to {max(alphas):.2f}; alone {min(alone):.1f} to "
          f"{max(alone):.1f} %")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.command == "run":
        run(options.out, options.seeds)
    table(options.out)
