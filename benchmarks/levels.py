"""Level and power of the test for structure: the tables of benchmarks/levels.md.

    python benchmarks/levels.py TABLE [--draws 300] [--base 1000] [--shapes ...] [--entries ...]

Level: how many random layers have a p-value of at most 0.01 (and of 0.001), over distributions of
entries and shapes. Power: how many layers with a planted direction are found, its singular value in
units of the threshold ``(N M)^(1/4)`` of the bulk's scale, below which no test of the eigenvalues
can see it. Updates: how many real changes are found, of layers before training plus their change,
shrunk to a part of their norm, the weights before training being drawn anew for each. Spikes: how
many random layers show a spike or a trap, and how many of planted directions and entries are found.
Named: how many layers of tests/truth/named.py, which have a structure with a name, are called so.

Every draw has a seed of its own, made of ``--base``, the cell and its number, so that a table of
another base is independent. Large shapes get a part of the draws (`Shape.part`).
"""

import argparse
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from truth import cases
from truth import named as named_layers

import pyspectra as ps

LEVELS = (0.01, 0.001)
# Layers of one call: all of it is in memory.
MEMORY = 2**25


class Shape(NamedTuple):
    """A shape of layers, and which part of the draws they get."""

    sides: tuple[int, ...]
    part: float = 1.0


def sparse(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.1)


ENTRIES = {
    "gaussian": cases.DRAWS["gaussian"],
    "uniform": cases.DRAWS["uniform"],
    "uncentred": cases.DRAWS["uncentred"],
    "laplace": cases.DRAWS["laplace"],
    "t5": cases.DRAWS["t5"],
    "t3": cases.DRAWS["t3"],
    "t2": lambda rng, shape: rng.standard_t(2, shape),
    "10 % dense": sparse,
    "bf16": cases.DRAWS["bf16"],
    "int4": cases.DRAWS["int4"],
    "row gains": cases.DRAWS["row_gains"],
    "zero rows": cases.DRAWS["zero_rows"],
}
SHAPES = {
    "8x8": Shape((8, 8)),
    "32x32": Shape((32, 32)),
    "64x200": Shape((64, 200)),
    "256x256": Shape((256, 256), 0.5),
    "384x1536": Shape((384, 1536), 0.2),
    "2048x2048": Shape((2048, 2048), 0.02),
    "64x32x3x3": Shape((64, 32, 3, 3)),
    "96x1x3x3": Shape((96, 1, 3, 3)),
    "96x1x7x7": Shape((96, 1, 7, 7)),
    "5000x128": Shape((5000, 128), 0.2),
}


def interval(hits, n, confidence=0.95):
    """Return the binomial interval of Clopper and Pearson."""
    from scipy.special import betaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1.0 - tail)) if hits < n else 1.0
    return low, high


def cell(hits, n):
    low, high = interval(hits, n)
    return f"{hits} of {n} ({low:.3f}-{high:.3f})"


def p_values(draw, n, seeds):
    """P-values of n layers."""
    return np.array([layer.null.p_value for layer in layers_of(draw, n, seeds)])


