"""Do confidence intervals cover and are p-values uniform? Tables for benchmarks/README.md.

Data with known tails: `pareto`, all n points from a power law; `bulk + pareto`, n points of the
tail above 1 on top of 2 n points below it whose density rises like x^2, so that xmin must be found.

    python benchmarks/calibration.py [--data 1000] [--replicates 500] [--sizes 50 200 1000]
"""

import argparse
import time

import numpy as np

import pyspectra as ps

ALPHAS = (1.5, 3.0, 6.0)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
CASES = (
    ("ww", "pareto"), ("ww", "bulk + pareto"), ("csn", "pareto"), ("csn", "bulk + pareto"),
    ("hill", "pareto"), ("tempbalance_median", "pareto"), ("fix_finger", "pareto"),
)  # fmt: skip


def pareto(n, alpha, rng):
    return np.exp(rng.exponential(1.0 / (alpha - 1.0), n))


def bulk_and_pareto(n, alpha, rng):
    return np.concatenate([pareto(n, alpha, rng), rng.random(2 * n) ** (1.0 / 3.0)])


FAMILIES = {"pareto": pareto, "bulk + pareto": bulk_and_pareto}


def measure(estimator, family, n, alpha, count, replicates):
    """Coverage of the 95 % interval, its median width, and P(p_value <= level) for each level."""
    rng = np.random.default_rng([n, int(10 * alpha)])
    data = [FAMILIES[family](n, alpha, rng) for _ in range(count)]
    fits = ps.fit_powerlaw_batch(
        data, estimator=estimator, threshold=0.0, bootstrap=replicates, seed=n
    )
    fits = [fit for fit in fits if np.isfinite(fit.p_value)]
    low, high = np.array([fit.ci for fit in fits]).T
    p = np.array([fit.p_value for fit in fits])
    coverage = np.mean((low <= alpha) & (alpha <= high))
    width = np.median((high - low) / (alpha - 1.0))
    return coverage, width, [np.mean(p <= level) for level in LEVELS]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=int, default=1000, help="data sets a row")
    parser.add_argument("--replicates", type=int, default=500, help="bootstrap replicates each")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS))
    options = parser.parse_args()
    print("| estimator | data | n | alpha | coverage | width / (alpha - 1) |", end="")
    print(*[f" p <= {level} |" for level in LEVELS], sep="")
    print("|---" * (6 + len(LEVELS)) + "|")
    start = time.perf_counter()
    for estimator, family in CASES:
        for n in options.sizes:
            for alpha in options.alphas:
                coverage, width, shares = measure(
                    estimator, family, n, alpha, options.data, options.replicates
                )
                cells = [f"{coverage:.3f}", f"{width:.2f}", *(f"{share:.3f}" for share in shares)]
                print(
                    f"| {estimator} | {family} | {n} | {alpha} |",
                    " | ".join(cells),
                    "|",
                    flush=True,
                )
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
