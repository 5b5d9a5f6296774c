"""The table that every rule reads: one number for each weight matrix of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyspectra import ops
from pyspectra._support.arguments import as_number, check_count, shown
from pyspectra.analysis.executor import outcomes
from pyspectra.analysis.work import ignore
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.optim._fused import sharded
from pyspectra.report.layer import LayerReport
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.report import Report
from pyspectra.spectra.esd import needs_svd, pool, unresolved_anew
from pyspectra.spectra.estimators import parse_estimator
from pyspectra.spectra.powerlaw import fit_powerlaw
from pyspectra.types import ESD, FloatArray, Status
from pyspectra.weights import Layer, WeightSource, open_weights
from pyspectra.weights.kinds import EMBEDDING
from pyspectra.weights.matricize import matricize

__all__ = ["LayerScore", "checked_score", "layer_scores", "measured", "recorded", "snr"]

ALPHA = "alpha"
SNR = "snr"

# The quartiles of a normal distribution are this many standard deviations apart.
IQR_OF_NORMAL = 1.349


@dataclass(frozen=True)
class LayerScore:
    """What a rule knows of one weight matrix.

    Attributes
    ----------
    key : str
        Name of the parameter.
    kind : str
        What the layer is: ``"linear"``, ``"conv2d"``, ``"embedding"``...
    n_evals : int
        Number of its eigenvalues.
    value : float
        The score: a tail exponent or a signal-to-noise ratio; NaN where there is none.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import layer_scores
    >>> (row,) = layer_scores(torch.nn.Linear(30, 20), "snr")
    >>> row.key, row.kind, row.n_evals
    ('weight', 'linear', 20)
    """

    key: str
    kind: str
    n_evals: int
    value: float


def takes_part(score: LayerScore | None) -> bool:
    """Tell whether a layer takes part: one with a row, and no embedding."""
    return score is not None and score.kind != EMBEDDING.name


def layer_scores(
    source: Report | Mapping[str, float] | nn.Module, score: str = ALPHA
) -> tuple[LayerScore, ...]:
    """Return the score of every weight matrix.

    Parameters
    ----------
    source : Report, torch.nn.Module or mapping of str to float
        A report on the model; the model, which is measured now; or scores by parameter name, which
        are taken as they are.
    score : str
        ``"alpha"``: the tail exponent as the report has it. The name of an estimator, such as
        ``"tempbalance_median"``: that fit to the eigenvalues. ``"snr"``: see `snr`.

    Returns
    -------
    tuple of LayerScore
        In the order of the source; NaN where a layer has no spectrum or no fit.

    Raises
    ------
    TypeError, ValueError
        If `source` is of another kind, a report with ``pool=False``, or made without the
        sub-matrices that a score by ``"farms"`` needs.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import layer_scores
    >>> model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 10))
    >>> [(row.key, row.n_evals) for row in layer_scores(model, "tempbalance_median")]
    [('0.weight', 20), ('1.weight', 10)]
    """
    score = checked_score("layer_scores", score)
    if isinstance(source, nn.Module):
        return measured(source, score)
    if isinstance(source, Report):
        if not source.options.pool:
            got = "one with pool=False"
            requirement = "be a report with one row a layer"
            raise ArgumentValueError("layer_scores", "source", requirement, got)
        rows = [row for row in source.layers if row.part_of is None and row.slice_id is None]
        return tuple(_of_row(row, score, source.options.estimator) for row in rows)
    if not isinstance(source, Mapping):
        requirement = "be a report, a model, or a mapping of parameter names to numbers"
        raise ArgumentTypeError("layer_scores", "source", requirement, shown(source))
    return tuple(_given(key, value) for key, value in source.items())


def _given(key: str, value: object) -> LayerScore:
    number = as_number(value)
    if number is None:
        got = f"{shown(value)} for {key!r}"
        raise ArgumentTypeError("layer_scores", "source", "hold numbers", got)
    return LayerScore(key, "", 0, number)


def checked_score(function: str, score: str) -> str:
    """Return the canonical name of a score; raise if it is none.

    Raises
    ------
    ArgumentValueError
        If it is neither ``"alpha"`` nor ``"snr"`` nor an estimator of tail exponents.
    """
    if score in (ALPHA, SNR):
        return score
    with called_as(function, estimator="score"):
        return str(parse_estimator(score, function))


def measured(model: nn.Module, score: str) -> tuple[LayerScore, ...]:
    """Return the scores of a model as it is now.

    Where parameters are sharded, all processes have to call: each tensor is gathered in turn.
    """
    cut = {name: p for name, p in model.named_parameters() if sharded.is_sharded(p)}
    if cut:
        # One at a time: all of them have no room in one process.
        whole = ({name: sharded.whole(p).detach()} for name, p in cut.items() if p.ndim > 1)
        return tuple(row for state in whole for row in _measured(open_weights(state), score))
    return tuple(_measured(open_weights(model), score))


def _measured(source: WeightSource, score: str) -> Iterator[LayerScore]:
    layers = [layer for layer in source.layers if layer.part_of is None]
    if score == ALPHA or score.startswith("farms"):
        estimator = AnalyzeOptions.estimator if score == ALPHA else score
        options = AnalyzeOptions(estimator=estimator, goodness=False, min_evals=1)
        for row in outcomes(layers, options, None, None, ignore):
            if isinstance(row, LayerReport):
                yield _of_row(row, score, estimator)
        return
    for layer in layers:  # without the tests that a report makes, which no rule reads
        matrices = matricize(layer, layer.load())
        grams = ops.gram(matrices.slices)
        evals, status = ops.eigvals(grams)
        if any(map(needs_svd, evals, status)):
            evals, status = unresolved_anew(matrices.slices, grams, evals, status)
        yield _of_esd(layer, pool(evals, status, N=matrices.N, M=matrices.M, method="auto"), score)


def recorded(
    lines: Iterable[Mapping[str, Any]], layers: Mapping[str, str]
) -> tuple[LayerScore, ...]:
    """Return the last alphas of a history, of the layers whose keys are given by name."""
    last: dict[str, Mapping[str, Any]] = {}
    for line in lines:
        last.update((row["name"], row) for row in line["layers"] if "alpha" in row)
    return tuple(
        LayerScore(
            layers[name],
            str(row.get("kind", "")),
            int(row.get("n_evals", 0)),
            math.nan if row["alpha"] is None else float(row["alpha"]),
        )
        for name, row in last.items()
        if name in layers
    )


def _of_row(row: LayerReport, score: str, estimator: str) -> LayerScore:
    if score not in (ALPHA, estimator):
        return _of_esd(row, row.esd, score)
    return LayerScore(row.key, row.kind, len(row.esd.evals), row.alpha)


def _of_esd(layer: Layer | LayerReport, esd: ESD, score: str) -> LayerScore:
    value = math.nan
    if esd.status is Status.OK:
        value = _SCORES.get(score, _fitted)(esd, score)
    return LayerScore(layer.key, layer.kind, len(esd.evals), value)


def _fitted(esd: ESD, score: str) -> float:
    if score.startswith("farms"):
        requirement, got = f"be made with estimator={score!r}", "one with another"
        raise ArgumentValueError("layer_scores", "source", requirement, got)
    return fit_powerlaw(esd.evals, estimator=score, threshold=0.0).alpha


def _median(esd: ESD, score: str) -> float:
    # All eigenvalues count, zeros too: the tail begins at the middle one. What is below it does not
    # matter.
    return fit_powerlaw(np.maximum(esd.evals, _TINY), estimator=score, threshold=0.0).alpha


def _ratio(esd: ESD, _score: str) -> float:
    return snr(np.sqrt(esd.evals), esd.N, esd.M)


_TINY = np.finfo(np.float64).tiny
_SCORES: dict[str, Callable[[ESD, str], float]] = {"tempbalance_median": _median, SNR: _ratio}


def snr(singular_values: FloatArray | Sequence[float], N: int, M: int) -> float:
    """Return Spectrum's signal-to-noise ratio of a matrix.

    Parameters
    ----------
    singular_values : array, shape (n,)
        In any order.
    N, M : int
        Sides of the matrix.

    Returns
    -------
    float
        The ratio, divided by the largest singular value; NaN without singular values, infinite for
        zeros alone.

    Raises
    ------
    TypeError, ValueError
        If `singular_values` is not one-dimensional or holds negative numbers or NaN, or a side is
        no positive integer.

    Notes
    -----
    The noise has the scale sigma = IQR / 1.349, of the quartiles of the singular values, and the
    threshold sigma (1 + sqrt(min/max)) of the sides is where Marchenko and Pastur's law ends. The
    ratio is the sum of the singular values above it over the sum of the others, which counts as one
    where there are none.

    References
    ----------
    Hartford et al., "Spectrum: targeted training on signal to noise ratio", 2024, arXiv 2406.06623,
    and the released script.

    Examples
    --------
    >>> from pyspectra.finetune import snr
    >>> round(snr([8.0, 2.0, 2.0, 1.0, 1.0], 5, 5), 4)  # the threshold is at 1.48
    0.75
    """
    S = np.asarray(singular_values, dtype=np.float64)
    if S.ndim != 1 or not (S >= 0.0).all():
        requirement = "be one-dimensional and not negative"
        raise ArgumentValueError("snr", "singular_values", requirement, shown(singular_values))
    N, M = check_count("snr", "N", N), check_count("snr", "M", M)
    if S.size == 0:
        return math.nan
    low, high = np.quantile(S, (0.25, 0.75))
    sigma = (high - low) / IQR_OF_NORMAL
    signal = sigma * (1.0 + math.sqrt(min(N, M) / max(N, M))) < S
    noise = float(S[~signal].sum()) if not signal.all() else 1.0
    if noise == 0.0:
        return math.inf
    return float(S[signal].sum()) / noise / float(S.max())
