"""Numbers of the command line, which the check of an option refuses where they are none."""

from __future__ import annotations

__all__ = ["as_integer_text", "as_number_text"]


def as_integer_text(text: str) -> int | str:
    """Return text as an integer; as it is if it is none, for the check of the option to refuse."""
    try:
        return int(text)
    except ValueError:
        return text


def as_number_text(text: str) -> float | str:
    """Return text as a number; as it is if it is none, for the check of the option to refuse."""
    try:
        return float(text)
    except ValueError:
        return text
