"""Level and power of the test for structure: the tables of benchmarks/levels.md.

    python benchmarks/levels.py level|power|updates [--draws 300] [--base 1000] [--shapes 8x8 ...]

Level: how many random layers have a p-value of at most 0.01 (and of 0.001), over distributions of
entries and shapes. Power: how many layers with a planted direction are found, its singular value in
units of the threshold ``(N M)^(1/4)`` of the bulk's scale, below which no test of the eigenvalues
can see it. Updates: how many real changes are found, of layers before training plus their change,
shrunk to a part of their norm, the weights before training being drawn anew for each.

Every draw has a seed of its own, made of ``--base``, the cell and its number, so that a table of
another base is independent. Large shapes get a part of the draws (`Shape.part`).
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from truth import cases

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
    """P-values of n layers, each drawn from a generator of its own."""
    found, size = [], None
    while len(found) < n:
        some = 1 if size is None else max(1, min(MEMORY // size, 100))
        state = {}
        for i in range(len(found), min(n, len(found) + some)):
            state[f"{i}.weight"] = W = np.asarray(
                draw(np.random.default_rng([*seeds, i])), np.float32
            )
        size = W.size
        layers = ps.analyze(state, progress=False, min_evals=1, goodness=False).layers
        found += [layer.null.p_value for layer in layers]
    return np.array(found)


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("level",))
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--base", type=int, default=1000)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES)
    parser.add_argument("--entries", nargs="*", choices=ENTRIES)
    given = parser.parse_args()
    globals()[given.table](given)
