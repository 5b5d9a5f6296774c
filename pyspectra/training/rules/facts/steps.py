"""What rules of steps read: wiring, losses, initialisation and numerics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra._support.cached import cached_property
from pyspectra.training.rules.facts.series import LossCurve
from pyspectra.types import FloatArray, StepStatistics

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of the model, as it stands before training.

    Attributes
    ----------
    hidden : bool
        It stands in a list or a dictionary of a module, where ``parameters()`` does not see it.
    """

    name: str
    shape: tuple[int, ...]
    n: int
    trainable: bool
    optimized: bool
    hidden: bool = False


@dataclass(frozen=True)
class Parameters:
    """All parameters of the model.

    Attributes
    ----------
    curve : LossCurve or None
        Losses so far; None before the first.
    """

    step: int
    rows: Sequence[ParameterInfo]
    curve: LossCurve | None = None


@dataclass(frozen=True)
class Backwards:
    """What the backward passes between two steps of one optimizer found in ``.grad``.

    Attributes
    ----------
    step : int
        The step that ended the interval; the first is 1.
    parameter : str
        The one that was looked at.
    n_backwards, n_stale : int
        Backward passes that reached it; those that found a gradient of before the previous step.
    """

    step: int
    parameter: str
    n_backwards: int
    n_stale: int


@dataclass(frozen=True)
class TensorStep:
    """What one step did to one parameter of the optimizer.

    Attributes
    ----------
    statistics : StepStatistics or None
        What the step did; None where the parameter had no gradient. The norms of weights and
        updates of a large parameter may be estimates from a part of it, and NaN if not known.
    lr : float
        Learning rate of its group.
    dtype : str
        ``"float32"``, ``"bfloat16"``, ...
    sparse : bool
        Whether batches use it in turn, as an expert: no gradient is no fault then.
    master : bool
        Steps are taken on a float32 copy.
    masked : bool
        A mask keeps it, or parts of it, as it is.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    lr: float
    statistics: StepStatistics | None
    sparse: bool = False
    master: bool = False
    masked: bool = False


class StepRows(tuple[TensorStep, ...]):
    """What one step did to all parameters, with columns for rules that look at many steps.

    Columns are arrays of float64, NaN where a parameter is no matrix, is masked or had no gradient.
    """

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(t.name for t in self)

    @cached_property
    def param_norms(self) -> FloatArray:
        """Norms of the weights."""
        return self._column(lambda t, s: s.param_norm)

    @cached_property
    def weight_sizes(self) -> FloatArray:
        """Root mean squares of the weights."""
        return self._column(lambda t, s: s.param_norm / math.sqrt(max(s.n, 1)))

    @cached_property
    def update_ratios(self) -> FloatArray:
        """Norms of update over weights; NaN also where nothing could move."""
        return self._column(
            lambda t, s: (
                s.update_norm / s.param_norm
                if t.lr != 0 and s.grad_norm > 0 and s.param_norm > 0
                else math.nan
            )
        )

    def _column(self, value: Callable[[TensorStep, StepStatistics], float]) -> FloatArray:
        return np.array(
            [
                value(t, t.statistics)
                if t.statistics is not None and len(t.shape) >= 2 and not t.masked
                else math.nan
                for t in self
            ],
            dtype=np.float64,
        )


@dataclass(frozen=True)
class RecentSteps:
    """Steps that were looked at lately, the newest last; each holds the same parameters.

    Attributes
    ----------
    step : int
        Number of the newest step.
    steps : sequence of sequences of TensorStep
        Those that are StepRows already keep the columns that were read of them.
    curve : LossCurve or None
        Losses up to the newest; None where they are not known.
    n_warm : int or None
        So many of the newest are past the first steps, in which no statistical rule speaks; None
        for all.
    """

    step: int
    steps: Sequence[Sequence[TensorStep]]
    curve: LossCurve | None = None
    n_warm: int | None = None

    @property
    def warm_steps(self) -> Sequence[Sequence[TensorStep]]:
        """Steps after the first ones."""
        n = len(self.steps) if self.n_warm is None else self.n_warm
        return self.steps[len(self.steps) - n :]

    @cached_property
    def _rows(self) -> list[StepRows]:
        return [s if isinstance(s, StepRows) else StepRows(s) for s in self.steps]

    def column(self, name: str, n: int | None = None) -> FloatArray:
        """Return a column of `StepRows` over the last `n` steps (all by default).

        Returns
        -------
        array of float64, shape (steps, parameters of the newest step)
        """
        rows = self._rows if n is None else self._rows[len(self._rows) - n :]
        newest = self._rows[-1].names
        return np.stack(
            [
                getattr(r, name)
                if r.names == newest
                else _aligned(newest, r.names, getattr(r, name))
                for r in rows
            ]
        )


def _aligned(wanted: tuple[str, ...], names: tuple[str, ...], values: FloatArray) -> FloatArray:
    known = dict(zip(names, values, strict=True))
    return np.array([known.get(name, math.nan) for name in wanted], dtype=np.float64)


@dataclass(frozen=True)
class LossGraph:
    """What the graph of the loss says of itself: no values, only operations and shapes.

    Attributes
    ----------
    kind : str or None
        ``"cross_entropy"``, ``"nll"``, ``"bce"``, ``"bce_logits"``, ``"mse"``, ``"l1"``.
    before : tuple of str
        The operations that made the input of the loss, the last first: ``("softmax",)``.
    expanded : (shape, shape) or None
        Shape of the predictions, and the one they were broadcast to.
    over_batch : bool
        The softmax of a cross-entropy of a matrix runs over its rows.
    negated : str or None
        Kind of a loss of the model's own output of which the negative is minimised; `kind` is None
        then.
    maximized : bool
        The optimizer climbs.
    """

    step: int
    kind: str | None
    before: tuple[str, ...] = ()
    expanded: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    n_classes: int | None = None
    over_batch: bool = False
    negated: str | None = None
    maximized: bool = False


@dataclass(frozen=True)
class LossBatches:
    """What entered the loss in the first batches.

    Attributes
    ----------
    kind : str
        Kind of the loss, as in `LossGraph`.
    outputs : sequence of ndarray
        (N, K) for the losses of classes, any shape else.
    targets : sequence of ndarray or None
        Class numbers, or values of the shape of the outputs; empty where not known.
    """

    step: int
    kind: str
    outputs: Sequence[FloatArray]
    targets: Sequence[Array] = ()


@dataclass(frozen=True)
class LossShapes:
    """Shapes of predictions and targets of an elementwise loss."""

    step: int
    kind: str
    prediction: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """How the model stood when it was evaluated.

    Attributes
    ----------
    in_training_mode : sequence of str
        Modules that behave otherwise in training and were in that mode.
    difference : float or None
        Largest relative difference between two passes over one batch; None if none was made.
    batch_difference : float or None
        The same between the first, or the last, row of a batch and that row alone.
    loss_has_graph : bool
        The loss of an evaluation could be differentiated.
    draws : bool
        The model draws random numbers by itself, as a variational autoencoder does.
    """

    step: int
    in_training_mode: Sequence[str] = ()
    difference: float | None = None
    batch_difference: float | None = None
    loss_has_graph: bool = False
    draws: bool = False


@dataclass(frozen=True)
class StepMode:
    """The mode of the model when the optimizer stepped."""

    step: int
    training: bool
    dependent: Sequence[str]


@dataclass(frozen=True)
class Retained:
    """A value with a graph that was given to the history."""

    step: int
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightSummary:
    """One weight matrix before the first step; its rows are output units.

    Attributes
    ----------
    mean, std, max_abs : float
    row_difference, column_difference : float
        Largest difference between two rows, two columns, in units of the largest entry.
    stable_rank : float
        Sum of the eigenvalues of W^T W over the largest; NaN where it was not taken.
    activation : str or None
        What follows: ``"relu"``, ``"tanh"``, ``"sigmoid"``...; None where it is not known.
    normalized : bool
        A normalisation follows it.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float
    max_abs: float
    row_difference: float
    column_difference: float
    stable_rank: float = float("nan")
    activation: str | None = None
    normalized: bool = False


