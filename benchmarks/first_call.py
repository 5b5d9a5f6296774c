"""The first `analyze` of a process against later ones, and the start of the command line.

    python benchmarks/first_call.py [--processes 7] [--later 9] [--threads 2]

A person calls once. Each process is fresh: it imports numpy, then `analyze` (timed by itself),
times its first call and, with pauses, later ones; of these the median counts, and of the processes
the median ratio (the aim is 1.15), in which is whatever the package imports only when it is called.
The command `pyspectra analyze MODEL` is timed from before the interpreter starts to the moment when
the file with the tensors is opened for the first time, which precedes the first tensor (the aim is
0.3 s), and to its end. Files are in the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import real_models

CALLS = """
import json, sys, time
import numpy
begin = time.perf_counter()
from pyspectra import analyze
imported = time.perf_counter() - begin
path, in_memory, later, pause = json.loads(sys.argv[1])
model = path
if in_memory:
    from safetensors.numpy import load_file
    model = load_file(path + "/model.safetensors")
elif path.endswith(".pth"):
    import torch  # reads the file's pickle; importing it is not what is measured
took = []
for turn in range(1 + later):
    time.sleep(pause)
    begin = time.perf_counter()
    analyze(model, progress=False)
    took.append(time.perf_counter() - begin)
print(json.dumps([imported, *took]))
"""

COMMAND = """
import sys, time

begin, *words = sys.argv[1:]
opened = []

def watch(event, arguments):
    if event == "open" and not opened and str(arguments[0]).endswith((".safetensors", ".pth")):
        opened.append(time.time())

sys.addaudithook(watch)
sys.argv = ["pyspectra", *words]
from pyspectra.cli.main import main
code = main()
end = time.time()
print(opened[0] - float(begin), end - float(begin), file=sys.stderr)
sys.exit(code)
"""


def child(code, *arguments):
    with tempfile.TemporaryDirectory() as folder:  # not where a source tree would be found first
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder,
            check=False,
        )  # fmt: skip


def calls(path, in_memory, arguments):
    """Medians: of the import, the first call, later ones, and of the ratio of these two."""
    imports, first, later, ratios = [], [], [], []
    for _ in range(arguments.processes):
        run = child(CALLS, json.dumps([str(path), in_memory, arguments.later, timing.PAUSE]))
        if run.returncode:
            raise SystemExit(run.stderr)
        imported, *took = json.loads(run.stdout)
        imports.append(imported)
        first.append(took[0])
        later.append(statistics.median(took[1:]))
        ratios.append(first[-1] / later[-1])
    return [statistics.median(x) for x in (imports, first, later, ratios)]


def command(path, arguments):
    """Median seconds to the first opening of the weights, and to the end."""
    opened, ended = [], []
    for _ in range(arguments.processes + 1):
        run = child(COMMAND, repr(time.time()), "analyze", str(path), "--quiet")
        try:
            a, b = map(float, run.stderr.splitlines()[-1].split())
        except (ValueError, IndexError):
            raise SystemExit(run.stderr) from None
        opened.append(a)
        ended.append(b)
    return statistics.median(opened[1:]), statistics.median(ended[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--later", type=int, default=9, help="calls after the first")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    for variable in ("PYSPECTRA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    cases = [
        ("MiniLM, its folder", real_models.minilm_dir(), False),
        ("MiniLM, tensors in memory", real_models.minilm_dir(), True),
        ("EfficientNet-lite0, its file", real_models.efficientnet_path(), False),
    ]
    rows = []
    for name, path, in_memory in cases:
        *medians, ratio = calls(path, in_memory, arguments)
        times = map(timing.milliseconds, medians)
        rows.append([name, *times, f"{ratio:.2f}"])
    timing.table(["model", "import", "first call", "later ones", "ratio"], rows)
    opened, ended = command(real_models.minilm_dir(), arguments)
    print(f"\ncommand line, MiniLM: weights opened after {timing.milliseconds(opened)}, ", end="")
    print(f"over after {timing.milliseconds(ended)}")


if __name__ == "__main__":
    main()
