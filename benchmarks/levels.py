"""Level and power of the test for structure, of spikes and traps: tables of benchmarks/truth.md.

    python benchmarks/levels.py level|power|updates [--budget SECONDS]

Level: the share of random layers whose p-value is at most 0.01, over distributions of entries and
shapes; and of those with a spike, with a trap. Power: the share of Gaussian matrices with a planted
direction that are found, its singular value in units of the threshold ``(N M)^(1/4)`` of the bulk's
scale, below which no test of the eigenvalues can see it. Updates: the share of real changes that
are found, of layers before training plus their change, shrunk to a part of their norm.
Each cell draws until its share of the budget is spent, 300 draws at most.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from truth import cases

import pyspectra as ps

MOST = 300
LEVEL = 0.01


def sparse(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape) < 0.05)


ENTRIES = {
    "gaussian": cases.DRAWS["gaussian"],
    "uniform": cases.DRAWS["uniform"],
    "laplace": cases.DRAWS["laplace"],
    "t5": cases.DRAWS["t5"],
    "t3": cases.DRAWS["t3"],
    "t2": lambda rng, shape: rng.standard_t(2, shape),
    "lognormal": cases.DRAWS["lognormal"],
    "ternary": cases.DRAWS["ternary"],
    "5 % dense": sparse,
    "row gains": cases.DRAWS["row_gains"],
    "zero rows": cases.DRAWS["zero_rows"],
}
SHAPES = {
    "8x8": (8, 8), "32x32": (32, 32), "64x200": (64, 200), "128x128": (128, 128),
    "512x512": (512, 512), "2048x2048": (2048, 2048), "conv 32x16x3x3": (32, 16, 3, 3),
    "depthwise 64x3x3": (64, 1, 3, 3), "embedding 4000x64": (4000, 64),
}  # fmt: skip


def p_value(W, **options):
    (layer,) = ps.analyze({"w.weight": W}, progress=False, min_evals=1, **options).layers
    return layer


def repeat(draw, budget):
    """Draw until the time is spent; the mean of what it returns, and how often."""
    found, end = [], time.perf_counter() + budget
    while len(found) < MOST and (len(found) < 3 or time.perf_counter() < end):
        found.append(draw(np.random.default_rng([12, len(found)])))
    return np.mean(found, axis=0), len(found)


def level(budget):
    print("| entries | " + " | ".join(SHAPES) + " |")
    print("|---|" + "---|" * len(SHAPES))
    for name, draw in ENTRIES.items():
        cells = []
        for shape in SHAPES.values():
            large = max(shape) > 1000

            def one(rng, draw=draw, shape=shape, large=large):
                W = np.asarray(draw(rng, shape), np.float32)
                layer = p_value(W, mp_fit=not large, randomize=not large)
                metrics = layer.metrics
                spiked = [metrics.get(key, 0) > 0 for key in ("n_spikes", "n_traps")]
                return [layer.null.p_value <= LEVEL, *spiked]

            (hit, spike, trap), n = repeat(one, budget)
            cells.append(f"{hit:.3f}, {spike:.2f}, {trap:.2f} ({n})")
        print("|", name, "|", " | ".join(cells), "|", flush=True)


def power(budget):
    sizes = (0.8, 1.0, 1.1, 1.2, 1.5, 2.0)
    print("| shape | " + " | ".join(f"{c:g}" for c in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for N, M in ((32, 32), (64, 64), (200, 64), (256, 256), (1024, 256), (768, 768)):
        cells = []
        for c in sizes:

            def one(rng, c=c, N=N, M=M):
                u, v = rng.standard_normal(N), rng.standard_normal(M)
                size = c * (N * M) ** 0.25 / np.linalg.norm(u) / np.linalg.norm(v)
                layer = p_value(rng.standard_normal((N, M)) + size * np.outer(u, v))
                return layer.null.p_value <= LEVEL

            share, n = repeat(one, budget)
            cells.append(f"{share:.2f} ({n})")
        print(f"| {N}x{M} |", " | ".join(cells), "|", flush=True)


def updates(budget):
    sizes = (0.02, 0.05, 0.1, 0.2, 0.3)
    print("| change from | layers | " + " | ".join(f"{s:g}" for s in sizes) + " |")
    print("|---|---|" + "---|" * len(sizes))
    for name in ("digits_wide-0", "digits_wide-100", *cases.TICKETS):
        run, _, seed = name.rpartition("-")
        after, before = cases.state(name), cases.state(f"{run}_before-{seed}")
        large = [k for k, W in after.items() if min(W.shape[:2]) >= 32]
        cells = []
        for s in sizes:
            found = 0
            for k in large:
                change = after[k] - before[k]
                W = before[k] + s * np.linalg.norm(before[k]) * change / np.linalg.norm(change)
                found += p_value(W).null.p_value <= LEVEL
            cells.append(f"{found} of {len(large)}")
        print(f"| {name} | {len(large)} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("level", "power", "updates"))
    parser.add_argument("--budget", type=float, default=20.0)
    given = parser.parse_args()
    globals()[given.table](given.budget)
