"""Numbers on the command line: what is no number is left for the check of its option to refuse."""

from __future__ import annotations

__all__ = ["as_integer_text", "as_number_text"]


def as_integer_text(text: str) -> int | str:
    """Return text as an integer, or unchanged if it is none: the check of the option refuses it."""
    try:
        return int(text)
    except ValueError:
        return text


def as_number_text(text: str) -> float | str:
    """Return text as a number, or unchanged if it is none: the check of the option refuses it."""
    try:
        return float(text)
    except ValueError:
        return text
