"""Fuzz the readers: ``python tests/fuzz/run.py --seconds 600 safetensors torch`` (`make fuzz`).

Each target runs in a process of its own with a limit on memory; the parent kills it when one file
takes too long: seconds of the processor, as a machine may stop for a while, or many by the clock,
as a process that waits for itself takes none. Whatever a target does but read or refuse is a
finding: the file is kept, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.targets import TARGETS, attempt

MEMORY_BYTES = 3 * 2**30  # of address space: Python and torch take one
FILE_CPU_SECONDS = 20.0
FILE_SECONDS = 300.0


def limit_memory() -> None:
    """Let this process have so much more memory than it has now, and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def work(name: str, seed: int, folder: str, state: Any, findings: Any) -> None:
    """Run one target for ever.

    `state` holds the number of files, and when the last one came by the clock and the processor.
    """
    limit_memory()
    target = TARGETS[name]
    for path in target.inputs(seed, Path(folder)):
        state[1:3] = time.monotonic(), time.process_time()
        problem = attempt(target, path)
        if problem is not None:
            kept = Path(f"{folder}.{int(state[0])}.finding")
            shutil.copytree(path.parent, kept, dirs_exist_ok=True)
            findings.put((problem, str(kept)))
        state[0] += 1


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has had."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def overdue(process: int, clock: float, cpu: float) -> str | None:
    """Say how long a process has had its file, if that is too long."""
    if clock and cpu_seconds(process) - cpu > FILE_CPU_SECONDS:
        return f"over {FILE_CPU_SECONDS:g} s of the processor for one file"
    if clock and time.monotonic() - clock > FILE_SECONDS:
        return f"over {FILE_SECONDS:g} s for one file"
    return None


def run(name: str, seconds: float, seed: int, folder: Path) -> tuple[int, list[tuple[str, str]]]:
    """Fuzz one target; return how many files it had, and the findings with where they are kept."""
    context = multiprocessing.get_context("spawn")
    state, findings = context.Array("d", [0.0, 0.0, 0.0]), context.Queue()
    arguments = (name, seed, str(folder / name), state, findings)
    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    found: list[tuple[str, str]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.is_alive() and len(found) < 20:
        time.sleep(min(0.5, seconds))
        while not findings.empty():
            found.append(findings.get())
        late = overdue(process.pid or 0, state[1], state[2])
        if late is not None:
            found.append((late, str(folder / name)))
            break
    if not process.is_alive():
        found.append((f"the process ended with status {process.exitcode}", str(folder / name)))
    process.kill()
    process.join()
    return int(state[0]), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="where findings go (default: a new folder)")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="pyspectra-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name in arguments.targets or TARGETS:
        files, found = run(name, arguments.seconds, arguments.seed, folder)
        print(f"{name}: {files} files, {len(found)} findings (seed {arguments.seed})", flush=True)
        for problem, kept in found:
            print(f"  {problem}\n    {kept}", flush=True)
        bad += len(found)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
