"""What is different between two values that are not equal, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from pyspectra._support.text import counted, printable
from pyspectra.report.layer import LayerReport
from pyspectra.types import same

__all__ = ["differences"]

LONGEST = 60


def differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """Yield what is different between two values, field by field.

    Parameters
    ----------
    a, b : object
        Values (`pyspectra.types.Value`), and what they are made of.
    path : str
        What they are called.

    Yields
    ------
    str
        One sentence for each; nothing if they are equal. Rows are matched by their labels.

    Examples
    --------
    >>> from pyspectra.weights import Skip
    >>> list(differences(Skip("bias"), Skip("buffer")))
    ["code: 'bias' and 'buffer'"]
    """
    if same(a, b):
        return
    if type(a) is not type(b):
        yield f"{_called(path)}: {_shown(a)} and {_shown(b)}"
    elif isinstance(a, np.ndarray):
        yield f"{_called(path)}: {_of_arrays(a, b)}"
    elif _are_rows(a) and _are_rows(b):
        yield from _of_rows(a, b)
    elif is_dataclass(a):
        for f in fields(a):
            if f.compare:
                yield from differences(
                    getattr(a, f.name), getattr(b, f.name), f"{path}.{f.name}".lstrip(".")
                )
    elif isinstance(a, Mapping):
        for key in dict.fromkeys((*a, *b)):
            if key in a and key in b:
                yield from differences(a[key], b[key], f"{path}[{key!r}]")
            else:
                yield f"{path}[{key!r}]: only in the {'first' if key in a else 'second'}"
    elif isinstance(a, tuple | list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}[{i}]")
    elif isinstance(a, tuple | list):
        yield f"{_called(path)}: {counted(len(a), 'entry', 'entries')} and {len(b)}"
    else:
        yield f"{_called(path)}: {_shown(a)} and {_shown(b)}"


def _called(path: str) -> str:
    return path or "value"


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _of_arrays(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"an array of {a.dtype} {a.shape} and one of {b.dtype} {b.shape}"
    count = sum(not same(x, y) for x, y in zip(a.flat, b.flat, strict=True))
    words = f"{count} of {counted(a.size, 'entry', 'entries')} differ"
    if a.dtype.kind not in "iuf":
        return words
    with np.errstate(all="ignore"):
        largest = np.nanmax(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0)
    return f"{words}, by at most {largest:.3g}"


def _are_rows(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(row, LayerReport) for row in value)


def _of_rows(a: tuple[LayerReport, ...], b: tuple[LayerReport, ...]) -> Iterator[str]:
    first, second = ({row.label: row for row in rows} for rows in (a, b))
    for label in dict.fromkeys((*first, *second)):
        called = f"layer {printable(label)!r}"
        if label in first and label in second:
            for told in differences(first[label], second[label]):
                yield f"{called}, {told}"
        else:
            yield f"{called}: only in the {'first' if label in first else 'second'}"
    if first.keys() == second.keys() and [*first] != [*second]:
        yield "layers: the same ones in another order"
