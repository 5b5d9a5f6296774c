"""What is known of a metric by its name: which way is better, its unit, how batches are combined.

A metric is one record in one list. `pyspectra.training.metrics` adds those of the metrics that it
computes; a name without a record gets one by the words that are in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "SPLITS",
    "MetricKind",
    "canonical",
    "kind_of",
    "known_kinds",
    "register",
    "split_and_metric",
]

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class MetricKind:
    """What is known of a metric.

    Attributes
    ----------
    name : str
        The name in a history, without ``train_`` or ``val_``.
    better : {"lower", "higher"} or None
        Which way is better; None if neither is, as for a learning rate.
    unit : str
        Metrics of one unit share the axis of a plot: ``"target"`` (RMSE with MAE), ``"share"``
        (from 0 to 1), ``"loss"``, or the name of the metric itself.
    combine : {"mean", "rms", "max", "last"}
        How the values of batches make that of an epoch: mean weighted by n, root of the weighted
        mean of squares, greatest, or last.
    aliases : tuple of str
        Other names of it.
    """

    name: str
    better: Better | None
    unit: str
    combine: Literal["mean", "rms", "max", "last"] = "mean"
    aliases: tuple[str, ...] = ()


_KINDS: dict[str, MetricKind] = {}


def register(kind: MetricKind) -> MetricKind:
    """Add a record to the list; a later one of the same name replaces the earlier one."""
    for name in (kind.name, *kind.aliases):
        _KINDS[name] = kind
    return kind


def known_kinds() -> tuple[MetricKind, ...]:
    """Return every record once, in order of registration."""
    return tuple(dict.fromkeys(_KINDS.values()))


for _kind in (
    MetricKind("loss", "lower", "loss", aliases=("nll", "cross_entropy")),
    MetricKind("perplexity", "lower", "perplexity", aliases=("ppl",)),
    MetricKind("lr", None, "lr", "last", ("learning_rate",)),
    MetricKind("grad_norm", None, "grad_norm"),
    MetricKind("update_ratio", None, "update_ratio"),
    MetricKind("seconds", None, "seconds", "last"),
    MetricKind("auc", "higher", "share", aliases=("auroc", "roc_auc")),
):
    register(_kind)


def canonical(name: str) -> str:
    """Return the name that a history has for a metric: ``mse`` for ``mean_squared_error``."""
    known = _KINDS.get(name)
    return name if known is None else known.name


# Words that tell which way is better, for names without a record of their own. The second list
# goes first: "error_free_share" is rarer than "max_error".
_LOWER = re.compile(
    r"(^|_)(loss|error|err|mse|rmse|mae|mape|msle|nll|perplexity|ppl|divergence|distance|wer|cer"
    r"|ece|brier|logloss|deviance)(_|$)"
)
_HIGHER = re.compile(
    r"(^|_)(acc|accuracy|precision|recall|f1|fscore|auc|auroc|r2|iou|miou|dice|map|average_precision|m_ap|bleu|rouge\w*"
    r"|score|sensitivity|specificity|tpr|reward|correlation|mcc|kappa|psnr|ssim|top\d+)(_|$)"
)


def kind_of(name: str) -> MetricKind:
    """Return what is known of a metric, by its name without ``train_`` or ``val_``.

    Parameters
    ----------
    name : str
        A name or alias: ``"rmse"``, ``"acc"``.

    Returns
    -------
    MetricKind
        Its record; for an unknown name one that is guessed from the words in it, whose `better` is
        None if they say nothing.
    """
    known = _KINDS.get(name) or _KINDS.get(name.lower())
    if known is not None:
        return replace(known, name=name)
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^0-9A-Za-z]+", "_", name).lower()
    if word in _KINDS:
        return replace(_KINDS[word], name=name)
    if _LOWER.search(word):
        return MetricKind(name, "lower", "loss" if "loss" in word else name)
    if _HIGHER.search(word):
        return MetricKind(name, "higher", name)
    return MetricKind(name, None, name)


# --- splits -------------------------------------------------------------------------------------

SPLITS = ("train", "val", "test")
"""The splits whose names stand before those of metrics."""

_PREFIXES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "eval": "val", "dev": "val",
    "test": "test",
}  # fmt: skip
_PREFIXED = re.compile(rf"^({'|'.join(_PREFIXES)})[_/](.+)$")


def split_and_metric(name: str) -> tuple[str | None, str]:
    """Return the split that a name begins with, if any, and the name of the metric.

    Parameters
    ----------
    name : str
        ``"val_loss"``, ``"eval_loss"``, ``"valid/loss"``, ``"loss"``.

    Returns
    -------
    (str or None, str)
        ``("val", "loss")`` for the first three, ``(None, "loss")`` for the last.
    """
    found = _PREFIXED.match(name)
    if found is None:
        return None, name
    return _PREFIXES[found[1]], found[2]
