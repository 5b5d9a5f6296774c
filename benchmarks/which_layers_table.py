"""The table of which_layers.md, from what `which_layers.py run` wrote."""

import json

import numpy as np

EDITS = ("prune 50 %", "prune 80 %", "int4", "int3", "reset", "freeze")
RESAMPLES = 300
LEAST_PAIRS = 6  # of layers that differ
# What was looked at first, and what was kept to see whether it holds.
CHOSEN = ("MiniLM", "MLP digits", "MLP California", "ResNet", "Mixer")
FRESH = ("EfficientNet", "HED", "VGG", "Transformer")


def tau(x, y, order):
    """Kendall's tau-b of some of the layers, from the signs of their differences."""
    x, y = x[order][:, order], y[order][:, order]
    return np.sum(x * y) / np.sqrt(float(np.abs(x).sum()) * np.abs(y).sum())


def judged(runs, column, edit, within):
    """Mean tau over the seeds, and 1.96 standard deviations of a bootstrap over the layers.

    `within` leaves only pairs of layers of one shape: those that no shape can tell apart.
    """
    pairs = []
    for rows in runs:
        if all(edit in row["damage"] for row in rows):
            x = np.array([column(row, edit) for row in rows], float)
            pairs.append((x, np.array([row["damage"][edit] for row in rows])))
    good = np.all([np.isfinite(x) for x, _ in pairs], axis=0) if pairs else np.zeros(0)
    if good.sum() < 7:
        return None
    shapes = np.array([(row["trivial"]["parameters"], row["trivial"]["fan in"]) for row in runs[0]])
    alike = (shapes[good][:, None] == shapes[good]).all(-1) if within else 1.0
    signs = [[np.sign(np.subtract.outer(v[good], v[good])) * alike for v in pair] for pair in pairs]
    if any(np.abs(x).sum() < 2 * LEAST_PAIRS for x, _ in signs):
        return None
    rng, n = np.random.default_rng(0), int(good.sum())
    orders = [np.arange(n), *rng.integers(0, n, (RESAMPLES, n))]
    with np.errstate(all="ignore"):
        found = [np.mean([tau(x, y, order) for x, y in signs]) for order in orders]
    return float(found[0]), 1.96 * float(np.nanstd(found[1:]))


def edge(row, edit):
    """Lower edge of the spectrum of a random matrix of this shape and norm: no spectrum needed."""
    N, M = row["columns"]["N"], row["columns"]["M"]
    return row["trivial"]["|W|"] ** 2 / row["trivial"]["parameters"] * (N**0.5 - M**0.5) ** 2


def numbers(found):
    """All numbers that may foretell damage: name -> function of a row and an edit."""
    some = next(iter(found.values()))[0][0]
    out = {k: (lambda row, edit, k=k: row["columns"].get(k, np.nan)) for k in some["columns"]}
    out |= {f"*{k}*": (lambda row, edit, k=k: row["trivial"][k]) for k in some["trivial"]}
    out["*edge of a random matrix*"] = edge
    out["*|dW| / |W|*"] = lambda row, edit: row["sizes"].get(edit, np.nan)
    out["*|dW|*"] = lambda row, edit: row["sizes"].get(edit, np.nan) * row["trivial"]["|W|"]
    return out


def signs(known, least):
    """Count taus above and below zero, by more than `least` times their uncertainty."""
    above = sum(t > least * wide for t, wide in known)
    return f"{above}+ {sum(-t > least * wide for t, wide in known)}-"


def line(*cells):
    print("|", " | ".join(cells), "|", flush=True)


def table(folder):
    found = {}
    for path in sorted(folder.glob("*.json")):
        found.setdefault(path.stem.rpartition(" ")[0], []).append(json.loads(path.read_text()))
    models = [name for name in (*CHOSEN, *FRESH) if name in found]
    for within in (False, True):
        short = {name: [] for name in numbers(found)}
        for edit in EDITS:
            print(f"\n### {edit}{', pairs of one shape' * within}\n")
            line("number", *models, "signs", "clear")
            line(*["---"] * (len(models) + 3))
            for name, column in numbers(found).items():
                values = [judged(found[model], column, edit, within) for model in models]
                cells = ["" if v is None else f"{v[0]:+.2f} ± {v[1]:.2f}" for v in values]
                known = [v for v in values if v is not None]
                counts = [signs(known, least) for least in (0.0, 1.0)]
                short[name].append(f"{counts[0]} ({counts[1]})" if known else "")
                if known:
                    line(name, *cells, *counts)
        print(f"\n### Signs of tau, and of those that are clear{', pairs of one shape' * within}\n")
        line("number", *EDITS)
        line(*["---"] * (len(EDITS) + 1))
        for name, cells in short.items():
            if any(cells):
                line(name, *cells)
