"""The signs of which tables are made, for terminals with and without Unicode."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Glyphs(NamedTuple):
    """What stands for nothing, for a range, for a bar."""

    dash: str
    plus_minus: str
    dot: str
    rule: str
    axis: str
    ellipsis: str
    to: str
    at_least: str
    bar: Callable[[float], str]


def _block_bar(length: float) -> str:
    eighths = max(1, round(length * 8))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


UNICODE = Glyphs("–", "±", " · ", "─", "│", "…", "–", "≥", _block_bar)
ASCII = Glyphs("-", "+-", "; ", "-", "|", "..", "-", ">=", lambda n: "#" * max(1, round(n)))
