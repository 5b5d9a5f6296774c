"""Data before training: what is wrong with them, and smaller sets of them. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra._support.arguments import check_count, check_seed
from pyspectra._support.random import Purpose, generator
from pyspectra.errors import ArgumentValueError
from pyspectra.training.memory import Memory
from pyspectra.training.rules import Thresholds
from pyspectra.training.rules import facts as f
from pyspectra.training.rules.inputs import IMAGENET
from pyspectra.training.run_report import RunReport

__all__ = ["IMAGENET", "OutOfFold", "balanced_subset", "check", "repeat_subsets"]

Indices = npt.NDArray[np.int64]


def check(
    X: Any,
    y: Any = None,
    X_val: Any = None,
    y_val: Any = None,
    *,
    batch_size: int | None = None,
    epochs: int | None = None,
    n_outputs: int | None = None,
    pretrained: Any = None,
    batch_norm: bool = False,
    thresholds: Thresholds | None = None,
    ignore: Iterable[str] = (),
) -> RunReport:
    """Check data before training.

    Parameters
    ----------
    X : array-like, shape (n, ...)
        Inputs, as they enter the model.
    y : array-like, shape (n,), optional
        Class numbers, or values.
    X_val, y_val : array-like, optional
        The same for the validation data.
    batch_size, epochs, n_outputs : int, optional
        Batch size and number of epochs of the training; number of outputs of the model.
    pretrained : "imagenet" or (mean, std), optional
        Normalisation that a pretrained model expects of each channel.
    batch_norm : bool
        The model has batch norm.
    thresholds : Thresholds, optional
    ignore : iterable of str
        Codes that are not looked for.

    Returns
    -------
    RunReport

    Raises
    ------
    ValueError
        If the lengths do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training import data
    >>> X = np.random.default_rng(0).standard_normal((100, 3))
    >>> [finding.code for finding in data.check(X, batch_size=64)]
    ['batch_vs_dataset']
    """
    inputs, targets = _array(X), None if y is None else _array(y)
    if targets is not None and len(targets) != len(inputs):
        raise ArgumentValueError(
            "data.check", "y", f"have the length of X, {len(inputs)}", f"length {len(targets)}"
        )
    normalization = IMAGENET if isinstance(pretrained, str) else pretrained
    facts: list[object] = [f.Inputs(inputs, normalization)]
    if targets is not None:
        facts.append(f.Labels(targets, n_outputs, inputs))
    if X_val is not None:
        other = None if y_val is None else _array(y_val)
        facts.append(f.Split(inputs, targets, _array(X_val), other))
    if batch_size is not None:
        size = check_count("data.check", "batch_size", batch_size)
        facts.append(f.BatchSize(len(inputs), size, epochs, batch_norm))
    memory = Memory(thresholds or Thresholds(), tuple(ignore), patience=1)
    memory.judge(facts)
    return RunReport(tuple(memory.found))


def _array(values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def balanced_subset(y: Any, n: int, *, seed: int = 0) -> Indices:
    """Return indices of a random subset with equally many samples of each class, shuffled.

    Parameters
    ----------
    y : array-like of int, shape (N,)
        Classes.
    n : int
        Samples of the subset: a multiple of the number of classes, or the remainder goes to the
        first ones of a random order.
    seed : int

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    ValueError
        If a class has too few samples.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training import data
    >>> y = np.repeat(np.arange(10), 100)
    >>> np.bincount(y[data.balanced_subset(y, 300)]).tolist()
    [30, 30, 30, 30, 30, 30, 30, 30, 30, 30]
    """
    labels = _array(y)
    count = check_count("data.balanced_subset", "n", n)
    drawn = check_seed("data.balanced_subset", "seed", seed)
    rng = generator(Purpose.DATA, drawn, "balanced subset")
    classes = np.unique(labels)
    each, more = divmod(count, len(classes))
    lucky = set(rng.permutation(len(classes))[:more].tolist())
    parts = []
    for k, c in enumerate(classes):
        members = np.flatnonzero(labels == c)
        wanted = each + (k in lucky)
        if len(members) < wanted:
            raise ArgumentValueError(
                "data.balanced_subset", "n", f"leave {wanted} samples of class {c}", str(count),
                f"it has {len(members)}",
            )  # fmt: skip
        parts.append(rng.choice(members, wanted, replace=False))
    return rng.permutation(np.concatenate(parts)).astype(np.int64)


def repeat_subsets(y: Any, n: int, times: int, *, seed: int = 0) -> Iterator[Indices]:
    """Yield `times` subsets of `balanced_subset` with seeds of their own, to see the spread.

    Parameters
    ----------
    y : array-like of int, shape (N,)
    n, times : int
        Samples of each; how many.
    seed : int

    Yields
    ------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training import data
    >>> y = np.repeat(np.arange(2), 50)
    >>> [len(rows) for rows in data.repeat_subsets(y, 10, 3)]
    [10, 10, 10]
    """
    repeats = check_count("data.repeat_subsets", "times", times)
    for own in np.random.SeedSequence(seed).generate_state(repeats):
        yield balanced_subset(y, n, seed=int(own))


class OutOfFold:
    """Predictions for samples by models that were not trained on them, fold by fold.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Labels.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training import data
    >>> y = np.arange(100) % 2
    >>> held_out = data.OutOfFold(y)
    >>> for rows in np.split(np.arange(100), 5):
    ...     sure = np.where(np.arange(2) == (rows[:, None] // 10) % 2, 0.95, 0.05)
    ...     held_out.add(rows, sure)
    >>> [finding.code for finding in held_out.report()]
    ['label_noise']
    """

    def __init__(self, y: Any) -> None:
        self._y = _array(y)
        self._rows: list[Indices] = []
        self._probabilities: list[npt.NDArray[np.float64]] = []

    def add(self, rows: Any, probabilities: Any) -> None:
        """Add what a model says of rows that it was not trained on.

        Parameters
        ----------
        rows : array-like of int, shape (m,)
            Their places in `y`.
        probabilities : array-like of float, shape (m, K)

        Raises
        ------
        ValueError
            If the lengths do not agree, or the rows of `probabilities` do not sum to one.
        """
        name = "OutOfFold.add"
        places, p = _array(rows), _array(probabilities).astype(np.float64)
        if p.ndim != 2 or len(p) != len(places):
            raise ArgumentValueError(
                name, "probabilities", f"have {len(places)} rows", f"shape {p.shape}"
            )
        if not (np.isfinite(p).all() and np.allclose(p.sum(1), 1, atol=1e-3)):
            raise ArgumentValueError(
                name, "probabilities", "sum to one in each row", f"{p.sum(1).min():.4g} and more"
            )
        self._rows.append(places.astype(np.int64))
        self._probabilities.append(p)

    def to_cleanlab(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``labels`` and ``pred_probs`` as cleanlab's functions take them, in rows of `y`.

        Raises
        ------
        ValueError
            If a row has no prediction, or two.
        """
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, dtype=np.int64)
        if not np.array_equal(np.sort(rows), np.arange(len(self._y))):
            raise ArgumentValueError(
                "OutOfFold.to_cleanlab", "rows", f"cover each of {len(self._y)} samples once",
                f"{len(rows)} rows, {len(np.unique(rows))} of them different",
            )  # fmt: skip
        order = np.argsort(rows)
        return {"labels": self._y, "pred_probs": np.concatenate(self._probabilities)[order]}

    def report(self, thresholds: Thresholds | None = None) -> RunReport:
        """Return whether labels are contradicted by models that are sure.

        Parameters
        ----------
        thresholds : Thresholds, optional
        """
        memory = Memory(thresholds or Thresholds(), (), patience=1)
        if self._rows:
            rows = np.concatenate(self._rows)
            memory.judge([f.HeldOut(np.concatenate(self._probabilities), self._y[rows])])
        return RunReport(tuple(memory.found))
