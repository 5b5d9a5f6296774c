"""What rules read: plain numbers about a run, collected by `Watch` or taken from its history.

Nothing here needs torch: every rule is tested with numbers written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra.types import FloatArray, StepStatistics

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of the model, as it stands before training."""

    name: str
    shape: tuple[int, ...]
    n: int
    trainable: bool
    optimized: bool


@dataclass(frozen=True)
class Parameters:
    """All parameters of the model."""

    step: int
    rows: Sequence[ParameterInfo]


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
        None where it had no gradient.
    lr : float
        Of its group.
    dtype : str
        ``"float32"``, ``"bfloat16"``, ...
    sparse : bool
        Part of what batches use in turn, as an expert: no gradient is no fault.
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


@dataclass(frozen=True)
class RecentSteps:
    """Steps that were looked at lately, the newest last; each holds the same parameters.

    Attributes
    ----------
    step : int
        Of the newest.
    steps : sequence of sequences of TensorStep
    loss_falls : bool or None
        Whether the loss of the run is falling; None where it is not known.
    not_learning : bool or None
        Whether the loss is where it began.
    n_warm : int or None
        So many of the newest are past the first steps, in which no statistical rule speaks; None
        for all.
    """

    step: int
    steps: Sequence[Sequence[TensorStep]]
    loss_falls: bool | None = None
    not_learning: bool | None = None
    n_warm: int | None = None

    @property
    def warm_steps(self) -> Sequence[Sequence[TensorStep]]:
        """Steps after the first ones."""
        n = len(self.steps) if self.n_warm is None else self.n_warm
        return self.steps[len(self.steps) - n :]


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
    """

    step: int
    kind: str | None
    before: tuple[str, ...] = ()
    expanded: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    n_classes: int | None = None


@dataclass(frozen=True)
class LossBatches:
    """What entered the loss in the first batches.

    Attributes
    ----------
    kind : str
        As in `LossGraph`.
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
        The same between the first row of a batch and that row alone.
    loss_has_graph : bool
        The loss of an evaluation could be differentiated.
    """

    step: int
    in_training_mode: Sequence[str] = ()
    difference: float | None = None
    batch_difference: float | None = None
    loss_has_graph: bool = False


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
        Those whose gradient was zero in each of the first steps; empty before they were taken.
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
        Of the classes in the first batches, in nats.
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


@dataclass(frozen=True)
class LossCurve:
    """Losses of the steps so far.

    Attributes
    ----------
    losses : ndarray of float64
        One for each step, the newest last.
    start : int
        Step of the first.
    warmup : int
        Steps in which no statistical rule speaks.
    baseline : float or None
        Loss of predicting class frequencies, or the mean; None where it is not known.
    window : int
        Length of the windows that are compared.
    stuck : bool or None
        Whether the loss is where it began (`pyspectra.training.rules.progress`).
    """

    losses: FloatArray
    start: int = 1
    warmup: int = 10
    baseline: float | None = None
    window: int = 20
    steps_per_epoch: int | None = None
    fine_tuning: bool = False
    stuck: bool | None = None


@dataclass(frozen=True)
class GradientNorms:
    """Norm of the gradient of the whole model in the steps that were looked at."""

    step: int
    norms: FloatArray
    loss_falls: bool | None
    warm: bool = True


@dataclass(frozen=True)
class Units:
    """Units of one activation over many samples.

    Attributes
    ----------
    name : str
        The weight before it, or the module.
    activation : str
        ``"relu"``, ``"gelu"``, ``"tanh"``...
    n_dead : int
        Units (channels) that were never active.
    n_saturated : int
        Units beyond +-5 before a tanh or sigmoid in almost all samples.
    std : float
        Of the activation over samples and units.
    """

    step: int
    name: str
    activation: str
    n_samples: int
    n_batches: int
    n_units: int
    n_dead: int
    n_saturated: int = 0
    std: float = float("nan")
    not_learning: bool | None = None
    is_output: bool = False


@dataclass(frozen=True)
class Scales:
    """Standard deviations of all activations of a network."""

    step: int
    std: Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """Values of whole epochs, in their order; NaN where there is none.

    Attributes
    ----------
    epochs : ndarray of float64, shape (E,)
    values : mapping of str to ndarray
        ``train_loss``, ``val_loss``, ``train_accuracy``...
    n_train, n_val : int
        Samples of an epoch; 0 where not known.
    baseline : float or None
        Loss of predicting class frequencies, or the mean.
    higher_is_better : mapping of str to bool
        For each metric without its prefix.
    post : bool
        Values of training were taken after the epoch in evaluation mode, not while it ran.
    target : float or None
        Value of the loss that is wanted.
    """

    epochs: FloatArray
    values: Mapping[str, FloatArray]
    steps: Sequence[int] = ()
    n_train: int = 0
    n_val: int = 0
    baseline: float | None = None
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    post: bool = False
    target: float | None = None
    lr: FloatArray | None = None
    under_trained_share: float | None = None
    uneven: Sequence[str] = ()

    def get(self, name: str) -> FloatArray:
        """Return the values of a column; an empty array if there is none."""
        return np.asarray(self.values.get(name, ()), dtype=np.float64)


@dataclass(frozen=True)
class LayerSpectrum:
    """What was measured of one layer at one step."""

    step: int
    name: str
    N: int
    M: int
    alpha: float
    alpha_low: float
    alpha_high: float
    n_tail: int
    n_evals: int
    stable_rank: float
    spectral_norm: float
    random_p_value: float = float("nan")
    n_traps: int = 0


@dataclass(frozen=True)
class Trajectories:
    """Spectra of each layer over time, the oldest first.

    Attributes
    ----------
    outer : set of str
        First, last and embedding layers, on which alone no judgement is made.
    warmup : int
        Step at which warm-up ends.
    """

    layers: Mapping[str, Sequence[LayerSpectrum]]
    outer: frozenset[str] = frozenset()
    warmup: int = 10


@dataclass(frozen=True)
class Classes:
    """What a classifier said of each class in one evaluation.

    Attributes
    ----------
    confusion : ndarray of int, shape (K, K)
        Rows are true classes, columns predicted ones.
    """

    step: int
    confusion: Array


@dataclass(frozen=True)
class Inputs:
    """What enters the model, before training.

    Attributes
    ----------
    X : ndarray, shape (n, ...)
    normalization : (mean, std) or None
        What a pretrained model expects of each channel of X (n, C, H, W).
    """

    X: Array
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class Labels:
    """Targets; `n_outputs` of the model where it is known."""

    y: Array
    n_outputs: int | None = None
    X: Array | None = None


@dataclass(frozen=True)
class Split:
    """Training and validation data."""

    X: Array
    y: Array | None
    X_val: Array
    y_val: Array | None


@dataclass(frozen=True)
class BatchSize:
    """Sizes of the training."""

    n: int
    batch: int
    epochs: int | None = None
    batch_norm: bool = False


@dataclass(frozen=True)
class OverfitTrial:
    """Losses of a training on a single batch.

    Attributes
    ----------
    losses : ndarray of float64
    baseline : float or None
    kind : str or None
        Of the loss.
    slope : float or None
        Mean sign of the gradient times the update over the first steps: -1 for descent.
    n_classes : int or None
    accuracy : float or None
        Of the batch at the end, of a classifier.
    """

    losses: FloatArray
    baseline: float | None
    kind: str | None
    slope: float | None = None
    n_classes: int | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class BatchMixing:
    """Largest gradient of the first output with respect to another row, and that row."""

    gradient: float
    row: int | None


@dataclass(frozen=True)
class Reduction:
    """The loss of a batch, and of the batch twice over."""

    once: float
    twice: float
