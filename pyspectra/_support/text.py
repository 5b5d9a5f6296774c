"""Words of messages: names fit for a terminal or a picture, what was meant, and counts."""

from __future__ import annotations

import difflib
import re
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


def duration(seconds: float) -> str:
    """Write a time as hours, minutes and seconds, ``"0:12:31"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def short_names(sources: Sequence[str]) -> tuple[str, ...]:
    """Return what models are called where their paths would be too long.

    Parameters
    ----------
    sources : sequence of str
        Paths, or what else a model is called.

    Returns
    -------
    tuple of str
        The last parts of the paths; the first parts, from the end, that tell them all apart; the
        sources as they are if nothing does.
    """
    parts = [_parts(source) or [source] for source in sources]
    for depth in range(1, min(map(len, parts), default=0) + 1):
        names = tuple(path[-depth] for path in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(sources)


def _parts(path: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", path) if part]


# File names that say nothing of the model.
_NAMELESS = re.compile(r"(?:model|pytorch_model|adapter_model|weights|consolidated|checkpoint)\b")


def model_name(source: str) -> str:
    """Return the last part of the path of a model, and the one before where that says nothing."""
    parts = _parts(source)
    shown = 2 if parts and _NAMELESS.match(parts[-1]) else 1
    return "/".join(parts[-shown:]) or source
