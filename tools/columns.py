"""Regenerate docs/columns.md, what every column of a report is; --check only compares."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyspectra.report import columns, weightwatcher

TARGET = Path(__file__).parent.parent / "docs" / "columns.md"

HEAD = """# Columns of a report

`make stubs` makes this page from the records in `pyspectra/report/columns.py` and
`pyspectra/report/weightwatcher.py`. `report.columns()` gives the same for one report.
"""


def table(known: Sequence[columns.Column[Any]]) -> Iterator[str]:
    """Yield the rows of one dialect."""
    yield "| column | what it is | when |"
    yield "|---|---|---|"
    for column in known:
        yield f"| `{column.name}` | {column.help} | {column.group.words} |"


def generate() -> str:
    """Return the page."""
    lines = [
        HEAD,
        "## Ours",
        "",
        *table(columns.COLUMNS),
        "",
        "The summary has these means, over the layers that have the value:",
        ", ".join(f"`{e.name}`" for e in columns.SUMMARY if not e.name.startswith("n_")) + ".",
        "",
        '## WeightWatcher\'s (`dialect="weightwatcher"`)',
        "",
        "Eigenvalues of 2-D convolutions are multiplied by 1/2 where slices are pooled, by half",
        "the size of the receptive field where they are not; a failed fit is -1.",
        "",
        *table(weightwatcher.COLUMNS),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    fresh = generate()
    if "--check" not in sys.argv:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(fresh, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != fresh:
        sys.exit("docs/columns.md is out of date: run `make stubs`")
