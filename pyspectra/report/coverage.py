"""How much of a model was analysed: the share of the parameters that stand in matrices.

Biases, norms and other vectors have no spectrum and do not count, nor do tied weights twice, the
halves of LoRA pairs beside their product, or other models in the same checkpoint. A label of what
is left over from a model that could not be read would say nothing of that model: below `LEAST_READ`
a verdict gives none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pyspectra._support.text import counted
from pyspectra.types import Value
from pyspectra.weights import SkippedLayer
from pyspectra.weights.skip import REASONS

__all__ = ["LEAST_READ", "Coverage", "coverage_of", "percent"]

LEAST_READ = 0.5
OF_MATRICES = "of the parameters in matrices"


@dataclass(frozen=True, eq=False)
class Coverage(Value):
    """How many parameters in matrices were analysed, and why the others were not.

    Attributes
    ----------
    analysed : int
        Parameters in matrices that have a spectrum; with a base model also those that were compared
        and found unchanged.
    left_out : int
        Parameters in matrices that the options of the analysis left out: `layers`, `min_evals`,
        `max_evals`. They could have been read, and count against no verdict.
    unread : int
        Parameters in matrices that could not be analysed.
    n_unread : int
        In how many layers and tensors those are.
    n_unknown : int
        Tensors that may be matrices, and whose size the source does not tell.
    why : str
        The reason for which most of `unread` was not analysed; empty if there are none.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> weights = {"fc.weight": W, "fc.bias": W[0], "packed.weight": W.astype(np.int32)}
    >>> ps.analyze(weights).coverage.words
    '50.0 % of the parameters in matrices'
    """

    analysed: int
    left_out: int = 0
    unread: int = 0
    n_unread: int = 0
    n_unknown: int = 0
    why: str = ""

    @property
    def total(self) -> int:
        """Parameters in matrices that the model has, as far as their number is known."""
        return self.analysed + self.left_out + self.unread

    @property
    def share(self) -> float:
        """Share of the parameters in matrices that was analysed; NaN if there are none."""
        return self.analysed / self.total if self.total else math.nan

    @property
    def readable(self) -> float:
        """Share that could be analysed, whether the options left it out or not."""
        return 1.0 - self.unread / self.total if self.total else math.nan

    @property
    def enough(self) -> bool:
        """Whether enough could be read for a verdict."""
        return not self.readable < LEAST_READ

    @property
    def words(self) -> str:
        """What was analysed: ``"98.7 % of the parameters in matrices"``."""
        if not self.total:
            return "no parameters in matrices"
        return f"{percent(self.analysed, self.total)} {OF_MATRICES}"

    @property
    def sentences(self) -> list[str]:
        """What was analysed, what was not, and why."""
        if not self.total:
            return []
        told = [f"{_capital(self.words)} were analysed."]
        if self.left_out:
            told.append(f"The options left out {percent(self.left_out, self.total)}.")
        if self.unread:
            mostly = "" if self.n_unread == 1 else "mostly "
            told.append(
                f"{_capital(percent(self.unread, self.total))} could not be "
                f"({counted(self.n_unread, 'tensor')}; {mostly}{self.why})."
            )
        if self.n_unknown:
            are = counted(self.n_unknown, "tensor is", "tensors are")
            told.append(f"{are} of unknown size.")
        return told


def percent(part: int, total: int) -> str:
    """Return a share as text, which says "all" and "none" only where that is so."""
    if part == total:
        return "all"
    if part == 0:
        return "none"
    tenths = math.floor(1000 * part / total)
    if tenths == 0:
        return "less than 0.1 %"
    return f"{tenths / 10:.1f} %"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


class Counted(Protocol):
    """What coverage counts: the row of a report, or a layer that would be one."""

    @property
    def name(self) -> str:
        """Name of the layer; slices of a convolution share it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its tensor."""

    @property
    def part_of(self) -> str | None:
        """Name of the layer that it is a part of, if it is one."""

    @property
    def failure(self) -> str:
        """Why it has no spectrum; empty if it has one."""


def coverage_of(wholes: Sequence[Counted], skipped: Sequence[SkippedLayer]) -> Coverage:
    """Count what was analysed.

    Parameters
    ----------
    wholes : sequence of LayerReport or PlannedLayer
        The rows, without the parts of layers that have a row themselves.
    skipped : sequence of SkippedLayer

    Returns
    -------
    Coverage
    """
    analysed = left_out = n_unknown = 0
    unread: Counter[str] = Counter()
    tensors = 0
    rows: dict[str, Counted] = {}
    for row in wholes:  # slices of a convolution share their name
        if row.name not in rows or not row.failure:
            rows[row.name] = row
    of_parts: Counter[str] = Counter()
    for row in rows.values():
        size = math.prod(row.shape)
        if row.part_of is not None:
            of_parts[row.part_of] += size
        if not row.failure:
            analysed += size
        else:
            unread[row.failure] += size
            tensors += 1
    for tensor in skipped:
        reason = REASONS[tensor.skip.code]
        if tensor.parameters is None and not reason.aside:
            n_unknown += 1
        if tensor.parameters is None or not tensor.is_matrix:
            continue
        size = tensor.parameters - of_parts[tensor.name]  # whose parts were analysed in its place
        if reason.compared:
            analysed += size
        elif reason.chosen:
            left_out += size
        else:
            unread[tensor.skip.group] += size
            tensors += 1
    why = unread.most_common(1)[0][0] if unread else ""
    return Coverage(analysed, left_out, unread.total(), tensors, n_unknown, why)
