"""How many directions each layer keeps where all of them share a budget of parameters."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyspectra._support.arguments import check_choice, check_probability
from pyspectra._support.text import counted
from pyspectra.edit.low_rank import (
    KIND_NAMES,
    check_grams,
    compressible,
    in_blocks,
    largest_rank,
    rows_are_outputs,
)
from pyspectra.errors import ArgumentValueError, called_as
from pyspectra.report.data import ReportData
from pyspectra.spectra.esd import esd
from pyspectra.types import FloatArray, Status
from pyspectra.weights import WeightSource, open_weights
from pyspectra.weights.selection import Selection, chosen_layers

__all__ = ["allocate_ranks", "allocated"]

RULES: Final = ("uniform", "spectrum", "loss")


@dataclass(frozen=True)
class _Curve:
    """What a layer costs and loses at each rank."""

    key: str
    shape: tuple[int, int]
    energies: FloatArray  # what each direction adds, descending; they add up to one, or to zero

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def step(self) -> int:
        """Parameters of one more direction."""
        return sum(self.shape)

    @property
    def most(self) -> int:
        """The largest rank below the whole layer that is worth it."""
        return largest_rank(self.shape)


def allocate_ranks(
    model: Any,
    ratio: float,
    *,
    by: str | None = None,
    grams: Mapping[str, Any] | None = None,
    layers: Sequence[int | str] | int | str | None = None,
) -> dict[str, int]:
    """Spread a budget of parameters over layers: how many singular directions each keeps.

    Parameters
    ----------
    model : nn.Module, mapping, WeightSource, path or Report
        A model, as for `pyspectra.analyze`, or the report of one, whose spectra serve again.
    ratio : float
        Part of the parameters of these layers together that may be left, in (0, 1].
    by : {"uniform", "spectrum", "loss"}, optional
        The same part of each layer; or what makes the error of all weights, or that of all outputs
        on samples, smallest. By default ``"loss"`` with `grams`, else ``"spectrum"``.
    grams : mapping of str to array, optional
        Name of the parameter -> second moments of the layer's inputs, shape (in, in), as
        `input_grams` gives them; for ``by="loss"``.
    layers : int, str or sequence of them, optional
        Which layers, as in `pyspectra.analyze`; by default the linear layers in numbered modules if
        there are any, else all linear layers.

    Returns
    -------
    dict of str to int
        Name of the parameter -> rank, for `compress`. The shorter side stands for a layer that
        stays as it is. Left out are layers too small for two factors, those that are not finite,
        and of a module what is not exactly a `torch.nn.Linear` (or a Conv1D of GPT-2).

    Raises
    ------
    TypeError, ValueError, FormatError, FileNotFoundError
        If an argument is of the wrong kind or range, no layer is left, or the budget does not even
        give one direction to each.

    Notes
    -----
    Rank k of an (m, n) layer takes k (m + n) parameters, the whole layer m n. With singular values
    s_i of W the ranks minimise the sum over layers of ``sum_{i>k} s_i^2 / sum_i s_i^2`` within the
    budget: at any time the step is taken that gains most for a parameter, one more direction of a
    layer or all that it lacks, and the next best where that does not fit. The result is the optimum
    of what is spent, as long as every step has fitted.

    ``"loss"`` takes the singular values of W S instead, with the Cholesky factor S of the inputs'
    second moments (damped by a hundredth of their mean): s_i^2 is then what the mean square of the
    layer's outputs loses without the direction. It knows nothing of what later layers do with it.

    ``"uniform"``: ``ratio m n / (m + n)``, rounded down, at least one; all with a ratio of 1.

    References
    ----------
    Wang et al., "SVD-LLM: truncation-aware singular value decomposition for large language model
    compression", ICLR 2025, arXiv 2403.07378 (the singular values of W S).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> flat, steep = rng.standard_normal((2, 60, 60))
    >>> steep *= 0.8 ** np.arange(60)
    >>> ps.allocate_ranks({"flat.weight": flat, "steep.weight": steep}, 0.5)
    {'flat.weight': 23, 'steep.weight': 7}
    >>> ps.allocate_ranks({"flat.weight": flat, "steep.weight": steep}, 0.5, by="uniform")
    {'flat.weight': 15, 'steep.weight': 15}
    """
    if isinstance(model, ReportData):
        if grams is not None:
            needed = "be the model itself for by='loss'"
            raise ArgumentValueError("allocate_ranks", "model", needed, "its report")
        ratio, by = _checked(ratio, by, grams)
        return _ranks(_of_report(model, layers), ratio, by)
    with called_as("allocate_ranks", model_or_path="model"):
        opened = open_weights(model)
    with opened as source:
        return allocated(source, model, ratio, by, grams, layers)


def allocated(
    source: WeightSource,
    model: Any,
    ratio: object,
    by: str | None,
    grams: Mapping[str, Any] | None,
    layers: Selection,
) -> dict[str, int]:
    """Do what `allocate_ranks` does, for a model that has been opened."""
    ratio, by = _checked(ratio, by, grams)
    curves = _of_model(source, model, grams, layers, spectra=by != "uniform")
    return _ranks(curves, ratio, by)


def _checked(ratio: object, by: str | None, grams: object) -> tuple[float, str]:
    ratio = check_probability("allocate_ranks", "ratio", ratio)
    if by is None:
        by = "spectrum" if grams is None else "loss"
    by = check_choice("allocate_ranks", "by", by, RULES)
    if by == "loss" and grams is None:
        hint = "input_grams makes them of a model and samples"
        raise ArgumentValueError("allocate_ranks", "grams", "be given for by='loss'", "None", hint)
    if by != "loss" and grams is not None:
        raise ArgumentValueError("allocate_ranks", "grams", "be for by='loss'", f"by={by!r}")
    return ratio, by


def _ranks(curves: Sequence[_Curve], ratio: float, by: str) -> dict[str, int]:
    budget = int(ratio * sum(c.size for c in curves) * (1.0 + 1e-12))
    least = sum(c.step for c in curves)
    if least > budget:
        needed = "leave a direction to each layer"
        got = f"{ratio:g}, room for {budget} of {least} parameters"
        raise ArgumentValueError("allocate_ranks", "ratio", needed, got)
    if by == "uniform":
        return {c.key: _same_part(c, ratio) for c in curves}
    return _best(curves, budget)


def _of_report(report: ReportData, layers: Selection) -> list[_Curve]:
    rows = chosen_layers(report.layers, report.skipped, layers, "allocate_ranks")
    curves = [
        _Curve(row.key, (row.shape[0], row.shape[1]), _shares(row.esd.evals))
        for row in rows
        if row.part_of is None
        and row.kind in KIND_NAMES
        and len(row.shape) == 2
        and largest_rank(row.shape) > 0
        and row.esd.status is Status.OK
    ]
    if layers is None:
        curves = [c for c in curves if in_blocks(c.key)] or curves
    return _some(curves, counted(len(rows), "row"))


def _of_model(
    source: WeightSource, model: Any, grams: object, layers: Selection, spectra: bool
) -> list[_Curve]:
    found = compressible("allocate_ranks", source, model, layers)
    roots = check_grams("allocate_ranks", grams, found) or {}
    curves = []
    for layer in found:
        W = layer.load().to_float64()
        if not np.isfinite(W).all():
            continue
        energies = np.ones(min(W.shape))
        if spectra:
            seen = W if rows_are_outputs(layer) else W.T
            S = roots.get(layer.key)
            energies = _shares(_evals(seen if S is None else seen @ S))
        curves.append(_Curve(layer.key, (W.shape[0], W.shape[1]), energies))
    return _some(curves, counted(len(found), "layer"))


def _some(curves: list[_Curve], got: str) -> list[_Curve]:
    if not curves:
        needed = "have finite linear layers that two factors can make smaller"
        raise ArgumentValueError("allocate_ranks", "model", needed, f"{got}, none of them one")
    return curves


def _evals(W: FloatArray) -> FloatArray:
    """Return squared singular values, ascending, of a matrix that may be scaled."""
    largest = float(np.max(np.abs(W)))
    return esd(W / largest).evals if largest > 0.0 else np.zeros(min(W.shape))


def _shares(evals: FloatArray) -> FloatArray:
    descending = np.maximum(evals[::-1], 0.0)
    return descending / (descending.sum() or 1.0)


def _same_part(curve: _Curve, ratio: float) -> int:
    if ratio == 1.0:
        return min(curve.shape)
    rank = int(ratio * curve.size / curve.step * (1.0 + 1e-12))
    return min(max(1, rank), curve.most)


def _best(curves: Sequence[_Curve], budget: int) -> dict[str, int]:
    """Return the ranks with about the smallest sum of errors, by the best step at any time."""
    layers = [_Climb(c) for c in curves]
    left = budget - sum(c.step for c in curves)
    heap = [(-layer.gain, i) for i, layer in enumerate(layers) if layer.cost]
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        layer = layers[i]
        if layer.cost <= left:
            left -= layer.cost
            layer.take()
        else:
            layer.give_up()
        if layer.cost:
            heapq.heappush(heap, (-layer.gain, i))
    return {layer.curve.key: layer.rank for layer in layers}


class _Climb:
    """A layer on its way from one direction to all: what the next step costs and gains.

    A step is one more direction, or all that are missing: the whole layer, which is cheaper than
    two factors of its rank.
    """

    def __init__(self, curve: _Curve) -> None:
        self.curve = curve
        self.rank = 1
        self._most = curve.most
        k = np.arange(1, curve.most + 1)
        lost = np.cumsum(curve.energies[::-1])[::-1][k]
        # What all the rest gains for a parameter, at each rank.
        self._whole = lost / (curve.size - k * curve.step)
        worse = np.flatnonzero(curve.energies[k] / curve.step <= self._whole)
        self._last: int | None = int(k[worse[0]]) if len(worse) else curve.most

    @property
    def cost(self) -> int:
        """Parameters of the next step; 0 where there is none."""
        if self.rank == self._last:
            return self.curve.size - self.rank * self.curve.step
        return self.curve.step if self.rank < self._most else 0

    @property
    def gain(self) -> float:
        """What the next step gains for a parameter."""
        if self.rank == self._last:
            return float(self._whole[self.rank - 1])
        return float(self.curve.energies[self.rank]) / self.curve.step

    def take(self) -> None:
        """Take the next step."""
        self.rank = min(self.curve.shape) if self.rank == self._last else self.rank + 1

    def give_up(self) -> None:
        """Leave a step that is too dear: for the whole layer single directions, or an end."""
        if self.rank == self._last:
            self._last = None
        else:
            self._most = self.rank
