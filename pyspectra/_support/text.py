"""Words of messages: names fit for a terminal or a picture, what was meant, and counts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """Escape what a terminal would obey or cannot show: names come from files of strangers."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pictured(text: str) -> str:
    """Keep matplotlib from reading a name as mathematics, too."""
    return printable(text).replace("$", r"\$")


def shorten(name: str, width: int, ellipsis: str = "…") -> str:
    """Shorten a dotted name to `width` cells of a terminal by leaving out its middle.

    What tells layers apart goes last: the numbers, which say which block it is, and the end, which
    says what it does. ``encoder.layer.3.attention.self.query`` becomes ``encoder…3…self.query``.
    """
    from rich.cells import cell_len, set_cell_size

    if cell_len(name) <= width:
        return name
    parts = name.split(".")
    numbers = {i for i, part in enumerate(parts) if part.isdigit()}
    last = len(parts) - 1
    for kept in ({last} | numbers, {last}):
        # As much of the end as fits, and then the first word, which layers mostly share.
        shown = [kept | set(range(start, last)) for start in range(1, last + 1)]
        for choice in (tail | head for tail in shown for head in ({0}, set[int]())):
            if cell_len(_join(parts, choice, ellipsis)) <= width:
                return _join(parts, choice, ellipsis)
    room = max(width - cell_len(ellipsis), 0)
    tail = set_cell_size(name[::-1], room - room // 2)[::-1]
    return f"{set_cell_size(name, room // 2)}{ellipsis}{tail}".rstrip()


def _join(parts: Sequence[str], kept: set[int], ellipsis: str) -> str:
    text, previous = "", -1
    for i in sorted(kept):
        gap = i - previous > 1
        text += (ellipsis if gap else "." if i else "") + parts[i]
        previous = i
    return text


def nearest(word: str, choices: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the one of `choices` that was probably meant by `word`, or None."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, 1, likeness)
    return by_lower[close[0]] if close else None


def did_you_mean(word: object, choices: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the hint that asks for what was probably meant, if that can be told."""
    near = nearest(word, choices, likeness) if isinstance(word, str) else None
    return None if near is None else f"did you mean {near!r}?"


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return ``"1 tensor is"`` or ``"3 tensors are"``; the plural is `one` with an s by default."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"
