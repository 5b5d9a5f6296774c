r"""Patterns of names that come from strangers, matched in time that no pattern can stretch.

Adapters choose modules by regular expressions, and one of a few characters can keep Python's
engine busy for hours, since that tries one way after the other. Here all ways are followed at
once: the places of a name that have been reached are the bits of one integer, and a step over a
character is a mask and a shift. Time grows with the length of the pattern and of the name, and
with nothing else.

What patterns of names need is there: characters, ``.``, ``\d``, ``\w``, classes, groups with
alternatives, ``?``, ``*`` and ``+`` after a character, ``^`` and ``$``.

References
----------
Baeza-Yates, Gonnet, "A new approach to text searching", CACM 35 (1992).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Name", "NamePattern", "UnsafePatternError"]

MAX_LENGTH: Final = 1000
MAX_NAME: Final = 512
MAX_DEPTH: Final = 20

Holds = Callable[[str], bool]
_CLASSES: Final[dict[str, Holds]] = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
}
# What libraries write by themselves: names of modules, as they are.
_PLAIN = re.compile(r"[\w\-.]+")
_CLASS = re.compile(r"\[\^?((?:\\[\\\]\-^.dw_]|[^\\\[\]^])+)\]")
_CLASS_PART = re.compile(r"\\([dw])|(\\?.)-(\\?.)|\\?(.)", re.DOTALL)


class UnsafePatternError(ValueError):
    """A pattern is broken, or uses what patterns of names do not need."""


@dataclass(frozen=True)
class _One:
    """One character, as often as `sign` says: "", "?", "*" or "+"."""

    holds: Holds
    sign: str
    key: str  # equal for equal characters: the mask of a name is made once


@dataclass(frozen=True)
class _Edge:
    """The beginning (``^``) or the end (``$``) of the name."""

    end: bool


@dataclass(frozen=True)
class _Group:
    """One of several sequences; all of it may be missing if `optional`."""

    choices: tuple[_Sequence, ...]
    optional: bool = False


_Sequence = tuple["_One | _Edge | _Group", ...]


class Name:
    """A name, with the places of each kind of character as the bits of a number.

    Parameters
    ----------
    text : str
        The name.

    Raises
    ------
    UnsafePatternError
        If it is longer than any name of a module.

    Attributes
    ----------
    steps : int
        What matching has cost up to now; a step is linear in the length of the name.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_NAME:
            raise UnsafePatternError(f"a name of more than {MAX_NAME} characters")
        self.text = text
        self.steps = 0
        self.ends = 1 << len(text)
        if text.endswith("\n"):  # as regular expressions have it
            self.ends |= 1 << (len(text) - 1)
        self.starts = 1  # and behind every dot
        for match in re.finditer(r"\.", text.partition("\n")[0]):
            self.starts |= 1 << match.end()
        self._characters: dict[str, int] = {}
        for i, char in enumerate(text):
            self._characters[char] = self._characters.get(char, 0) | 1 << i
        self._masks: dict[str, int] = {}

    def mask(self, one: _One) -> int:
        """Return the places of the characters for which this holds."""
        mask = self._masks.get(one.key)
        if mask is None:
            mask = 0
            for char, places in self._characters.items():
                if one.holds(char):
                    mask |= places
            self._masks[one.key] = mask
        return mask


@dataclass(frozen=True)
class NamePattern:
    r"""A regular expression that names, or their ends after a dot, match as a whole.

    Parameters
    ----------
    pattern : str
        The expression.

    Raises
    ------
    UnsafePatternError
        If it is broken, long, or uses what cannot be matched in a bounded time.

    Examples
    --------
    >>> NamePattern(r"layers\.\d+\.q_proj").matches(Name("model.layers.11.q_proj"))
    True
    """

    pattern: str
    _tree: _Group | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.pattern) > MAX_LENGTH:
            raise UnsafePatternError(f"more than {MAX_LENGTH} characters")
        tree = None
        if not _PLAIN.fullmatch(self.pattern):
            parser = _Parser(self.pattern)
            tree = parser.group(0)
            if parser.position != len(self.pattern):
                raise UnsafePatternError("a parenthesis that closes nothing")
        object.__setattr__(self, "_tree", tree)

    def matches(self, name: Name) -> bool:
        """Tell whether a name matches; its `steps` count what that costs."""
        name.steps += 1
        if self._tree is None:
            return self._matches_plain(name.text)
        return bool(_through_group(self._tree, name.starts, name) & name.ends)

    def _matches_plain(self, text: str) -> bool:
        """Match a pattern of characters and dots, which only ends of one length match."""
        start = len(text) - len(self.pattern)
        if start < 0 or (start > 0 and text[start - 1] != "."):
            return False
        end = text[start:]
        pairs = zip(self.pattern, end, strict=True)
        return end == self.pattern or all(p == c or (p == "." and c != "\n") for p, c in pairs)


