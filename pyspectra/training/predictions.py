"""What a classifier said of each sample: the worst, the least sure, each class, as one page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyspectra._support.arguments import check_count, check_path
from pyspectra._support.files import write_text
from pyspectra.errors import ArgumentValueError, missing_dependency
from pyspectra.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Predictions", "plot_confusion"]

Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a classifier, with what was right.

    Attributes
    ----------
    probabilities : ndarray of float64, shape (N, K)
    targets : ndarray of int64, shape (N,)
    names : tuple of str
        Names of the classes.
    inputs : sequence or None
        What was predicted from: images (H, W), (C, H, W) or (H, W, 3), or texts.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training.predictions import Predictions
    >>> logits = np.array([[4.0, 0.0], [0.1, 0.0], [3.0, 0.0]])
    >>> said = Predictions.of(logits, [0, 0, 1], names=("cat", "dog"))
    >>> said.top_losses(1).tolist(), said.least_sure(1).tolist()
    ([2], [1])
    >>> said.confusion.tolist()
    [[2, 0], [1, 0]]
    """

    probabilities: FloatArray
    targets: Indices
    names: tuple[str, ...]
    inputs: Sequence[Any] | None = None

    @classmethod
    def of(
        cls,
        outputs: Any,
        targets: Any,
        *,
        names: Iterable[str] | None = None,
        inputs: Sequence[Any] | None = None,
        logits: bool = True,
    ) -> Predictions:
        """Make predictions of what a model returned.

        Parameters
        ----------
        outputs : array or tensor, shape (N, K)
        targets : array or tensor of int, shape (N,)
        names : iterable of str, optional
            Names of the classes; their numbers by default.
        inputs : sequence, optional
            One input for each sample, to show on the page.
        logits : bool
            Whether `outputs` are logits; probabilities otherwise.

        Raises
        ------
        ValueError
            If shapes do not fit one another, or a target is none of the classes.
        """
        x, y = _array(outputs).astype(np.float64), _array(targets).astype(np.int64)
        if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
            got = f"shapes {x.shape} and {y.shape}"
            raise ArgumentValueError("Predictions.of", "outputs", "be (N, K), of N targets", got)
        if y.min() < 0 or y.max() >= x.shape[1]:
            got = f"classes from {y.min()} to {y.max()}"
            need = f"lie in [0, {x.shape[1] - 1}]"
            raise ArgumentValueError("Predictions.of", "targets", need, got)
        if logits:
            x = np.exp(x - x.max(axis=1, keepdims=True))
            x /= x.sum(axis=1, keepdims=True)
        words = tuple(str(k) for k in range(x.shape[1])) if names is None else tuple(names)
        if len(words) != x.shape[1]:
            need = f"be the names of {x.shape[1]} classes"
            raise ArgumentValueError("Predictions.of", "names", need, f"{len(words)}")
        if inputs is not None and len(inputs) != len(y):
            need = f"hold {len(y)} samples"
            raise ArgumentValueError("Predictions.of", "inputs", need, f"{len(inputs)}")
        return cls(x, y, words, inputs)

    # --- numbers --------------------------------------------------------------------------------

    @property
    def said(self) -> Indices:
        """The class that each sample was taken for."""
        best: Indices = np.argmax(self.probabilities, axis=1).astype(np.int64)
        return best

    @property
    def losses(self) -> FloatArray:
        """Cross-entropy of each sample, in nats."""
        own = self.probabilities[np.arange(len(self.targets)), self.targets]
        losses: FloatArray = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
        return losses

    @property
    def accuracy(self) -> float:
        """Share of the samples that were taken for what they are."""
        return float((self.said == self.targets).mean())

    @property
    def confusion(self) -> Counts:
        """Counts, shape (K, K): rows are true classes, columns what they were taken for."""
        k = len(self.names)
        counts = np.bincount(self.targets * k + self.said, minlength=k * k)
        return counts.reshape(k, k).astype(np.int64)

    def top_losses(self, n: int = 12) -> Indices:
        """Return the samples with the largest losses, the worst first."""
        count = check_count("Predictions.top_losses", "n", n)
        return np.argsort(-self.losses, kind="stable")[:count].astype(np.int64)

    def least_sure(self, n: int = 12) -> Indices:
        """Return the samples whose two best classes are closest to one another."""
        count = check_count("Predictions.least_sure", "n", n)
        best = np.sort(self.probabilities, axis=1)
        margin = best[:, -1] - best[:, -2] if best.shape[1] > 1 else best[:, -1]
        return np.argsort(margin, kind="stable")[:count].astype(np.int64)

    def wrong_of(self, k: int, n: int = 12) -> Indices:
        """Return the samples of class `k` that were taken for another, the surest first."""
        count = check_count("Predictions.wrong_of", "n", n)
        rows = np.flatnonzero((self.targets == k) & (self.said != k))
        sure = self.probabilities[rows].max(axis=1)
        return rows[np.argsort(-sure, kind="stable")][:count].astype(np.int64)

    def classes(self) -> list[dict[str, Any]]:
        """Return a row for each class: samples, recall, precision, and what it is taken for."""
        counts = self.confusion
        rows = []
        for k, name in enumerate(self.names):
            n, said = int(counts[k].sum()), int(counts[:, k].sum())
            others = np.where(np.arange(len(counts)) == k, 0, counts[k])
            worst = int(others.argmax())
            rows.append(
                {
                    "class": name,
                    "samples": n,
                    "recall": counts[k, k] / n if n else float("nan"),
                    "precision": counts[k, k] / said if said else float("nan"),
                    "most often taken for": (
                        f"{self.names[worst]} ({others[worst]})" if others[worst] else None
                    ),
                }
            )
        return rows

    # --- views ----------------------------------------------------------------------------------

    def to_html(self, path: str | Path | None = None, *, n: int = 12) -> str:
        """Return a page to look at predictions with: the worst, the least sure, each class.

        Parameters
        ----------
        path : str or path, optional
            Where to write it, whole or not at all.
        n : int
            Samples of each part.

        Returns
        -------
        str
            HTML that needs nothing but itself.
        """
        from pyspectra.training.predictions_page import predictions_page

        text = predictions_page(self, check_count("Predictions.to_html", "n", n))
        if path is not None:
            write_text(check_path("Predictions.to_html", "path", path), text)
        return text


