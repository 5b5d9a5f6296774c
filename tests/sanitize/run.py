"""Run the kernels' tests under sanitizers: ``python tests/sanitize/run.py address thread``.

`make sanitize` does it. For each sanitizer the extension is built with it; then faults that were
planted (planted.cpp) must be reported, since silence means nothing where a sanitizer sleeps; then
the tests run, and a finding ends them, with the report on the screen and a status other than 0.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sanitize"

TESTS = [
    "csrc",
    "analysis/test_side_by_side.py",
    "spectra/test_bootstrap.py",
    "spectra/test_device_spectra.py",
    "spectra/test_estimators.py",
    "spectra/test_properties.py",
    "spectra/test_randomize.py",
    "--ignore=csrc/core/test_isa_units.py",  # compiles what it looks at
]
"""Arguments of pytest: the tests of the kernels, from ``tests/``."""

# A fork does not wait for the allocator of GCC's ASan: a child of threads that allocate may wait
# for its lock for ever.
FORK_OF_THREADS = "test_a_child_forked_while_other_threads_analyse_can_analyse"

# The tests compile the kernels of CUDA for their emulator. It has one thread.
EMULATOR_FLAGS = "-g -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
SKIPPED = {
    "address": ["-k", f"not {FORK_OF_THREADS}"],
    "thread": ["--ignore-glob=*/test_device_*.py"],
}

PLANTS = {
    "address": {
        "heap_buffer_overflow": "heap-buffer-overflow",
        "heap_buffer_overflow_of_numpy": "heap-buffer-overflow",
        "heap_use_after_free": "heap-use-after-free",
        "signed_integer_overflow": "signed integer overflow",
        "null_pointer_passed": "null pointer passed as argument",
        "cast": "outside the range of representable values",
        "misaligned_address": "misaligned address",
        "invalid_bool": "not a valid value for type 'bool'",
    },
    "thread": {"data_race": "data race"},
}
"""Tests of plants.py, and what the sanitizer must say of each."""


def library(name: str) -> str:
    """Path of a run-time library of the compiler."""
    compiler = os.environ.get("CXX", "c++")
    command = [*shlex.split(compiler), f"-print-file-name={name}"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(path):
        raise SystemExit(f"run.py: {compiler} has no {name}; g++ has, with its sanitizers")
    return path


def environment(sanitizer: str) -> dict[str, str]:
    """Return the environment in which an uninstrumented Python loads the instrumented core."""
    runtimes = {"address": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}[sanitizer]
    options = {
        # Python and its libraries keep memory to the end on purpose: detect_leaks=0.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # Libraries without instrumentation synchronise in ways that are not seen: what they do is
        # no finding (ignore_noninstrumented_modules). Children of fork() are tested too.
        "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1:die_after_fork=0",
    }
    return {
        **os.environ,
        **options,
        # The C++ library too: else the run-time library finds no exceptions to intercept.
        "LD_PRELOAD": " ".join(library(name) for name in [*runtimes, "libstdc++.so"]),
        "CXXFLAGS": EMULATOR_FLAGS if sanitizer == "address" else "",
        "PYTHONPATH": str(BUILD / sanitizer / "site"),
        "PYTHONMALLOC": "malloc",  # small objects get their own surroundings
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def pytest(*arguments: str) -> list[str]:
    """Return the command that runs tests so that nothing stands before a sanitizer's report."""
    return [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "no:faulthandler", "--capture=sys", *arguments),
    ]


def build(sanitizer: str) -> None:
    """Build and install package and planted faults below ``build/sanitize``."""
    folder = BUILD / sanitizer
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--upgrade", "--target", str(folder / "site"), str(ROOT)),
        *("-c", str(ROOT / "constraints.txt")),
        *("-C", f"build-dir={folder / 'build'}", "-C", "cmake.define.PYSPECTRA_CUDA=OFF"),
        *("-C", "install.strip=false"),  # reports name functions and lines
        *("-C", f"cmake.define.PYSPECTRA_SANITIZE={sanitizer}"),
    ]
    subprocess.run(command, check=True)


def show_plants(sanitizer: str) -> None:
    """Make sure that the sanitizer reports each planted fault, and that the report is fatal."""
    for name, message in PLANTS[sanitizer].items():
        done = subprocess.run(
            pytest(f"sanitize/plants.py::test_{name}"),
            cwd=ROOT / "tests", env=environment(sanitizer),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0 or message not in done.stdout:
            raise SystemExit(f"{done.stdout}\n{sanitizer}: the planted {name} was not reported")
    print(f"{sanitizer}: all {len(PLANTS[sanitizer])} planted faults are reported", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sanitizers", nargs="*", metavar="SANITIZER", help=", ".join(PLANTS))
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, default=TESTS, help="pytest's arguments, from tests/"
    )
    arguments = parser.parse_args()
    for name in arguments.sanitizers:
        if name not in PLANTS:
            parser.error(f"SANITIZER must be one of {', '.join(PLANTS)}, got {name!r}")
    bad = 0
    for sanitizer in arguments.sanitizers or PLANTS:
        begin = time.monotonic()
        build(sanitizer)
        built = time.monotonic()
        show_plants(sanitizer)
        command = pytest(*arguments.tests, *SKIPPED[sanitizer])
        status = subprocess.run(
            command, cwd=ROOT / "tests", env=environment(sanitizer), check=False
        ).returncode
        bad += status != 0
        print(
            f"{sanitizer}: status {status}; {built - begin:.0f} s to build, "
            f"{time.monotonic() - built:.0f} s to run",
            flush=True,
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
