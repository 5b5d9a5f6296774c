"""Curves read out in words: where they go, where they are flat, cross, and part.

The sentences say what the numbers say, and what they do not say: a gap between training and
validation, or a crossing of the two, is no fault by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyspectra.training import curves
from pyspectra.training.curve_pairs import CurvePair, curve_pairs
from pyspectra.training.recorded_run import RecordedRun

__all__ = ["read_curves", "read_out"]

# Half a per cent an epoch, or half a point of a share: the width of what is called flat.
FLAT = 0.005


def read_out(history: RecordedRun, metrics: Sequence[str] | None = None) -> list[str]:
    """Say in words what the plot of a history shows.

    Parameters
    ----------
    history : History
        The run.
    metrics : sequence of str, optional
        Names of metrics; by default all whose better direction is known.

    Returns
    -------
    list of str
        Sentences, metric by metric.

    Raises
    ------
    ValueError
        If there is no such metric, or nothing was logged.

    Examples
    --------
    >>> from pyspectra.training import History
    >>> from pyspectra.training.reading_out import read_out
    >>> history = History()
    >>> for epoch in range(1, 9):
    ...     history.log(epoch=epoch, train_loss=0.5**epoch, val_loss=2 * 0.5**epoch)
    >>> print(read_out(history)[0])
    loss: training falls by 50 % an epoch over the last 5 epochs.
    """
    pairs = curve_pairs(history, metrics, function="read_out")
    if metrics is None:
        pairs = [pair for pair in pairs if pair.kind.better is not None]
    return [sentence for pair in pairs for sentence in read_curves(pair)]


def read_curves(pair: CurvePair) -> list[str]:
    """Say in words what the two curves of one metric show."""
    told = [_movement(pair, "training"), _movement(pair, "validation")]
    told += [_best(pair), _crossing(pair), _gap(pair)]
    return [f"{pair.name}: {sentence}" for sentence in told if sentence]


# --- one curve ----------------------------------------------------------------------------------


def _movement(pair: CurvePair, which: str) -> str | None:
    values = pair.train if which == "training" else pair.val
    # Slopes are those between neighbouring points: epochs, or evaluations of a run with few epochs.
    _, points = curves.finite_points(pair.x, values)
    if len(points) < 3:
        return None
    unit, units = _units(pair)
    log = pair.kind.unit != "share" and bool(np.all(points > 0))
    scale = 1.0 if log or pair.kind.unit == "share" else float(np.mean(np.abs(points))) or 1.0
    counted = np.arange(len(points), dtype=np.float64)
    flat = curves.plateau(counted, points / scale, band=FLAT, log=log)
    if flat is not None and not (which == "validation" and _parting(pair)):
        since = pair.x[np.isfinite(values)][int(flat.since)]
        return (
            f"{which} is flat since {pair.x_name} {since:g}, at {flat.level * scale:.4g} "
            f"(within {_flat_words(pair)} {unit})."
        )
    size = min(curves.last_window(len(points)), len(points))
    last = curves.slope(counted[-size:], points[-size:] / scale, log=log)
    if last is None:
        return None
    verb = "rises" if last.value > 0 else "falls"
    if last.low <= 0 <= last.high:
        ways = set(np.sign(np.diff(points[-size:])).tolist())
        if len(ways) == 1 and 0.0 not in ways:  # a bend is no line, and few points prove little
            return (
                f"{which} {verb} from each of the last {size} {units} to the next, by "
                f"{_change(last.value, pair, log)} on average."
            )
        return (
            f"{which} goes up and down over the last {size} {units}, without a slope that could be "
            "told from none."
        )
    return (
        f"{which} {verb} by {_change(last.value, pair, log)} {unit} over the last {size} {units}."
    )


def _flat_words(pair: CurvePair) -> str:
    return "half a point" if pair.kind.unit == "share" else "half a per cent"


def _units(pair: CurvePair) -> tuple[str, str]:
    whole = pair.x_name == "epoch" and bool(np.all(pair.x == np.round(pair.x)))
    return ("an epoch", "epochs") if whole else ("an evaluation", "evaluations")


def _change(value: float, pair: CurvePair, log: bool) -> str:
    if pair.kind.unit == "share" and not log:
        return f"{_number(100 * abs(value))} points"
    relative = abs(np.expm1(value)) if log else abs(value)
    return f"{_number(100 * relative)} %"


# --- two curves ---------------------------------------------------------------------------------


def _parting(pair: CurvePair) -> curves.Divergence | None:
    if pair.kind.better is None:
        return None
    return curves.divergence(
        pair.x, pair.train, pair.val, better=pair.kind.better, val_se=pair.val_se
    )


def _best(pair: CurvePair) -> str | None:
    values = pair.val
    if pair.kind.better is None or np.isfinite(values).sum() < 2:
        return None
    best = curves.best_index(values, pair.kind.better)
    at = f"validation was best at {pair.x_name} {pair.x[best]:g}, with {values[best]:.4g}"
    parting = _parting(pair)
    if parting is None:
        if best == np.flatnonzero(np.isfinite(values))[-1]:
            return f"{at}, its last value: it had not begun to get worse."
        return f"{at}, and is within chance, or 5 %, of that at the end."
    _, units = _units(pair)
    by = _relative(parting.worse_by, parting.best)
    if parting.n < 3:
        return (
            f"{at}, and is {by} worse at the end, by more than chance; that three {units} in a row "
            "would be a divergence."
        )
    told = f"{at}, is {by} worse at the end, and worse by more than chance for {parting.n} {units}"
    if parting.train_improves:
        return (
            f"{told} while training improves: the curves diverge (overfitting), and the weights of "
            f"{pair.x_name} {parting.best_x:g} are the ones to keep."
        )
    if np.isfinite(pair.train).any():
        return f"{told}, and training with it: that is no overfitting, but a run that comes apart."
    return f"{told}; whether training improves meanwhile was not logged."


def _crossing(pair: CurvePair) -> str | None:
    # As drawn: a mean over an epoch belongs to its middle.
    x, train = curves.finite_points(pair.train_x, pair.train)
    if len(x) < 2:
        return None
    aligned = np.interp(pair.x, x, train)
    lower_is_better = pair.kind.better != "higher"
    found = curves.crossings(pair.x, aligned, pair.val)
    if not found:
        by_rows = curves.crossings(pair.x, pair.train, pair.val)
        if not by_rows or not pair.running:
            return None
        return (
            f"the values of one epoch cross at {pair.x_name} {by_rows[-1].x:.3g}, the curves do "
            "not: training is a mean over an epoch in which the model still improved, so it is "
            "drawn half an epoch before the evaluation at its end."
        )
    if len(found) > 3:
        return f"the curves cross {len(found)} times: neither is the better one for long."
    places = " and ".join(f"{crossing.x:.3g}" for crossing in found)
    if found[-1].upward != lower_is_better:
        return (
            f"the curves cross at {pair.x_name} {places}; after that validation is the better one, "
            "as it is where training is measured with dropout or augmentation; if it is not, look "
            "for samples that are in both sets."
        )
    return (
        f"the curves cross at {pair.x_name} {places}; after that training is the better one. That "
        "is how a model learns its training set, and no fault: what counts is whether validation "
        "gets worse."
    )


def _gap(pair: CurvePair) -> str | None:
    both = np.isfinite(pair.train) & np.isfinite(pair.val)
    if not both.any() or pair.kind.better is None:
        return None
    train, val = pair.train[both][-1], pair.val[both][-1]
    if train == val:
        return None
    worse = (val > train) == (pair.kind.better == "lower")
    if pair.kind.unit == "share":
        by = f"{_number(100 * abs(val - train))} points"
    else:
        by = _relative(abs(val - train), train)
    told = f"at the end validation is {by} {'worse' if worse else 'better'} than training"
    # The divergence of curves has been told already.
    return f"{told}; a gap by itself is normal." if worse and not _parting(pair) else f"{told}."


def _relative(change: float, base: float) -> str:
    if not base:
        return f"{change:.3g}"
    share = abs(change / base)
    return f"{1 + share:.1f} times" if share >= 2 else f"{_number(100 * share)} %"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
