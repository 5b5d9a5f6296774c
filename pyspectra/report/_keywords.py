"""The keywords of `pyspectra.analyze` for type checkers; `make stubs` makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class AnalyzeKeywords(TypedDict, total=False):
    """One item an option; see `pyspectra.report.options.AnalyzeOptions`."""

    layers: Sequence[int | str] | int | str | None
    estimator: str
    randomize: bool
    mp_fit: bool
    detx: bool
    fix_fingers: str | None
    xmax: float | None
    drop_largest: int
    vectors: bool
    pool: bool
    min_evals: int
    max_evals: int | None
    method: str
    precision: str
    bootstrap: int
    goodness: bool
    seed: int
