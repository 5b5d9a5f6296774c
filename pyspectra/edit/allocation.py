"""How much of each layer is pruned: a sparsity spread over layers by their alpha."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_choice, check_number, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.report.data import ReportData
from pyspectra.report.layer import LayerReport
from pyspectra.types import FloatArray
from pyspectra.weights.kinds import EMBEDDING

__all__ = ["MOST", "allocate_sparsity", "spread"]

# A layer without a single weight passes nothing on.
MOST = 0.998


def allocate_sparsity(
    report: ReportData,
    sparsity: float,
    *,
    epsilon: float = 0.3,
    by: str = "block",
) -> dict[str, float]:
    """Spread a sparsity over layers by alpha: those with a lighter tail lose more.

    Parameters
    ----------
    report : Report
        Of the model; its alpha counts. The published one is of estimator ``"fix_finger"``
        (AlphaPruning), or of sub-matrices, ``"farms(2000, 15, 1)"`` (FARMS).
    sparsity : float
        Share of the weights of these layers together that is to become zero, in (0, 1).
    epsilon : float
        Shares are from 1 - epsilon to 1 + epsilon times a common one, in [0, 1).
    by : {"block", "layer"}
        Layers of a numbered block have the mean of its alphas, as published, or each its own.

    Returns
    -------
    dict of str to float
        Name of the parameter -> share, for `prune`: of the layers in numbered modules if there are
        any, else of all; no embeddings.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or the report has no such layer.

    Notes
    -----
    s_l = c (1 - e + 2 e (alpha_l - min) / (max - min)), with c such that the shares of all weights
    together are `sparsity`. A share stops at 0.998, and the others make up for it. A layer without
    an alpha counts as the mean. With equal alphas the shares are equal.

    References
    ----------
    Lu et al., "AlphaPruning: using heavy-tailed self regularization theory for improved layer-wise
    pruning of large language models", NeurIPS 2024, arXiv 2410.10912, and the released code. Hu et
    al., "Eigenspectrum analysis of neural networks without aspect ratio bias", ICML 2025 (FARMS).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> rng = np.random.default_rng(0)
    >>> light, heavy = rng.standard_normal((60, 60)), rng.standard_t(2, (60, 60))
    >>> report = ps.analyze({"layers.0.weight": light, "layers.1.weight": heavy})
    >>> {key: round(share, 2) for key, share in ps.allocate_sparsity(report, 0.5).items()}
    {'layers.0.weight': 0.65, 'layers.1.weight': 0.35}
    """
    name = "allocate_sparsity"
    if not isinstance(report, ReportData):
        raise ArgumentTypeError(name, "report", "be a report", shown(report))
    sparsity = check_number(name, "sparsity", sparsity, above=0.0, below=1.0)
    epsilon = check_number(name, "epsilon", epsilon, least=0.0, below=1.0)
    by = check_choice(name, "by", by, ("block", "layer"))
    rows = _prunable(report)
    if not rows:
        got = "one without" if report.options.pool else "one with pool=False"
        raise ArgumentValueError(name, "report", "have weight matrices, one row a layer", got)
    alphas = np.array([row.alpha for row in rows])
    if by == "block":
        blocks = [_block(row.key) or row.key for row in rows]
        alphas = np.array([_mean([a for a, b in zip(alphas, blocks, strict=True) if b == block])
                           for block in blocks])  # fmt: skip
    alphas = np.where(np.isfinite(alphas), alphas, _mean(alphas))
    sizes = np.array([math.prod(row.shape) for row in rows], dtype=np.float64)
    shares = spread(alphas, sizes, sparsity, epsilon)
    return {row.key: float(share) for row, share in zip(rows, shares, strict=True)}


def _prunable(report: ReportData) -> list[LayerReport]:
    rows = [
        row
        for row in report.layers
        if row.part_of is None and row.slice_id is None and row.kind != EMBEDDING.name
    ]
    return [row for row in rows if _block(row.key) is not None] or rows


def _block(key: str) -> str | None:
    """Return the name up to its first number: ``"encoder.layer.3"``."""
    parts = key.split(".")[:-1]
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1])
    return None


def _mean(values: Any) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def spread(alphas: FloatArray, sizes: FloatArray, target: float, epsilon: float) -> FloatArray:
    """Return shares of layers with these alphas and sizes, `target` of all weights together."""
    low, high = alphas.min(), alphas.max()
    if not low < high:  # NaN is not either
        return np.full(len(alphas), target)
    raw = 1.0 - epsilon + 2.0 * epsilon * (alphas - low) / (high - low)
    shares = raw * (sizes.sum() * target / (sizes * raw).sum())
    full = np.zeros(len(raw), dtype=bool)
    while (shares > MOST).any() and target < MOST:
        full |= shares > MOST
        left = sizes.sum() * target - MOST * sizes[full].sum()
        shares = np.where(full, MOST, raw * left / (sizes * raw)[~full].sum())
    return np.minimum(shares, MOST) if target < MOST else np.full(len(raw), target)
