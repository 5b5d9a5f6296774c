"""Two processes of one run, as the tests of distributed training start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SECONDS = 300


def run_two(module: str, folder: Path) -> None:
    """Run a module of the tests as rank 0 and rank 1 side by side; both must end well.

    Its arguments are the rank, the number of processes, and the folder for what it finds.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), "2", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parent,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