def layers_of(draw, n, seeds, **options):
    """Analyse n layers, each drawn from a generator of its own."""
    found, size = [], None
    while len(found) < n:
        some = 1 if size is None else max(1, min(MEMORY // size, 100))
        state = {}
        for i in range(len(found), min(n, len(found) + some)):
            state[f"{i}.weight"] = W = np.asarray(
                draw(np.random.default_rng([*seeds, i])), np.float32
            )
        size = W.size
        given = {"progress": False, "min_evals": 1, "goodness": False, **options}
        found += ps.analyze(state, **given).layers
    return found


def draw_of(kind, sides, rng):
    return ENTRIES[kind](rng, sides)


def level(given):
    print("| shape | entries | p <= 0.01 | p <= 0.001 | seconds |\n|---|---|---|---|---|")
    for name in given.shapes or SHAPES:
        sides, part = SHAPES[name]
        n, pooled = max(3, round(given.draws * part)), []
        for kind in given.entries or ENTRIES:
            start = time.perf_counter()
            seeds = (given.base, list(SHAPES).index(name), list(ENTRIES).index(kind))
            p = p_values(partial(draw_of, kind, sides), n, seeds)
            pooled.append(p)
            cells = [cell(int(np.sum(p <= at)), n) for at in LEVELS]
            print("|", " | ".join((name, kind, *cells)), f"| {time.perf_counter() - start:.0f} |",
                  flush=True)  # fmt: skip
        p = np.concatenate(pooled)
        cells = [cell(int(np.sum(p <= at)), len(p)) for at in LEVELS]
        print("|", " | ".join((name, "all", *cells)), "| |", flush=True)


def power(given):
    """Plant one direction; half of the draws of a large shape as for the level."""
    sizes = (1.0, 1.1, 1.2, 1.5, 2.0)
    print("| shape | entries | draws | " + " | ".join(f"{c:g}" for c in sizes) + " |")
    print("|---|---|---|" + "---|" * len(sizes))
    for name in given.shapes or ("32x32", "64x200", "256x256", "384x1536", "64x32x3x3"):
        sides, part = SHAPES[name]
        n = max(3, round(given.draws * part))
        for kind in given.entries or ("gaussian", "uniform", "t5", "row gains"):
            cells = []
            for c in sizes:
                seeds = (given.base, 1, list(SHAPES).index(name), list(ENTRIES).index(kind))
                p = p_values(partial(planted, kind, sides, c), n, seeds)
                low, high = interval(int(np.sum(p <= LEVELS[0])), n)
                cells.append(f"{np.mean(p <= LEVELS[0]):.2f} ({low:.2f}-{high:.2f})")
            print(f"| {name} | {kind} | {n} |", " | ".join(cells), "|", flush=True)


def planted(kind, sides, c, rng):
    """A layer with a direction of c times the threshold, the same one in each of its matrices."""
    W = np.asarray(ENTRIES[kind](rng, sides), np.float64)
    W -= W.mean()
    rows, cols = sides[:2]
    u, v = rng.standard_normal(rows), rng.standard_normal(cols)
    size = c * (rows * cols) ** 0.25 / np.linalg.norm(u) / np.linalg.norm(v)
    planted = (size * W.std() * np.outer(u, v)).reshape(rows, cols, *(1,) * (W.ndim - 2))
    return W + planted


def updates(given):
    """Changes that training made, on weights of the same law as before it (their entries in
    random order), which makes as many draws of one training as are wanted."""
    sizes = (0.02, 0.05, 0.1, 0.2, 0.3)
    print("| layer | shape | draws | " + " | ".join(f"{s:g}" for s in sizes) + " |")
    print("|---|---|---|" + "---|" * len(sizes))
    names = ("digits_wide-0", "digits_wide-100", *cases.TICKETS)
    for name in names:
        run, _, seed = name.rpartition("-")
        after, before = cases.state(name), cases.state(f"{run}_before-{seed}")
        for k, W in after.items():
            if min(W.shape[:2]) < 32:
                continue
            cells = []
            for s in sizes:
                p = p_values(
                    partial(changed, before[k], W - before[k], s), given.draws, (given.base, 2)
                )
                cells.append(f"{np.mean(p <= LEVELS[0]):.2f}")
            shape = "x".join(map(str, W.shape))
            print(f"| {name} {k} | {shape} | {given.draws} |", " | ".join(cells), "|", flush=True)


def changed(before, change, s, rng):
    W = rng.permutation(before.ravel()).reshape(before.shape)
    return W + s * np.linalg.norm(W) / np.linalg.norm(change) * change


def spikes(given):
    """Random layers that show a spike or a trap, and planted ones that are found."""
    sizes = (1.5, 2.0, 3.0)
    heads = [f"{what} {c:g}" for what in ("direction", "entry") for c in sizes]
    print("| shape | entries | spikes | traps | " + " | ".join(heads) + " |")
    print("|---|---|---|---|" + "---|" * len(heads))
    for name in given.shapes or ("32x32", "64x200", "64x32x3x3", "96x1x3x3"):
        sides, part = SHAPES[name]
        n = max(3, round(given.draws * part))
        for kind in given.entries or ENTRIES:
            seeds = (given.base, 3, list(SHAPES).index(name), list(ENTRIES).index(kind))
            rows = [layer.metrics for layer in layers_of(partial(draw_of, kind, sides), n, seeds,
                                                         mp_fit=True, randomize=True)]  # fmt: skip
            cells = [cell(sum(row[key] > 0 for row in rows), n) for key in ("n_spikes", "n_traps")]
            few = max(3, n // 10)
            for key, plant in (("n_spikes", planted), ("n_traps", outlying)):
                for c in sizes:
                    rows = layers_of(partial(plant, kind, sides, c), few, seeds,
                                     mp_fit=True, randomize=True)  # fmt: skip
                    cells.append(f"{np.mean([row.metrics[key] > 0 for row in rows]):.2f}")
            print(f"| {name} | {kind} |", " | ".join(cells), "|", flush=True)


def outlying(kind, sides, c, rng):
    """A layer with one entry of c times the threshold, above which it makes a direction."""
    W = np.asarray(ENTRIES[kind](rng, sides), np.float64)
    W -= W.mean()
    W[(0,) * W.ndim] = c * W.std() * (sides[0] * sides[1]) ** 0.25
    return W


def named(given):
    """Layers that have a structure with a name: how many are called so, and plain ones that are."""
    print("| structure | called so | called otherwise | p <= 0.01 |\n|---|---|---|---|")
    for name, functions in {**named_layers.CASES, "none": named_layers.PLAIN * 5}.items():
        state = named_layers.drawn(functions, given.base)
        layers = ps.analyze(state, progress=False, min_evals=1, goodness=False).layers
        good = {name, *named_layers.ALSO.get(name, ())}
        hits = sum(bool(good & {*layer.structures}) for layer in layers)
        hits = sum(not layer.structures for layer in layers) if name == "none" else hits
        others = Counter(s for layer in layers for s in layer.structures if s not in good)
        found = sum(layer.null.p_value <= LEVELS[0] for layer in layers)
        listed = ", ".join(f"{s} {n}" for s, n in others.most_common())
        print(f"| {name} | {hits} of {len(layers)} | {listed} | {found} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("level", "power", "updates", "spikes", "named"))
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--base", type=int, default=1000)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES)
    parser.add_argument("--entries", nargs="*", choices=ENTRIES)
    given = parser.parse_args()
    globals()[given.table](given)
