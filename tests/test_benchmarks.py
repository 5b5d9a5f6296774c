"""Every benchmark can be imported, and the programs among them say what they take."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

# All of them in one process: what takes long is to import torch.
PROGRAM = """
import contextlib, importlib, io, sys

sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    if not (hasattr(module, "main") and hasattr(module, "argparse")):
        continue
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            module.main()
        except SystemExit as end:
            assert not end.code, name
    assert "usage:" in said.getvalue(), name
"""


def test_every_benchmark_is_importable():
    """A function that was renamed or moved must not be found missing at the next measurement."""
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "test_bench_analyze" in names
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(BENCHMARKS), *names],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
