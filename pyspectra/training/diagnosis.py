"""The doctor on recorded numbers: a run that is over, or one that is still running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from pyspectra._support.arguments import check_choice
from pyspectra.training.history_tables import epoch_of
from pyspectra.training.memory import Memory
from pyspectra.training.metric_kinds import kind_of
from pyspectra.training.recorded_run import RecordedRun
from pyspectra.training.rules import Thresholds, known_codes
from pyspectra.training.rules import facts as f
from pyspectra.training.run_report import RunReport
from pyspectra.training.trajectories import last_alphas, spectra_of, trajectories
from pyspectra.types import FloatArray

__all__ = ["curves_of", "diagnose"]


def diagnose(
    history: RecordedRun,
    stats: Sequence[Sequence[f.TensorStep]] | None = None,
    spectra: Iterable[f.LayerSpectrum] | None = None,
    thresholds: Thresholds | None = None,
    *,
    baseline: float | None = None,
    target: float | None = None,
    ignore: Collection[str] = (),
) -> RunReport:
    """Judge a run by its recorded numbers alone.

    Parameters
    ----------
    history : History
        A history of our own, or one read from what other programs wrote.
    stats : sequence of sequences of TensorStep, optional
        Statistics of steps, the newest last.
    spectra : iterable of LayerSpectrum, optional
        Spectra of layers over time; by default those of the history.
    thresholds : Thresholds, optional
    baseline : float, optional
        Loss of predicting class frequencies, or the mean of the target.
    target : float, optional
        Training loss that is wanted: curves that are flat above it are reported.
    ignore : iterable of str
        Codes that are not looked for.

    Returns
    -------
    RunReport
        Findings, causes first.

    Raises
    ------
    ValueError
        If a code in `ignore` is none that is looked for.

    Examples
    --------
    >>> from pyspectra.training import History, diagnose
    >>> history = History()
    >>> for epoch, (train, val) in enumerate(
    ...     [(1.0, 1.1), (0.6, 0.8), (0.4, 0.7), (0.3, 0.9), (0.2, 1.0), (0.1, 1.2)], 1
    ... ):
    ...     history.log(epoch=epoch, train_loss=train, val_loss=val)
    >>> [finding.code for finding in diagnose(history)]
    ['overfitting']
    """
    for code in ignore:
        check_choice("diagnose", "ignore", code, known_codes())
    curves = curves_of(history, baseline=baseline, target=target, ended=True)
    memory = Memory(thresholds or Thresholds(), tuple(ignore), patience=3)
    facts: list[object] = [curves]
    losses = step_losses(history)
    if len(losses):
        facts.append(f.LossCurve(losses, baseline=baseline))
    if stats:
        facts.append(f.RecentSteps(len(stats), stats))
    rows = spectra_of(history.spectra) if spectra is None else list(spectra)
    if rows:
        facts.append(trajectories(rows))
    memory.judge(facts)
    steps = history.steps
    last = max((r["step"] for r in steps if r.get("step") is not None), default=0)
    return RunReport(tuple(memory.found), last, len(curves.epochs), history)


def step_losses(history: RecordedRun) -> FloatArray:
    """Return the training losses of single steps; NaN where one was not finite."""
    values = [
        r.get("loss")
        for r in history.steps
        if (r.get("split") or "train") == "train" and r.get("kind") is None and "loss" in r
    ]
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def curves_of(
    history: RecordedRun,
    *,
    baseline: float | None = None,
    target: float | None = None,
    ended: bool = False,
    objective: bool = True,
) -> f.Curves:
    """Return the columns of the epochs of a history."""
    rows = history.epochs
    batches = [
        (epoch_of(r), r.get("n"))
        for r in history.steps
        if (r.get("split") or "train") == "train" and r.get("kind") is None
    ]
    sizes = [n for _, n in batches if n is not None]
    counts = Counter(epoch for epoch, _ in batches)
    names = {n for row in rows for n, v in row.items() if isinstance(v, int | float)}
    values = {
        name: np.array([_value(row.get(name)) for row in rows], dtype=np.float64)
        for name in names
        if name.startswith(("train_", "val_"))
    }
    metrics = {name.split("_", 1)[1] for name in values}
    better = {m: kind_of(m).better == "higher" for m in metrics if kind_of(m).better}
    last: dict[str, Any] = rows[-1] if rows else {}
    return f.Curves(
        epochs=np.array([row["epoch"] for row in rows], dtype=np.float64),
        values=values,
        steps=[row.get("step") or 0 for row in rows],
        n_train=int(last.get("n_train") or 0),
        n_val=int(last.get("n_val") or 0),
        baseline=baseline,
        higher_is_better=better,
        post=last.get("train_kind") == "post",
        lr=np.array([_value(row.get("lr")) for row in rows], dtype=np.float64),
        target=target,
        alphas=last_alphas(history.spectra),
        n_records=np.array([counts[row["epoch"]] for row in rows], dtype=np.float64),
        batch=float(np.median(sizes)) if sizes else float("nan"),
        ended=ended,
        objective=objective,
    )


def _value(value: Any) -> float:
    return float("nan") if value is None else float(value)
