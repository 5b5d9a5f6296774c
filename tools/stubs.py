"""Regenerate pyspectra/_core.pyi from the installed extension; --check only compares."""

import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).parent.parent / "pyspectra" / "_core.pyi"


def generate() -> str:
    """Return the stub of the installed extension, formatted."""
    bin_dir = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        # Run elsewhere: here, the source tree would hide the installed package.
        subprocess.run(
            [bin_dir / "pybind11-stubgen", "pyspectra._core", "-o", folder, "--exit-code"],
            check=True,
            cwd=folder,
            capture_output=True,
        )
        stub = Path(folder) / "pyspectra" / "_core.pyi"
        style = ["--isolated", "--line-length=100"]
        subprocess.run([bin_dir / "ruff", "format", "-q", *style, stub], check=True)
        return stub.read_text()


if __name__ == "__main__":
    fresh = generate()
    if "--check" not in sys.argv:
        STUB.write_text(fresh)
    elif STUB.read_text() != fresh:
        sys.exit("pyspectra/_core.pyi is out of date: run `make stubs`")
