"""Everything about speed in one run: the tables of speed.md.

    pip install mkl scipy-openblas64; apt-get install libelpa-dev openmpi-bin
    python benchmarks/speed.py [--quick] [--sections fallback zoo] [--threads 2]

Runs eigenvalues.py, gram.py, fallback.py, zoo.py and first_call.py, one after the other, and writes
what they print to speed.md, with the machine, the versions and the date. About an hour on two quiet
cores; --quick, with fewer rounds and sizes, takes a fifth of it. Sections that are left out keep
what they had.
"""

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy

import pyspectra as ps

OUT = Path(__file__).with_name("speed.md")
HEAD = "# Speed\n\nWritten by `python benchmarks/speed.py`; each program says what its table is."
# Section: its title and its runs, which are programs with arguments, whole and quick.
SECTIONS = {
    "eigenvalues": (
        "Eigenvalues alone, float64",
        [
            ("eigenvalues.py", "--rounds 5", "--rounds 2 --sizes 16x256 4x1024 256 512 1024 2048"),
            ("eigenvalues.py", "--rounds 1 --sizes 8192", None),
        ],
    ),
    "gram": ("Gram matrices", [("gram.py", "--rounds 7", "--rounds 3")]),
    "fallback": (
        "Singular values that the Gram matrix does not resolve",
        [
            ("fallback.py", "--rounds 5", "--rounds 2 --sizes 384 768 1024"),
            ("fallback.py", "--rounds 3 --sizes 384 768 1024 --aspects 2 4", None),
        ],
    ),
    "zoo": (
        "Whole models",
        [
            (
                "zoo.py",
                "--rounds 7",
                "--rounds 3 --weightwatcher-rounds 1 --models MiniLM Eff HED Res",
            )
        ],
    ),
    "first_call": (
        "The first call, and the command line",
        [("first_call.py", "--processes 9", "--processes 3 --later 5")],
    ),
}


def machine(threads):
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    models = re.findall(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    name = models[0] if models else platform.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    build = ps.show_config()
    return (
        f"{datetime.date.today()}, {name}, {threads} threads, "
        f"{build.isa}, {build.compiler}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"commit {commit}, load average at the start {os.getloadavg()[0]:.1f}"
    )


def section(name, arguments):
    """Run the programs of a section: its text."""
    title, runs = SECTIONS[name]
    begin = machine(arguments.threads)
    parts = [f"## {title}"]
    for program, whole, quick in runs:
        chosen = quick if arguments.quick else whole
        if chosen is None:
            continue
        words = [*chosen.split(), "--threads", str(arguments.threads)]
        print(f"{program} {' '.join(words)}", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
        run = subprocess.run(
            [sys.executable, program, *words], cwd=Path(__file__).parent, env=environment,
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        print(run.stdout, flush=True)
        parts += [f"`python benchmarks/{program} {' '.join(words)}`; {begin}", run.stdout.strip()]
    return "\n\n".join(parts)


def sections_of(text):
    """Title of each section of speed.md, and its text."""
    return {part.partition("\n")[0]: f"## {part}".strip() for part in text.split("\n## ")[1:]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    kept = sections_of(OUT.read_text()) if OUT.exists() else {}
    for name in arguments.sections:
        kept[SECTIONS[name][0]] = section(name, arguments)
        titles = [title for title, _ in SECTIONS.values() if title in kept]
        OUT.write_text("\n\n".join([HEAD, *(kept[title] for title in titles)]) + "\n")


if __name__ == "__main__":
    main()
