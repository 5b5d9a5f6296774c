"""Regenerate the stubs in pyspectra/_core from the installed extension; --check only compares."""

import subprocess
import sys
import tempfile
from pathlib import Path

STUBS = Path(__file__).parent.parent / "pyspectra" / "_core"


def generate() -> dict[str, str]:
    """Return the stubs of the installed extension by file name, formatted."""
    bin_dir = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        # Run elsewhere: here, the source tree would hide the installed package.
        subprocess.run(
            [bin_dir / "pybind11-stubgen", "pyspectra._core", "-o", folder, "--exit-code"],
            check=True,
            cwd=folder,
            capture_output=True,
        )
        stubs = Path(folder) / "pyspectra" / "_core"
        style = ["--isolated", "--line-length=100"]
        subprocess.run([bin_dir / "ruff", "format", "-q", *style, stubs], check=True)
        return {path.name: path.read_text() for path in sorted(stubs.glob("*.pyi"))}


if __name__ == "__main__":
    fresh = generate()
    committed = {path.name: path.read_text() for path in sorted(STUBS.glob("*.pyi"))}
    if "--check" in sys.argv:
        if committed != fresh:
            sys.exit("pyspectra/_core is out of date: run `make stubs`")
    else:
        for name in committed.keys() - fresh.keys():
            (STUBS / name).unlink()
        STUBS.mkdir(exist_ok=True)
        for name, text in fresh.items():
            (STUBS / name).write_text(text)
