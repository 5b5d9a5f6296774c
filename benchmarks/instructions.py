"""Instructions that fixed workloads take: figures that a change can be held against anywhere.

    apt-get install valgrind
    python benchmarks/instructions.py            # measure and print: minutes
    python benchmarks/instructions.py --check    # hold against instructions.json, within 2 %
    python benchmarks/instructions.py --write    # replace instructions.json

Valgrind counts, with one thread and AVX2, the last instruction set that it knows. Imports and the
first call are not counted. Compilers and versions of numpy and SciPy (whose LAPACK serves some of
the work) change the counts, so those that differ from the table's are named. Fewer instructions
need not be less time: what waits for memory is not seen.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TABLE = Path(__file__).with_name("instructions.json")

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def _gram(rng, b, n):
    X = rng.standard_normal((b, n, n + n // 4))
    return X @ X.transpose(0, 2, 1)


def eigvals_8x384():
    import pyspectra as ps

    A = _gram(np.random.default_rng(0), 8, 384)
    return lambda: ps.eigvals(A)


def eigvals_1024():
    import pyspectra as ps

    A = _gram(np.random.default_rng(0), 1, 1024)
    return lambda: ps.eigvals(A)


def gram_bfloat16():
    import gram

    from pyspectra import ops

    host, _ = gram.stored("bfloat16", (1024, 2048))
    return lambda: ops.gram([host])


def fallback_384():
    import fallback

    import pyspectra as ps

    W = fallback.dead_rows(np.random.default_rng(0), 384, 384).astype(np.float32)
    return lambda: ps.esd(W)


def fit_2048():
    import pyspectra as ps

    evals = np.sort(np.random.default_rng(0).pareto(2.0, 2048) + 1.0)
    return lambda: [ps.fit_powerlaw(evals) for _ in range(100)]


def analyze_minilm():
    import real_models

    import pyspectra as ps

    folder = real_models.minilm_dir()
    return lambda: ps.analyze(folder, progress=False)


def analyze_efficientnet():
    import pyspectra as ps

    weights = dict(np.load(Path("efficientnet.npz")))  # torch would take minutes to import
    return lambda: ps.analyze(weights, progress=False)


WORKLOADS = {
    "eigvals, 8 of 384 x 384": eigvals_8x384,
    "eigvals, 1024 x 1024": eigvals_1024,
    "Gram matrix, bfloat16 1024 x 2048": gram_bfloat16,
    "esd beyond the Gram matrix, 384 x 384": fallback_384,
    "100 fits of 2048 eigenvalues": fit_2048,
    "analyze EfficientNet-lite0": analyze_efficientnet,
    "analyze MiniLM": analyze_minilm,
}


def control(*words):
    command = ["callgrind_control", *words, str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def work(names):
    """What runs inside valgrind: count the second call of each alone, and dump the count."""
    for name in names:
        call = WORKLOADS[name]()
        call()
        control("-i", "on")
        call()
        control("-d")
        control("-i", "off")


def counts_of(names, folder):
    """Run the workloads in valgrind: their counts."""
    environment = {
        **os.environ, "PYSPECTRA_ISA": "avx2", "PYTHONHASHSEED": "0",
        **dict.fromkeys(("PYSPECTRA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    }  # fmt: skip
    out = Path(folder) / "counts"
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    command += [sys.executable, __file__, "--work", *names]
    run = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    parts = [out.with_name(f"counts.{k}").read_text() for k in range(1, len(names) + 1)]
    totals = [int(re.search(r"^totals: (\d+)", part, re.M)[1]) for part in parts]
    return dict(zip(names, totals, strict=True))


def versions():
    import scipy

    import pyspectra as ps

    return {
        "compiler": ps.show_config().compiler,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def measure(names):
    import real_models

    with tempfile.TemporaryDirectory() as folder:
        if "analyze EfficientNet-lite0" in names:
            np.savez(f"{folder}/efficientnet.npz", **real_models.efficientnet_lite0())
        return counts_of(names, folder)


def table():
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"counts": {}, "versions": {}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="fail where more is needed than before"
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--only", nargs="+", help="beginnings of names")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work)
    if not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed")
    only = tuple(arguments.only or [""])
    names = [name for name in WORKLOADS if name.startswith(only)]
    kept = table()
    now, worse = versions(), []
    changed = {k: v for k, v in kept["versions"].items() if v != now.get(k)}
    if changed:
        print(f"the table was made with {changed}, now there is {now}")
    print("| workload | million instructions | of the table's |\n|---|---|---|")
    counts = measure(names)
    for name, instructions in counts.items():
        before = kept["counts"].get(name)
        share = f"{instructions / before:.4f}" if before else ""
        print(f"| {name} | {instructions / 1e6:.1f} | {share} |", flush=True)
        if before and instructions > before * (1 + arguments.tolerance):
            worse.append(name)
    if arguments.write:
        merged = {**table()["counts"], **counts}
        kept = {"versions": now, "counts": {k: merged[k] for k in WORKLOADS if k in merged}}
        TABLE.write_text(json.dumps(kept, indent=1) + "\n")
    if arguments.check and worse:
        raise SystemExit(f"more instructions than before: {', '.join(worse)}")
    return None


if __name__ == "__main__":
    main()
