"""Make tests/data/randomize_draws.csv and tests/data/vectors.csv with WeightWatcher 0.7.7.

Run from tests/ as ``python -m reference.weightwatcher_tables`` where weightwatcher is installed
(the tests do not need it). ``randomize=True`` draws from numpy's global generator: the table
keeps the values of 20 of its seeds. WeightWatcher builds the same
density estimate once for each of some 240 trial scales; here the built one is kept, which changes
no number.
"""

import contextlib
import csv
import io
import logging
from pathlib import Path

import numpy as np
import synthetic_cases
from sklearn.neighbors import KernelDensity

DATA = Path(__file__).parent.parent / "data"
SEEDS = range(20)
RANDOM_COLUMNS = (
    "max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist", "num_traps", "rand_num_spikes",
    "rand_sigma_mp", "rand_mp_softrank", "rand_W_scale", "rand_bulk_max", "rand_bulk_min",
)  # fmt: skip
VECTOR_COLUMNS = tuple(
    f"{part}_{moment}_{name}"
    for name in ("vec_entropy", "loc_ratio", "part_ratio")
    for part in ("bulk", "tail")
    for moment in ("mean", "var")
)


class KeptDensity(KernelDensity):
    """The density estimate that remembers its last answer."""

    _kept = None

    def score_samples(self, X):
        key = (np.asarray(self.tree_.data).tobytes(), X.tobytes())
        if KeptDensity._kept is None or KeptDensity._kept[0] != key:
            KeptDensity._kept = (key, super().score_samples(X))
        return KeptDensity._kept[1]


def analyze(weightwatcher, W, **options):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = weightwatcher.WeightWatcher(model={"w.weight": W})
        return model.analyze(**options).iloc[0].to_dict()


def main():
    logging.disable(logging.CRITICAL)
    import weightwatcher

    weightwatcher.RMT_Util.KernelDensity = KeptDensity
    cases = synthetic_cases.cases()
    with open(DATA / "vectors.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", *VECTOR_COLUMNS])
        for case, W in cases.items():
            row = analyze(weightwatcher, W, vectors=True)
            writer.writerow([case, *(row.get(c) for c in VECTOR_COLUMNS)])
    with open(DATA / "randomize_draws.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "column", "values"])
        for case, W in cases.items():
            rows = []
            for seed in SEEDS:
                np.random.seed(seed)
                rows.append(analyze(weightwatcher, W, randomize=True))
            for column in RANDOM_COLUMNS:
                writer.writerow([case, column, " ".join(f"{row[column]:.9g}" for row in rows)])


if __name__ == "__main__":
    main()