def _array(values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values)


def plot_confusion(
    predictions: Predictions | Any, names: Sequence[str] | None = None, *, ax: Any = None
) -> Axes:
    """Draw a confusion matrix: the darker, the larger the share of the true class.

    Parameters
    ----------
    predictions : Predictions or array of counts, shape (K, K)
        Rows are true classes.
    names : sequence of str, optional
        Names of the classes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default the axes of a new figure, which belongs to the caller.

    Returns
    -------
    Axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    ValueError
        If it is no square matrix.

    Examples
    --------
    >>> from pyspectra.training.predictions import plot_confusion
    >>> ax = plot_confusion([[8, 2], [1, 9]], ("cat", "dog"))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('taken for', 'true class')
    """
    own = isinstance(predictions, Predictions)
    counts = predictions.confusion if own else np.asarray(predictions)
    words = names or (predictions.names if own else [str(k) for k in range(len(counts))])
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(words) != len(counts):
        need = "be a square matrix of counts with a name for each row"
        got = f"shape {counts.shape} and {len(words)} names"
        raise ArgumentValueError("plot_confusion", "predictions", need, got)
    if ax is None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise missing_dependency("matplotlib", "plot_confusion", extra="plot") from error
        size = 1.6 + 0.5 * len(counts)
        ax = Figure(figsize=(size, size), layout="constrained").subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(counts)), words, rotation=90)
    ax.set_yticks(range(len(counts)), words)
    ax.set_xlabel("taken for")
    ax.set_ylabel("true class")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, f"{count:g}", ha="center", va="center", fontsize="small", color=colour)
    return ax  # type: ignore[no-any-return]
