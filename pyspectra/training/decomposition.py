"""The table of bias and variance: where the error of a model comes from, and what to do first."""

from __future__ import annotations

from dataclasses import dataclass

from pyspectra._support.arguments import check_number
from pyspectra.training.metric_kinds import kind_of, split_and_metric
from pyspectra.training.recorded_run import RecordedRun

__all__ = ["BiasVariance", "bias_variance"]

ADVICE = {
    "target": "what no model is expected to undercut",
    "avoidable bias": "a larger model, longer training, less regularisation",
    "variance": "more data or augmentation, regularisation, a smaller model",
    "validation overfitting": "more validation data; fewer choices made by it",
}


@dataclass(frozen=True)
class BiasVariance:
    """Parts of an error.

    Attributes
    ----------
    metric : str
    rows : tuple of (str, float, str)
        Name of the part, its size in the unit of the metric, and what makes it smaller.
    """

    metric: str
    rows: tuple[tuple[str, float, str], ...]

    @property
    def largest(self) -> str:
        """The part to work at first."""
        parts = [row for row in self.rows if row[0] != "target"]
        return max(parts, key=lambda row: row[1])[0]

    def __str__(self) -> str:
        lines = [f"{name:24s}{size:10.4g}  {advice}" for name, size, advice in self.rows]
        return "\n".join([f"{self.metric}: work at the {self.largest} first", *lines])


def bias_variance(
    history: RecordedRun, metric: str = "loss", *, target: float = 0.0, test: float | None = None
) -> BiasVariance:
    """Divide the error of a run into what is unavoidable, bias, and variance.

    Parameters
    ----------
    history : History
    metric : str
        A metric that was logged for training and validation: a loss, an error, or a score such as
        accuracy.
    target : float
        The value that is hoped for: that of people, or of the best known model. For a score, 1 is
        the best there is.
    test : float, optional
        Its value on samples that nothing was chosen by.

    Returns
    -------
    BiasVariance
        The parts at the epoch with the best validation. ``avoidable bias`` is by how much training
        is worse than the target, ``variance`` by how much validation is worse than training.

    Raises
    ------
    KeyError
        If the metric was not logged for both.
    TypeError, ValueError
        If `target` or `test` is no number, or it is not known which way the metric is better.

    Examples
    --------
    >>> from pyspectra.training import History, bias_variance
    >>> history = History()
    >>> history.log(epoch=1, train_accuracy=0.8, val_accuracy=0.75)
    >>> history.log(epoch=2, train_accuracy=0.99, val_accuracy=0.85)
    >>> print(bias_variance(history, "accuracy", target=1.0))
    accuracy: work at the variance first
    target                           1  what no model is expected to undercut
    avoidable bias                0.01  a larger model, longer training, less regularisation
    variance                      0.14  more data or augmentation, regularisation, a smaller model
    """
    name = "bias_variance"
    wanted = check_number(name, "target", target)
    plain = split_and_metric(metric)[1]
    best = history.best(f"val_{plain}")
    x, y = history.curve(f"train_{plain}")
    train = float(y[list(x).index(best.epoch)])
    sign = -1.0 if kind_of(plain).better == "higher" else 1.0
    rows = [
        ("target", wanted),
        ("avoidable bias", sign * (train - wanted)),
        ("variance", sign * (best.value - train)),
    ]
    if test is not None:
        value = check_number(name, "test", test)
        rows.append(("validation overfitting", sign * (value - best.value)))
    return BiasVariance(plain, tuple((part, size, ADVICE[part]) for part, size in rows))
