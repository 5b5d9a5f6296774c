"""What rules of curves read: numbers over time, of the loss, of units and of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra.types import FloatArray

Array = npt.NDArray[Any]


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
    least : int
        Steps before a loss that has not moved says something.
    rates_rise : bool
        The learning rate is still warming up: what was not learned yet says nothing.
    epoch_steps : int or None
        Steps of an epoch; None before it is known.
    """

    losses: FloatArray
    start: int = 1
    warmup: int = 10
    baseline: float | None = None
    window: int = 20
    least: int = 200
    rates_rise: bool = False
    epoch_steps: int | None = None


@dataclass(frozen=True)
class GradientNorms:
    """Norm of the gradient of the whole model in the steps that were looked at."""

    step: int
    norms: FloatArray
    curve: LossCurve | None = None


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
        Standard deviation of the activation over samples and units.
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
    curve: LossCurve | None = None
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
        Whether more is better, for each metric without its prefix.
    post : bool
        Values of training were taken after the epoch in evaluation mode, not while it ran.
    target : float or None
        Value of the loss that is wanted.
    lr : ndarray or None
        Learning rate of each epoch.
    alphas : ndarray or None
        Last tail exponents of the layers; None where no spectra were taken.
    n_records : ndarray or None
        Records of single training batches in each epoch.
    batch : float
        Samples of such a record; NaN where not known.
    ended : bool
        No epoch follows.
    objective : bool
        The loss is a measure of how well the model does: not so of two models that play against
        each other, and of losses that only have the right gradient.
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
    alphas: FloatArray | None = None
    n_records: FloatArray | None = None
    batch: float = float("nan")
    ended: bool = False
    objective: bool = True

    def get(self, name: str) -> FloatArray:
        """Return the values of a column; an empty array if there is none."""
        return np.asarray(self.values.get(name, ()), dtype=np.float64)


@dataclass(frozen=True)
class LayerSpectrum:
    """What was measured of one layer at one step.

    Attributes
    ----------
    N, M : int
        Shape of its matrix, the longer side first.
    alpha, alpha_low, alpha_high : float
        Tail exponent and its interval, 1.96 standard errors to either side.
    n_tail, n_evals : int
        Eigenvalues in the tail, and all.
    stable_rank, spectral_norm : float
    random_p_value : float
        P-value of "a matrix without structure".
    n_traps : int
        Directions that survive a random order of the entries.
    trap_strength : float
        Largest eigenvalue in random order, over what a random matrix of this bulk reaches; NaN
        where neither mean nor outliers of the entries can make a strong trap.
    kind : str
        ``"linear"``, ``"embedding"``...
    """

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
    trap_strength: float = float("nan")
    kind: str = ""


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
class LabelEvidence:
    """What is known, after some epochs, of whether the labels have to do with the inputs.

    Attributes
    ----------
    majority : float or None
        Share of the most frequent class; None of values.
    agreement : float or None
        How far neighbours agree on the label beyond chance, in standard deviations
        (`pyspectra.training.rules.splits.agreement`); None where the inputs have no distance.
    """

    step: int
    curves: Curves
    majority: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class EpochBatches:
    """A number for each batch of an epoch, in order: equal for equal inputs."""

    step: int
    sums: FloatArray


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
