"""What the machine was: recorded in the JSON of every benchmark run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import scipy

import pyspectra as ps

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def pytest_benchmark_update_machine_info(config, machine_info):
    build = ps.show_config()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine_info["pyspectra"] = {
        "version": build.version,
        "isa": build.isa,
        "threads": build.threads,
        "blas": list(build.blas),
        "compiler": build.compiler,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "commit": commit,
    }
