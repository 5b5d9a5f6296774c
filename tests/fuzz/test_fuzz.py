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


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str, tmp_path: Path) -> None:
    """Or else all that a target shows is how it refuses."""
    target = TARGETS[name]
    unbroken = type(target)(**{**vars(target), "mutate": lambda data, rng: data})
    for path in itertools.islice(unbroken.inputs(1, tmp_path / "work"), 4):
        unbroken.run(path)
