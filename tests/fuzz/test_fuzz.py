"""A short run of every fuzz target: the same files each time. `make fuzz` has the long one."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from fuzz.targets import TARGETS

FILES = 250

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from itertools import islice
from pathlib import Path
from fuzz.run import limit_memory
from fuzz.targets import TARGETS, attempt
limit_memory()
target = TARGETS[sys.argv[2]]
for i, path in enumerate(islice(target.inputs(0, Path(sys.argv[3])), int(sys.argv[4]))):
    problem = attempt(target, path)
    if problem is not None:
        sys.exit(f"file {i}: {problem}")
"""


@pytest.mark.parametrize("name", TARGETS)
def test_no_broken_file_does_more_than_be_refused(name: str, tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", CODE, tests, name, str(tmp_path / "work"), str(FILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


# --- the limits are live ------------------------------------------------------------------------

PLANTED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fuzz import run, targets

def never_ends(path):
    while True:
        pass

def sleeps(path):
    time.sleep(3600)

def hoards(path):
    bytearray(8 << 30)

def dies(path):
    import os
    os.abort()

def fails(path):
    raise KeyError("planted")

def refuses(path):
    raise targets.REFUSALS[0]("planted")

reads = targets.TARGETS["npy"]
planted = {f.__name__: f for f in (never_ends, sleeps, hoards, dies, fails, refuses)}
targets.TARGETS.update({
    name: targets.Target(name, reads.file, reads.seeds, reads.mutate, f)
    for name, f in planted.items()
})
run.FILE_CPU_SECONDS, run.FILE_SECONDS = 1.0, float(sys.argv[3])
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    for name in sys.argv[4:]:
        files, found = run.run(name, 60.0, 0, folder)
        print(name, len(found), found[0] if found else "")
"""


def planted(tmp_path: Path, name: str, file_seconds: float) -> str:
    """Fuzz a target with a fault; return the line about it."""
    script = tmp_path / "planted.py"  # a file: the process of the target imports it
    script.write_text(PLANTED)
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, script, tests, tmp_path, str(file_seconds), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_planted_hang_is_found(tmp_path: Path) -> None:
    line = planted(tmp_path, "never_ends", 500.0)
    assert line.startswith("never_ends 1 ('over 1 s of the processor for one file'")
    assert (tmp_path / "never_ends" / TARGETS["npy"].file).is_file()  # the file is kept


def test_a_planted_wait_is_found(tmp_path: Path) -> None:
    line = planted(tmp_path, "sleeps", 3.0)
    assert line.startswith("sleeps 1 ('over 3 s for one file'")


def test_a_planted_hunger_for_memory_is_found(tmp_path: Path) -> None:
    line = planted(tmp_path, "hoards", 500.0)
    assert "('MemoryError'" in line
    assert int(line.split()[1]) >= 20


def test_a_planted_death_is_found(tmp_path: Path) -> None:
    assert "1 ('the process ended with status -6'" in planted(tmp_path, "dies", 500.0)


def test_a_planted_error_is_found_and_kept(tmp_path: Path) -> None:
    assert "KeyError: 'planted'" in planted(tmp_path, "fails", 500.0)
    kept = [p for p in tmp_path.iterdir() if p.name.endswith(".finding")]
    assert len(kept) >= 20


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    """Or else all that a target shows is how it refuses."""
    target = TARGETS[name]
    unbroken = type(target)(**{**vars(target), "mutate": lambda data, rng: data})
    for path in itertools.islice(unbroken.inputs(1, tmp_path / "work"), 4):
        unbroken.run(path)