@dataclass(frozen=True)
class InitialWeights:
    """Weight matrices before the first step.

    Attributes
    ----------
    rows : sequence of WeightSummary
    without_gradient : set of str
        Weights whose gradient was zero in each of the first steps; empty before these were taken.
    """

    step: int
    rows: Sequence[WeightSummary]
    without_gradient: frozenset[str] = frozenset()


@dataclass(frozen=True)
class InitialLoss:
    """The first loss of a classifier.

    Attributes
    ----------
    entropy : float or None
        Entropy of the classes in the first batches, in nats.
    pretrained : bool
        The model was trained before: a low loss is expected.
    """

    loss: float
    n_classes: int
    entropy: float | None = None
    n: int = 0
    pretrained: bool = False


@dataclass(frozen=True)
class NonFinite:
    """Where the first NaN or infinity was found.

    Attributes
    ----------
    place : {"inputs", "targets", "outputs", "loss", "gradient", "weight"}
    what : {"NaN", "Inf"}
    name : str
        Module or parameter; empty for inputs, targets and loss.
    max_abs : float or None
        Largest finite magnitude of what went in.
    dtype : str
    grew : bool
        The loss had grown many times over before.
    """

    step: int
    place: str
    what: str
    name: str = ""
    max_abs: float | None = None
    dtype: str = "float32"
    grew: bool = False