def _through_group(group: _Group, places: int, name: Name) -> int:
    reached = places if group.optional else 0
    for choice in group.choices:
        reached |= _through(choice, places, name)
    return reached


def _through(sequence: _Sequence, places: int, name: Name) -> int:
    for item in sequence:
        if not places:
            break
        name.steps += 1
        if isinstance(item, _Group):
            places = _through_group(item, places, name)
        elif isinstance(item, _Edge):
            places &= name.ends if item.end else 1
        else:
            places = _over(name.mask(item), item.sign, places)
    return places


def _over(mask: int, sign: str, places: int) -> int:
    """Return where one comes to from these places over characters at the places of the mask."""
    if sign in ("", "?"):
        one = (places & mask) << 1
        return one | places if sign == "?" else one
    if sign == "+":
        places = (places & mask) << 1
    # The carry of a sum runs through a run of ones to the place behind it.
    begun = places & mask
    return places | begun | ((begun + mask) ^ mask)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def group(self, depth: int) -> _Group:
        if depth > MAX_DEPTH:
            raise UnsafePatternError("groups in groups")
        choices: list[_Sequence] = []
        items: list[_One | _Edge | _Group] = []
        while self.position < len(self.text) and self.text[self.position] != ")":
            if self.text[self.position] == "|":
                self.position += 1
                choices.append(tuple(items))
                items = []
            else:
                items.append(self.item(depth))
        return _Group((*choices, tuple(items)))

    def item(self, depth: int) -> _One | _Edge | _Group:
        char = self.text[self.position]
        if char == "(":
            return self.parentheses(depth)
        if char in "^$":
            self.position += 1
            if self.sign():
                raise UnsafePatternError("an edge that is repeated")
            return _Edge(char == "$")
        holds, key = self.character()
        return _One(holds, self.sign(), key)

    def parentheses(self, depth: int) -> _Group:
        self.position += 1
        if self.text.startswith("?:", self.position):
            self.position += 2
        inner = self.group(depth + 1)
        if self.position == len(self.text):
            raise UnsafePatternError("a parenthesis that is not closed")
        self.position += 1
        sign = self.sign()
        if sign not in ("", "?"):
            raise UnsafePatternError("a group that is repeated")
        return _Group(inner.choices, optional=sign == "?")

    def sign(self) -> str:
        sign = self.text[self.position : self.position + 1]
        if not sign or sign not in "?*+":
            return ""
        self.position += 1
        if self.text[self.position : self.position + 1] in ("?", "*", "+"):
            raise UnsafePatternError("a sign of repetition after another")
        return sign

    def character(self) -> tuple[Holds, str]:
        char = self.text[self.position]
        if char == "[":
            return self.character_class()
        self.position += 1
        if char == ".":
            return (lambda c: c != "\n"), "."
        if char == "\\":
            escaped = self.text[self.position : self.position + 1]
            self.position += 1
            if escaped in _CLASSES:
                return _CLASSES[escaped], f"\\{escaped}"
            if not escaped or escaped.isalnum():
                raise UnsafePatternError(f"\\{escaped}")
            char = escaped
        elif char in "?*+{}]":
            raise UnsafePatternError(f"{char!r} at an unexpected place")
        return char.__eq__, f"={char}"

    def character_class(self) -> tuple[Holds, str]:
        match = _CLASS.match(self.text, self.position)
        if match is None:
            raise UnsafePatternError("a class of characters that is not plain")
        self.position = match.end()
        tests: list[Holds] = []
        for part in _CLASS_PART.finditer(match[1]):
            named, low, high, one = part.groups()
            if named:
                tests.append(_CLASSES[named])
            elif low:
                tests.append(_between(low[-1], high[-1]))
            else:
                tests.append(one.__eq__)
        negated = match[0].startswith("[^")
        return (lambda c: any(test(c) for test in tests) != negated), match[0]


def _between(low: str, high: str) -> Holds:
    if low > high:
        raise UnsafePatternError("a range of characters that runs backwards")
    return lambda c: low <= c <= high
