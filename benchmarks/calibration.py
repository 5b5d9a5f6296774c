"""Do confidence intervals cover and are p-values uniform? Tables for benchmarks/README.md.

Data with known tails: `pareto`, all n points from a power law; `bulk + pareto`, n points of the
tail above 1 on top of 2 n points below it whose density rises like x^2, so that xmin must be found.

    python benchmarks/calibration.py [--data 4000] [--replicates 400] [--sizes 50 200 1000 5000]
    python benchmarks/calibration.py --bias
    python benchmarks/calibration.py --eigenvalues

`--eigenvalues`: spectra of matrices whose exponent is known, which are not independent.

Long spectra get fewer data sets (`POINTS` in all). Standard error of a coverage of 0.97: 0.003 from
4000 data sets, 0.006 from 800.
"""

import argparse
import time

import numpy as np

import pyspectra as ps

ALPHAS = (1.5, 3.0, 6.0)
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
POINTS = 4_000_000  # tail points in all data sets of a row, at most
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
    """One row: data sets, coverage of `ci`, its median width, P(p_value <= level) for each level,
    and among fits whose xmin lies in the bulk the share of them all and of the p-values <= 0.05."""
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
    in_bulk = np.array([fit.xmin for fit in fits]) < 1.0
    low_p = p <= LEVELS[0]
    blame = np.mean(in_bulk[low_p]) if low_p.any() else 0.0
    shares = [np.mean(p <= level) for level in LEVELS]
    return len(fits), coverage, width, shares, np.mean(in_bulk), blame


def bias(count, sizes, alpha=3.0):
    """Relative bias of alpha - 1, and of alpha_corrected - 1, over many data sets."""
    print("| estimator | data | n | bias of alpha - 1 | of alpha_corrected - 1 |")
    print("|---|---|---|---|---|")
    for estimator, family in CASES:
        for n in sizes:
            rng = np.random.default_rng(n)
            data = [FAMILIES[family](n, alpha, rng) for _ in range(min(count, POINTS // n))]
            fits = ps.fit_powerlaw_batch(data, estimator=estimator, threshold=0.0)
            found = np.array([(fit.alpha, fit.alpha_corrected) for fit in fits])
            raw, corrected = np.nanmean(found - 1.0, axis=0) / (alpha - 1.0) - 1.0
            print(f"| {estimator} | {family} | {n} | {raw:+.3f} | {corrected:+.3f} |", flush=True)


def student(df):
    """Entries of tail exponent df: the largest eigenvalues are about their squares."""
    return lambda rng, M: rng.standard_t(df, (2 * M, M))


def scaled_columns(alpha):
    """Columns whose squared scales follow a power law, long ones, so that little mixes them."""
    return lambda rng, M: (
        rng.standard_normal((20 * M, M)) * np.sqrt(np.exp(rng.exponential(1 / (alpha - 1), M)))
    )


def inverse(count):
    """The inverse of a product of square Gaussian matrices: 1 + 1 / (count + 1) far out."""

    def draw(rng, M):
        product = rng.standard_normal((M, M))
        for _ in range(count - 1):
            product = product @ rng.standard_normal((M, M))
        return np.linalg.inv(product)

    return draw


MATRICES = {
    "Student t entries, 1 degree of freedom": (student(1), 1.5),
    "Student t entries, 2": (student(2), 2.0),
    "Student t entries, 3": (student(3), 2.5),
    "scaled columns": (scaled_columns(2.0), 2.0),
    "scaled columns, steeper": (scaled_columns(3.5), 3.5),
    "inverse of a Gaussian matrix": (inverse(1), 1.5),
    "inverse of a product of two": (inverse(2), 4 / 3),
}


def eigenvalues(count, replicates, sides=(100, 300)):
    """Coverage of the known exponent by both intervals, and the spread of alpha over matrices."""
    print("| matrices | M | alpha | estimator | matrices drawn | coverage of `ci` | of 1.96 errors "
          "| mean of alpha | sd of alpha | sd by `ci` | by `alpha_stderr` |")  # fmt: skip
    print("|---" * 11 + "|")
    for name, (draw, alpha) in MATRICES.items():
        for M in sides:
            rng = np.random.default_rng([M, int(100 * alpha)])
            data = [ps.esd(draw(rng, M), method="svd").evals for _ in range(count)]
            for estimator in ("ww", "csn"):
                fits = ps.fit_powerlaw_batch(
                    data, estimator=estimator, threshold=0.0, bootstrap=replicates, seed=M
                )
                found = np.array([(x.alpha, x.alpha_stderr, *x.ci) for x in fits]).T
                own, error, low, high = found[:, np.isfinite(found).all(0)]
                cells = [name, str(M), f"{alpha:.2f}", estimator, str(len(own)),
                         f"{np.mean((low <= alpha) & (alpha <= high)):.2f}",
                         f"{np.mean(np.abs(own - alpha) <= 1.96 * error):.2f}",
                         f"{own.mean():.2f}", f"{own.std():.3f}",
                         f"{np.median(high - low) / 3.92:.3f}",
                         f"{np.median(error):.3f}"]  # fmt: skip
                print("|", " | ".join(cells), "|", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=int, default=4000, help="data sets a row, at most")
    parser.add_argument("--replicates", type=int, default=400, help="bootstrap replicates each")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000, 5000])
    parser.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS))
    parser.add_argument("--bias", action="store_true", help="only the bias of alpha: no refits")
    parser.add_argument("--eigenvalues", action="store_true", help="only matrices of known alpha")
    options = parser.parse_args()
    if options.eigenvalues:
        eigenvalues(min(options.data, 200), options.replicates)
        return
    if options.bias:
        bias(options.data, options.sizes)
        return
    head = ["estimator", "data", "n", "alpha", "data sets", "coverage", "width / (alpha - 1)"]
    head += [f"p <= {level}" for level in LEVELS]
    head += ["xmin in the bulk", f"of those with p <= {LEVELS[0]}"]
    print("|", " | ".join(head), "|")
    print("|---" * len(head) + "|")
    start = time.perf_counter()
    for estimator, family in CASES:
        for n in options.sizes:
            for alpha in options.alphas:
                count, coverage, width, shares, in_bulk, blame = measure(
                    estimator, family, n, alpha, min(options.data, POINTS // n), options.replicates
                )
                cells = [f"{count}", f"{coverage:.3f}", f"{width:.2f}"]
                cells += [f"{share:.3f}" for share in (*shares, in_bulk, blame)]
                print(
                    f"| {estimator} | {family} | {n} | {alpha} |",
                    " | ".join(cells),
                    "|",
                    flush=True,
                )
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
