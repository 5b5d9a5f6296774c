"""What `pyspectra.training.History` wrote."""

from __future__ import annotations

from pathlib import Path

from pyspectra.training.history_file import read_lines
from pyspectra.training.readers.reader import Reader

__all__ = ["READER"]


def _find(path: Path) -> Path | None:
    if path.is_dir():
        return next(iter(sorted(path.glob("*.jsonl"))), None)
    return path if path.suffix == ".jsonl" or ".jsonl." in path.name else None


READER = Reader("pyspectra", "*.jsonl", _find, read_lines)
