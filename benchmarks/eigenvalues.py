"""Eigenvalues alone of symmetric float64 matrices: this library, numpy, scipy, torch, MKL, OpenBLAS
and ELPA, on the same matrices.

    pip install mkl scipy-openblas64; apt-get install libelpa-dev openmpi-bin
    python benchmarks/eigenvalues.py [--sizes 256 16x256 4096] [--rounds 5] [--threads 2]

`16x256` is a batch of 16. A library that is missing is left out, and why is said. Each one runs in
a process of its own with `--threads` threads (ELPA: so many processes, on MKL's kernels if that is
installed); all take turns in a random order. MKL and OpenBLAS solve batches both ways, with threads
inside a matrix and with a matrix a thread; ctypes costs them about 10 us a matrix. Every result
must have |error| <= 20 eps n lambda_max. GFlop/s count 4/3 n^3 flops a matrix; the share is that of
the best dgemm among these libraries (2048 x 2048 x 2048), measured in the same rounds.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import eigenvalue_peers
import numpy as np
import timing

SIZES = [
    "1000x16", "500x32", "200x64", "50x128", "16x256", "8x384", "4x768", "4x1024", "64", "128",
    "256", "384", "512", "768", "1024", "2048", "4096",
]  # fmt: skip
DGEMM = 2048


class Library:
    """A process that runs one library; `missing` says why it cannot."""

    def __init__(self, name, threads, folder):
        self.name, self.pipes, self.process = name, [], None
        count = "1" if name == "elpa" else str(threads)
        environment = {**os.environ, "PYSPECTRA_NUM_THREADS": str(threads)}
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[variable] = count
        command = [sys.executable, eigenvalue_peers.__file__, name, str(threads)]
        try:
            mkl = eigenvalue_peers.find_library("libmkl_rt")
        except eigenvalue_peers.Missing:
            mkl = None
        if name == "mkl" and mkl:
            environment["LD_LIBRARY_PATH"] = str(mkl.parent)
        paths = []
        if name == "elpa":
            paths = [f"{folder}/elpa.{rank}" for rank in range(threads)]
            for path in paths:
                os.mkfifo(path)
            command = self._mpirun(threads, [*command, f"{folder}/elpa"], environment, mkl)
        if command is None:
            self.facts = {"missing": "mpirun was not found"}
            return
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL if paths else subprocess.PIPE,
        )  # fmt: skip
        first = self.process.stdout.readline() if not paths else self._open(paths)
        self.facts = json.loads(first or '{"missing": "its process ended"}')
        if not paths:
            self.pipes = [self.process.stdin]

    def _mpirun(self, threads, command, environment, mkl):
        if threads == 1:
            return self._with_mkl(command, environment, mkl)
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        program = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(threads)]
        if subprocess.run(["which", "mpirun"], capture_output=True, check=False).returncode:
            return None
        return [*program, *self._with_mkl(command, environment, mkl)]

    def _with_mkl(self, command, environment, mkl):
        if mkl is None:
            return command
        # Debian's ELPA calls whatever BLAS is installed: its reference one would be no peer.
        environment["LD_LIBRARY_PATH"] = str(mkl.parent)
        environment["MKL_THREADING_LAYER"] = "SEQUENTIAL"
        return ["env", f"LD_PRELOAD={mkl}", *command]

    def _open(self, paths):
        """Open the pipes once the processes wait for them; those that failed never will."""
        first = None
        for path in paths:
            while self.process.poll() is None:
                try:
                    self.pipes.append(os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w"))
                    break
                except OSError:
                    time.sleep(0.05)
        return first or self.process.stdout.readline()

    def ask(self, **request):
        for pipe in self.pipes:
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        for pipe in self.pipes:
            pipe.close()
        if self.process:
            self.process.wait()


def parse(size):
    count, _, n = size.rpartition("x")
    return int(count or 1), int(n)


def make(count, n, folder):
    """Save matrices and their eigenvalues by numpy: the names of both files."""
    X = np.random.default_rng(n).standard_normal((count, n, n + n // 4))
    A = np.array([x @ x.T for x in X])
    matrices, expected = f"{folder}/matrices.npy", f"{folder}/expected.npy"
    np.save(matrices, A)
    np.save(expected, np.linalg.eigvalsh(A))
    return {"matrices": matrices, "expected": expected}


def measure(libraries, size, rounds, folder, order, threads):
    """Median seconds by (library, way), and the best dgemm."""
    count, n = parse(size)
    files = make(count, n, folder)
    jobs = [
        (library, way)
        for library in libraries
        for way in library.facts["ways"]
        if count > 1 or "a matrix a thread" not in way
    ]
    jobs += [(library, None) for library in libraries if library.facts["dgemm"]]
    found = {(library.name, way): [] for library, way in jobs}
    bound = timing.TOLERANCE * timing.EPS * n
    for turn in range(rounds + 1):
        order.shuffle(jobs)
        for library, way in jobs:
            timing.rest(threads)
            if way is None:
                found[library.name, way].append(library.ask(dgemm=DGEMM)["rate"])
                continue
            answer = library.ask(way=way, **files)
            if not answer["error"] <= bound:
                raise SystemExit(f"{library.name} {way} at {size}: an error of {answer['error']}")
            if turn:
                found[library.name, way].append(answer["seconds"])
    medians = {key: statistics.median(values) for key, values in found.items()}
    dgemm = max(rate for (_, way), rate in medians.items() if way is None)
    return {key: value for key, value in medians.items() if key[1] is not None}, dgemm


def report(size, seconds, dgemm):
    """Row of the table: ours, its rates, and the best way of each peer."""
    count, n = parse(size)
    mine = seconds.pop(("pyspectra", "eigvals"))
    rate = count * 4 / 3 * n**3 / mine
    row = [size, timing.milliseconds(mine), f"{rate / 1e9:.1f}", f"{rate / dgemm:.0%}"]
    best = {}
    for (name, way), took in seconds.items():
        if name not in best or took < best[name][0]:
            best[name] = took, way
    named = [best[name][0] for name in ("numpy", "scipy", "torch", "mkl") if name in best]
    row.append(f"{min(named) / mine:.2f}" if named else "")
    return row, {
        name: f"{timing.milliseconds(took)}, {way} ({took / mine:.2f}x)"
        for name, (took, way) in best.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="8192 takes minutes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--libraries", nargs="+", help="besides pyspectra; all by default")
    parser.add_argument("--json", type=Path, help="write every median to this file, too")
    arguments = parser.parse_args()
    names = arguments.libraries or [*list(eigenvalue_peers.LIBRARIES)[1:], "elpa"]
    order, rows, kept = random.Random(0), [], {}
    with tempfile.TemporaryDirectory() as folder:
        all_of_them = [Library(name, arguments.threads, folder) for name in ["pyspectra", *names]]
        libraries = [x for x in all_of_them if "missing" not in x.facts]
        if libraries[0].name != "pyspectra":
            raise SystemExit("pyspectra could not be started")
        for library in all_of_them:
            facts = library.facts
            print(library.name, facts.get("version") or f"left out: {facts['missing']}")
        peers = [x.name for x in libraries[1:]]
        for size in arguments.sizes:
            seconds, dgemm = measure(
                libraries, size, arguments.rounds, folder, order, arguments.threads
            )
            ways = {f"{name} {way}": took for (name, way), took in seconds.items()}
            kept[size] = {"seconds": ways, "dgemm": dgemm}
            row, best = report(size, seconds, dgemm)
            rows.append([*row, *(best[name] for name in peers)])
        for library in all_of_them:
            library.close()
    head = ["order", "this", "GFlop/s", "of dgemm", "best of numpy, scipy, torch, mkl", *peers]
    timing.table(head, rows)
    rates = ", ".join(f"{size} {each['dgemm'] / 1e9:.0f}" for size, each in kept.items())
    print(f"\nGFlop/s of dgemm in the rounds of each order: {rates}")
    if arguments.json:
        arguments.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
