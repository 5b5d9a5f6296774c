"""Whether metrics of spectra rank runs of one architecture by their test score.

    python benchmarks/ranking.py --digits digits.csv.gz --california california_housing.csv

Small networks are trained with other learning rates, numbers of epochs, weight decays and shares of
wrong labels, three seeds each; for each factor alone, Kendall's tau between a metric and the test
score over all runs, and the share of pairs of runs of unequal score where the lower metric has the
better score. Its table is in docs/comparison.md.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from truth import train

import pyspectra as ps

# Network -> how it is trained where nothing is varied.
NETS = {
    "digits_wide": {"epochs": 12, "lr": 2e-3},
    "california": {"epochs": 10, "lr": 4e-3, "batch": 128},
    "lstm": {"epochs": 3, "lr": 5e-3},
    "cnn": {"epochs": 2, "lr": 3e-3},
}
FACTORS = {
    "learning rate": ("lr", (0.02, 0.1, 0.4, 1.0, 3.0)),
    "epochs": ("epochs", (0.17, 0.34, 1.0, 2.0, 4.0)),
    "weight decay": ("decay", (0.0, 0.1, 0.5, 2.0, 8.0)),
    "wrong labels": ("noise", (0.0, 0.15, 0.3, 0.5, 0.8)),
}
METRICS = (
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_spectral_norm",
    "log_norm",
    "stable_rank",
)
SEEDS = (300, 301, 302)


def pairs(metric, score):
    """Kendall's tau, and the share of pairs where the lower metric has the better score."""
    better = worse = 0
    for (x, s), (y, t) in itertools.combinations(zip(metric, score, strict=True), 2):
        if s == t or x == y or not np.isfinite(x + y):
            continue
        better += (x < y) == (s > t)
        worse += (x < y) == (s < t)
    n = better + worse
    return ((worse - better) / n, better / n) if n else (np.nan, np.nan)


def changed(how, argument, value):
    if argument == "decay":
        return {**how, "decay": value}
    if argument == "noise":
        return {**how, "noise": value}
    if argument == "epochs":
        return {**how, "epochs": max(1, round(how["epochs"] * value))}
    return {**how, "lr": how["lr"] * value}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", required=True)
    parser.add_argument("--california", required=True)
    parser.add_argument("nets", nargs="*", default=list(NETS))
    given = parser.parse_args()
    train.DIGITS, train.CALIFORNIA = given.digits, given.california
    torch.set_num_threads(1)
    names = " | ".join(METRICS)
    print(f"| network | factor | runs | test score | {names} |")
    print("|---|---|---|---|" + "---|" * len(METRICS))
    for net in given.nets:
        for factor, (argument, values) in FACTORS.items():
            if net == "california" and argument == "noise":
                continue  # it has no labels
            scores, found = [], []
            for value, seed in itertools.product(values, SEEDS):
                state, _, facts = train.fit(
                    *train.NETS[net], seed, **changed(NETS[net], argument, value)
                )
                weights = {k: v for k, v in state.items() if v.ndim > 1}
                summary = ps.analyze(weights, progress=False).summary()
                scores.append(facts["test"])
                found.append([summary[name] for name in METRICS])
            cells = []
            for column in np.array(found).T:
                tau, share = pairs(column, scores)
                cells.append(f"{tau:+.2f} ({share:.0%})")
            reach = f"{min(scores):.2f} to {max(scores):.2f}"
            print("|", " | ".join([net, factor, str(len(scores)), reach, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
