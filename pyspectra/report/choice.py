"""Which rows of a report: by name, id, pattern, kind, role, block, or by any test."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyspectra._support.arguments import as_integer
from pyspectra._support.text import did_you_mean
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.layer import LayerReport
from pyspectra.weights import SkippedLayer
from pyspectra.weights.selection import Selection, chosen_layers

__all__ = ["chosen_rows"]

FUNCTION = "Report.select"


def chosen_rows(
    rows: Sequence[LayerReport],
    skipped: Sequence[SkippedLayer],
    layers: Selection,
    regex: str | re.Pattern[str] | None,
    kind: str | Iterable[str] | None,
    role: str | Iterable[str] | None,
    block: int | Iterable[int] | None,
    keep: Callable[[LayerReport], bool] | None,
) -> list[LayerReport]:
    """Return the rows that fulfil all conditions, in order; see `Report.select`."""
    slices = [row for row in rows if row.slice_id is not None and row.label == layers]
    found = slices or chosen_layers(rows, skipped, layers, FUNCTION)
    if regex is not None:
        pattern = _compiled(regex)
        found = [row for row in found if pattern.search(row.name)]
    for name, words, value in (("kind", kind, _kind), ("role", role, _role)):
        if words is not None:
            wanted = _words(name, words)
            _check_known(name, wanted, {value(row) for row in rows})
            found = [r for r in found if any(fnmatch.fnmatchcase(value(r), w) for w in wanted)]
    if block is not None:
        numbers = _numbers(block)
        found = [row for row in found if row.block in numbers]
    if keep is not None:
        if not callable(keep):
            raise ArgumentTypeError(FUNCTION, "keep", "be a function of a row", repr(keep))
        found = [row for row in found if keep(row)]
    return found


def _kind(row: LayerReport) -> str:
    return row.kind


def _role(row: LayerReport) -> str:
    return row.role or ""


def _compiled(regex: str | re.Pattern[str]) -> re.Pattern[str]:
    if isinstance(regex, re.Pattern):
        return regex
    try:
        return re.compile(regex)
    except (re.error, TypeError) as error:
        requirement = "be a regular expression"
        raise ArgumentValueError(FUNCTION, "regex", requirement, repr(regex), str(error)) from None


def _words(name: str, words: str | Iterable[str]) -> list[str]:
    found = [words] if isinstance(words, str) else list(words)
    if not all(isinstance(word, str) for word in found):
        raise ArgumentTypeError(FUNCTION, name, "be text, or several of them", repr(words))
    return found


def _check_known(name: str, wanted: Sequence[str], known: set[str]) -> None:
    for word in wanted:
        if not fnmatch.filter(known, word):
            hint = (
                did_you_mean(word, known) or f"there are {', '.join(sorted(filter(None, known)))}"
            )
            raise ArgumentValueError(FUNCTION, name, "be in the report", repr(word), hint)


def _numbers(block: Any) -> set[int]:
    one = as_integer(block)
    if one is not None:
        return {one}
    try:
        found = [as_integer(number) for number in block]
    except TypeError:
        found = [None]
    if None in found:
        raise ArgumentTypeError(FUNCTION, "block", "be a number, or several", repr(block))
    return {number for number in found if number is not None}
