"""Regenerate pyspectra/report/_keywords.py from the option records; --check only compares.

Type checkers know the keywords of `pyspectra.analyze` from it; nothing imports it at run time.
"""

import sys
from pathlib import Path

from pyspectra.report.options import records

TARGET = Path(__file__).parent.parent / "pyspectra" / "report" / "_keywords.py"

HEAD = '''"""The keywords of `pyspectra.analyze` for type checkers; `make stubs` makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class AnalyzeKeywords(TypedDict, total=False):
    """One item an option; see `pyspectra.report.options.AnalyzeOptions`."""

'''


def generate() -> str:
    """Return the module."""
    return HEAD + "".join(f"    {o.name}: {o.annotation}\n" for o in records())


if __name__ == "__main__":
    fresh = generate()
    if "--check" not in sys.argv:
        TARGET.write_text(fresh)
    elif TARGET.read_text() != fresh:
        sys.exit("pyspectra/report/_keywords.py is out of date: run `make stubs`")
