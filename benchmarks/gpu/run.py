"""Build, test, check and measure on a machine with an NVIDIA GPU, in under nine minutes, offline.

    python benchmarks/gpu/run.py [--out FOLDER]

Needs nvcc, pip, scikit-build-core, pybind11, CMake, pytest, scipy and a torch with CUDA in this
Python. The package goes to FOLDER/site, nothing else is installed. Results: FOLDER/results.json,
FOLDER/results.md, and a log of each part. A part that fails or takes too long leaves the others be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LIMIT = 520.0  # seconds in all


class Run:
    """The parts so far, written out after each."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.begin = time.monotonic()
        self.parts: dict[str, dict[str, Any]] = {}
        self.measured: list[dict[str, Any]] = []

    def part(self, name: str, command: list[str], *, limit: float, **kwargs: Any) -> bool:
        """Run a command; True if it ended well."""
        left = LIMIT - (time.monotonic() - self.begin)
        start = time.monotonic()
        log = self.out / f"{name}.log"
        with log.open("w") as to:
            try:
                code: int | str = subprocess.run(
                    command,
                    stdout=to,
                    stderr=subprocess.STDOUT,
                    timeout=max(1.0, min(limit, left)),
                    check=False,
                    **kwargs,
                ).returncode
            except subprocess.TimeoutExpired:
                code = "timeout"
            except OSError as error:
                code = str(error)
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        self.parts[name] = {
            "ok": code == 0,
            "code": code,
            "seconds": round(time.monotonic() - start, 1),
            "tail": tail,
        }
        print(f"{name}: {code} in {self.parts[name]['seconds']} s", *tail, sep="\n  ", flush=True)
        self.write()
        return code == 0

    def write(self) -> None:
        measured = self.out / "measured.jsonl"
        if measured.exists():
            self.measured = [json.loads(line) for line in measured.read_text().splitlines()]
        text = json.dumps({"parts": self.parts, "measured": self.measured}, indent=1)
        (self.out / "results.json").write_text(text + "\n")
        lines = ["| part | ended | seconds |", "|---|---|---|"]
        lines += [f"| {k} | {p['code']} | {p['seconds']} |" for k, p in self.parts.items()]
        lines += ["", "| what | ms | against | ms | ratio | note |", "|---|---|---|---|---|---|"]
        for row in self.measured:
            cells = [
                row.get(k, "") for k in ("what", "ms", "against", "against_ms", "ratio", "note")
            ]
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
        (self.out / "results.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"))
    out: Path = parser.parse_args().out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "measured.jsonl").unlink(missing_ok=True)
    site = out / "site"
    shutil.rmtree(site, ignore_errors=True)
    run = Run(out)
    python = sys.executable
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONUNBUFFERED": "1"}

    pip = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
    pip += ["--target", str(site), "-C", "cmake.define.PYSPECTRA_CUDA=ON", "-v", str(ROOT)]
    if not run.part("build", pip, limit=240):
        return 1
    # Without a device all tests would be skipped, which counts as success.
    config = "import pyspectra as ps, torch; print(ps.show_config()); torch.cuda.init()"
    run.part("config", [python, "-c", config], limit=60, env=environment, cwd=out)
    tests = sorted(p.name for p in (ROOT / "tests").rglob("test_device_*.py"))
    files = [str(p) for name in tests for p in (ROOT / "tests").rglob(name)]
    # Neither this machine's pytest plugins nor what a newer torch warns of are under test.
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "-m", "gpu"]
    alone = {**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    run.part("tests", [*pytest, *files], limit=100, env=alone, cwd=ROOT / "tests")
    # What has just come from a wrong kernel is not worth measuring, but it is worth knowing.
    measure = [python, str(HERE / "measure.py"), str(out / "measured.jsonl")]
    run.part("measure", measure, limit=200, env=environment, cwd=out)
    with tempfile.TemporaryDirectory(dir=out) as folder:  # gone too where the part was stopped
        llama = [python, str(HERE / "llama.py"), str(out / "measured.jsonl"), folder]
        run.part("llama", llama, limit=120, env=environment, cwd=out)
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/compute-sanitizer")
        sanitizer = str(toolkit) if toolkit.exists() else None
    for tool in ("memcheck", "racecheck") if sanitizer is not None else ():
        command = [str(sanitizer), "--tool", tool, "--error-exitcode", "9", python]
        command += [str(HERE / "small.py")]
        run.part(tool, command, limit=90, env=environment, cwd=out)
    run.write()
    return 0 if all(p["ok"] for p in run.parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
