"""The page to look at predictions with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyspectra.report.html.chart import heat_map
from pyspectra.report.html.page import badge, details, facts, page, section, text
from pyspectra.report.html.picture import picture
from pyspectra.report.html.table import table
from pyspectra.types import FloatArray

__all__ = ["predictions_page"]

LONGEST = 400

Indices = npt.NDArray[np.int64]


class Predicted(Protocol):
    """What the page shows: `pyspectra.training.predictions.Predictions`."""

    @property
    def probabilities(self) -> FloatArray: ...
    @property
    def targets(self) -> Indices: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> Sequence[Any] | None: ...
    @property
    def said(self) -> Indices: ...
    @property
    def losses(self) -> FloatArray: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def confusion(self) -> Indices: ...
    def top_losses(self, n: int) -> Indices: ...
    def least_sure(self, n: int) -> Indices: ...
    def wrong_of(self, k: int, n: int) -> Indices: ...
    def classes(self) -> list[dict[str, Any]]: ...


def predictions_page(found: Predicted, n: int) -> str:
    """Return the page of predictions, with at most `n` samples in each of its parts."""
    classes = [
        details(f"{name}: {len(rows)} of those taken for another", _cards(found, rows))
        for k, name in enumerate(found.names)
        if len(rows := found.wrong_of(k, n))
    ]
    body = [
        facts(("samples", len(found.targets)), ("accuracy", f"{found.accuracy:.4g}")),
        section("Classes", table(found.classes())),
        section(
            "Confusion",
            heat_map(found.confusion.tolist(), found.names, row_name="true class",
                     column_name="taken for"),
        ),
        section("Largest losses", _cards(found, found.top_losses(n))),
        section("Least sure", _cards(found, found.least_sure(n))),
        section("Mistakes of each class", *(classes or [f"<p>{badge('none', 'good')}</p>"])),
    ]  # fmt: skip
    return page("Predictions", body, pictures=True)


def _cards(found: Predicted, rows: Indices) -> str:
    return f'<div class="cards">{"".join(_card(found, int(i)) for i in rows)}</div>'


def _card(found: Predicted, i: int) -> str:
    true, said = found.names[found.targets[i]], found.names[found.said[i]]
    kind = "good" if found.said[i] == found.targets[i] else "error"
    words = f"{true}, taken for {said}" if kind == "error" else true
    sure = found.probabilities[i, found.said[i]]
    shown, wide = "", ""
    if found.inputs is not None:
        given = found.inputs[i]
        if isinstance(given, str):
            cut = given if len(given) <= LONGEST else given[:LONGEST] + "…"
            shown, wide = f"<p>{text(cut)}</p>", " wide"
        else:
            if hasattr(given, "detach"):
                given = given.detach().float().cpu().numpy()
            if np.asarray(given).ndim in (2, 3):
                shown = picture(given, words)
    return (
        f'<div class="card{wide}">{shown}{badge(words, kind)}<br><span class="soft">'
        f"number {i}, {100 * sure:.0f} % sure, loss {found.losses[i]:.2f}</span></div>"
    )
