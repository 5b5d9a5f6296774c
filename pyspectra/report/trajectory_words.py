"""A trajectory in sentences: what changed from first to last, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyspectra._support.text import counted, printable
from pyspectra.report.comparison_words import LIMIT, difference_sentences, related_sentences
from pyspectra.report.trajectory_data import TrajectoryData

NAMES_SHOWN = 5
ENDS = "The last against the first:"


def sentences(found: TrajectoryData) -> list[str]:
    """Say what was followed, how alpha went, how the ends differ, and what is missing."""
    return [sentence for paragraph in paragraphs(found) for sentence in paragraph]


def paragraphs(found: TrajectoryData) -> list[list[str]]:
    """Return the same sentences by what they are about; none of the paragraphs is empty."""
    told = (
        [*_unread(found), *_followed(found), *_course(found)],
        _ends(found),
        related_sentences(found.ends),
        [*_missing(found), LIMIT],
    )
    return [paragraph for paragraph in map(list, told) if paragraph]


def _unread(found: TrajectoryData) -> Iterator[str]:
    """Say of which checkpoints too little could be read for what follows to speak of them."""
    unread = [
        f"{printable(name)} ({report.coverage.words})"
        for name, report in zip(found.names, found.reports, strict=True)
        if not report.coverage.enough
    ]
    if unread:
        more = len(unread) - NAMES_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        yield (
            "Cannot be judged: less than half of the parameters in matrices could be analysed in "
            f"{'; '.join(unread[:NAMES_SHOWN])}{rest}. What is left over says nothing of the model."
        )


def _followed(found: TrajectoryData) -> Iterator[str]:
    first, last = printable(found.names[0]), printable(found.names[-1])
    yield (
        f"{counted(len(found.reports), 'checkpoint')}, from {first} to {last}: "
        f"{len(found.followed)} of {counted(len(found.layers), 'layer')} show structure and a tail "
        "in all of them."
    )


def _course(found: TrajectoryData) -> Iterator[str]:
    """Say how the mean alpha of the same layers went, and how much the last step moved it."""
    course = [entry["alpha"] for entry in found.summary()]
    if not all(map(math.isfinite, course)):
        return
    names = [printable(name) for name in found.names]
    least, most = min(course), max(course)
    yield (
        f"Their mean alpha is {course[0]:.2f} at first and {course[-1]:.2f} at last; it is lowest "
        f"in {names[course.index(least)]} ({least:.2f}) and highest in "
        f"{names[course.index(most)]} ({most:.2f})."
    )
    if len(course) > 2:
        yield f"The last step from {names[-2]} moved it by {course[-1] - course[-2]:+.2f}."


def _ends(found: TrajectoryData) -> Iterator[str]:
    yield ENDS
    yield from difference_sentences(found.ends)


def _missing(found: TrajectoryData) -> Iterator[str]:
    listed = [
        f"{printable(layer)} (not in {', '.join(map(printable, names[:2]))}"
        f"{f' and {len(names) - 2} more' if len(names) > 2 else ''})"
        for layer, names in found.missing.items()
    ]
    if listed:
        more = len(listed) - NAMES_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        yield (
            f"{counted(len(listed), 'layer is', 'layers are')} missing in some checkpoints: "
            f"{'; '.join(listed[:NAMES_SHOWN])}{rest}."
        )
