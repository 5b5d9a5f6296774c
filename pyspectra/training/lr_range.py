"""The learning rate range test: the loss while the rate grows, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, missing_dependency
from pyspectra.training.preserve import preserved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LRCurve", "lr_range_test", "suggested_rate"]

Floats = NDArray[np.float64]

# Points of the centred mean: a mean of the past alone would move the steepest point to the right.
WINDOW = 9


@dataclass(frozen=True, eq=False)
class LRCurve:
    """The loss at each learning rate.

    Attributes
    ----------
    lr, loss : ndarray of float64, shape (n,)
        Rates, ascending, and the loss of the batch before the step with that rate.
    suggestion : float or None
        Rate at which the loss falls fastest; None if it does not fall.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.training import LRCurve
    >>> curve = LRCurve(np.array([1e-3, 1e-2, 1e-1]), np.array([2.0, 1.0, 3.0]), 1e-2)
    >>> curve.plot().get_xscale()
    'log'
    """

    lr: Floats
    loss: Floats
    suggestion: float | None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss against the rate, and mark the suggestion.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default axes of a new figure, which belongs to the caller.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure
            except ImportError as error:
                raise missing_dependency("matplotlib", "LRCurve.plot", extra="plot") from error
            ax = Figure(figsize=(6.5, 4.0), layout="constrained").add_subplot()
        ax.plot(self.lr, self.loss, color="C0", alpha=0.35, linewidth=0.8, label="loss")
        ax.plot(self.lr, centred_mean(self.loss), color="C0", label=f"mean of {WINDOW}")
        if self.suggestion is not None:
            label = f"suggestion: {self.suggestion:.1e}"
            ax.axvline(self.suggestion, color="C1", linestyle="--", label=label)
        ax.set_xscale("log")
        ax.set_xlabel("learning rate")
        ax.set_ylabel("loss")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize="small")
        return ax


def lr_range_test(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor],
    batches: Iterable[Any],
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    stop: float = 4.0,
) -> LRCurve:
    """Train a little with a rate that grows exponentially, and put everything back.

    Parameters
    ----------
    model : torch.nn.Module
        Its weights, buffers, modes and gradients are as before afterwards.
    optimizer : torch.optim.Optimizer
        The one to be used; its state and rates are as before afterwards. Groups with several rates
        keep their ratios: `low` and `high` are those of the first.
    loss_fn : callable
        ``loss_fn(model, batch)`` returns the loss, a scalar tensor.
    batches : iterable
        Batches, gone through again when they end; generators of random numbers are as before
        afterwards, but an iterator stays where it was left.
    low, high : float
        First and last rate.
    steps : int
        How many steps there are between them.
    stop : float
        The test ends when the smoothed loss is more than so many times its smallest value.

    Returns
    -------
    LRCurve
        Rates, losses and a suggestion.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range, or there is no batch.

    Notes
    -----
    The suggestion is where the loss, as a centred mean of nine points, falls fastest for a change
    of the *logarithm* of the rate. By the rate itself the smallest rates, whose differences are
    tiny, would look steepest, and a mean of the past would move the point to greater rates.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV (2017).

    Examples
    --------
    >>> import torch
    >>> from pyspectra.training import lr_range_test
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> x = torch.randn(64, 4)
    >>> batches = [(x, x.sum(1, keepdim=True))]
    >>> def loss_fn(model, batch):
    ...     return torch.nn.functional.mse_loss(model(batch[0]), batch[1])
    >>> curve = lr_range_test(model, optimizer, loss_fn, batches)
    >>> 1e-3 < curve.suggestion < 1
    True
    """
    name = "lr_range_test"
    if not isinstance(model, torch.nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError(name, "model", "be a torch.nn.Module", got)
    if not isinstance(optimizer, torch.optim.Optimizer):
        got = f"an object of type {type(optimizer).__name__}"
        raise ArgumentTypeError(name, "optimizer", "be a torch.optim.Optimizer", got)
    low = check_number(name, "low", low, above=0.0)
    high = check_number(name, "high", high, above=low)
    steps = check_count(name, "steps", steps, least=2)
    stop = check_number(name, "stop", stop, above=1.0)
    rates = np.geomspace(low, high, steps)
    losses: list[float] = []
    with preserved(model, [optimizer]):
        model.train()
        ratios = _ratios(optimizer)
        for rate, batch in zip(rates, _endless(batches), strict=False):
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = _like(group["lr"], rate * ratio)
            optimizer.zero_grad()
            loss: Any = loss_fn(model, batch)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]) or _has_exploded(losses, stop):
                break
            loss.backward()
            optimizer.step()
    lr, loss_values = rates[: len(losses)], np.array(losses, dtype=np.float64)
    return LRCurve(lr, loss_values, suggested_rate(lr, loss_values))


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ArgumentValueError("lr_range_test", "batches", "last for all steps", "none left")


def _ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return [rate / rates[0] if rates[0] > 0 else 1.0 for rate in rates]


def _like(old: Any, rate: float) -> Any:
    """Return a rate as the optimizer keeps it: a tensor where it is capturable."""
    return torch.full_like(old, rate) if isinstance(old, torch.Tensor) else float(rate)


def _has_exploded(losses: list[float], stop: float) -> bool:
    if len(losses) < WINDOW:
        return False
    means = np.convolve(losses, np.full(3, 1 / 3), "valid")
    return bool(means[-1] > stop * means.min() > 0)


def centred_mean(values: Floats) -> Floats:
    """Return the mean of each value and its neighbours on both sides, fewer at the ends."""
    half = WINDOW // 2
    means = [
        values[i - reach : i + reach + 1].mean()
        for i in range(len(values))
        for reach in (min(half, i, len(values) - 1 - i),)
    ]
    return np.array(means, dtype=np.float64)


def suggested_rate(lr: Floats, loss: Floats) -> float | None:
    """Return the rate at which the loss falls fastest for a change of the logarithm of the rate.

    Parameters
    ----------
    lr, loss : ndarray of float64, shape (n,)
        Rates, ascending, and losses; what follows the first that is not finite does not count.

    Returns
    -------
    float or None
        None if there are too few points, or the loss does not fall.
    """
    broken = np.flatnonzero(~np.isfinite(loss))
    end = int(broken[0]) if len(broken) else len(loss)
    if end < WINDOW:
        return None
    means = centred_mean(loss[:end])
    # Behind its lowest point the loss has begun to explode.
    lowest = int(np.argmin(means))
    if lowest < 2:
        return None
    slopes = np.gradient(means, np.log(lr[:end]))[: lowest + 1]
    steepest = int(np.argmin(slopes))
    return float(lr[steepest]) if slopes[steepest] < 0 else None
