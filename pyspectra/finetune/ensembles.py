"""Ensembles: what several models say together, and how far they disagree."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyspectra._arrays import as_host
from pyspectra._support.arguments import as_number, check_choice, check_flag, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.finetune.forward import evaluating, logits_of, outputs_of
from pyspectra.types import FloatArray

__all__ = ["Disagreement", "EnsemblePrediction", "disagreement", "ensemble_predict"]

_COMBINE = ("probabilities", "logits", "outputs")


@dataclass(frozen=True, eq=False)
class EnsemblePrediction:
    """What an ensemble says.

    Attributes
    ----------
    mean : torch.Tensor, shape (N, ..., K)
        Probabilities of the classes, or with ``combine="outputs"`` numbers.
    members : torch.Tensor, shape (M, N, ..., K)
        What each of the M models returned: logits, or numbers.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import EnsemblePrediction
    >>> logits = torch.log(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]))
    >>> EnsemblePrediction.of(logits).mean
    tensor([[0.7000, 0.3000]])
    >>> EnsemblePrediction.of(logits, combine="logits").mean
    tensor([[0.7500, 0.2500]])
    """

    mean: Tensor
    members: Tensor

    @classmethod
    def of(
        cls,
        members: Any,
        *,
        combine: str = "probabilities",
        weights: Sequence[float] | None = None,
    ) -> EnsemblePrediction:
        """Combine what models have said.

        Parameters
        ----------
        members : torch.Tensor or array, shape (M, N, ..., K); or a sequence of M such tensors
            Logits, or numbers with ``combine="outputs"``.
        combine, weights : object
            As in `ensemble_predict`.

        Raises
        ------
        TypeError, ValueError
            If it is no such array, or an argument is out of range.
        """
        name = "EnsemblePrediction.of"
        combine = check_choice(name, "combine", combine, _COMBINE)
        if isinstance(members, list | tuple):
            members = _stacked(name, members)
        if not isinstance(members, Tensor):
            members = torch.from_numpy(as_host(members, function=name, argument="members")
                                       .to_float64())  # fmt: skip
        if members.ndim < 2 or not members.is_floating_point() or not len(members):
            got = f"{members.dtype} of shape {tuple(members.shape)}"
            raise ArgumentValueError(name, "members", "be floats of shape (M, ..., K)", got)
        members = members.detach().to(torch.promote_types(members.dtype, torch.float32))
        shares = torch.from_numpy(_shares(name, weights, len(members))).to(members)
        said = members.softmax(-1) if combine == "probabilities" else members
        # A class that one member rules out (a logit of minus infinity) may have no weight at all.
        mean = sum(s * z for s, z in zip(shares, said, strict=True) if s > 0)
        assert isinstance(mean, Tensor)
        return cls(mean.softmax(-1) if combine == "logits" else mean, members)


def _stacked(function: str, members: Sequence[Any]) -> Tensor:
    tensors = [
        m if isinstance(m, Tensor)
        else torch.from_numpy(as_host(m, function=function, argument="members").to_float64())
        for m in members
    ]  # fmt: skip
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) != 1:
        got = f"shapes {sorted(shapes)}" if shapes else "none"
        raise ArgumentValueError(function, "members", "hold arrays of one shape", got)
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors))
    return torch.stack([t.detach().to("cpu", dtype) for t in tensors])


def _shares(function: str, weights: Any, count: int) -> FloatArray:
    """Return the weights of the members, which sum to 1."""
    if weights is None:
        return np.full(count, 1.0 / count)
    values = [*weights] if isinstance(weights, Iterable) and not isinstance(weights, str) else None
    numbers = None if values is None else [as_number(v) for v in values]
    requirement = f"be {count} numbers of at least 0, not all 0"
    if numbers is None or None in numbers:
        raise ArgumentTypeError(function, "weights", requirement, shown(weights))
    found = np.array(numbers, dtype=np.float64)
    if len(found) != count or not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise ArgumentValueError(function, "weights", requirement, shown(weights))
    shares: FloatArray = found / found.sum()
    return shares


def ensemble_predict(
    models: Iterable[Callable[..., Any]],
    inputs: Any,
    *,
    combine: str = "probabilities",
    weights: Sequence[float] | None = None,
) -> EnsemblePrediction:
    """Return what several models say together.

    Parameters
    ----------
    models : iterable of torch.nn.Module or callable
        They return logits (a tensor, ``.logits``, or the first of a tuple), the classes last. They
        run in the mode of evaluation and without gradients, each where it is, and keep their modes.
    inputs : torch.Tensor, mapping, or iterable of batches
        One batch, or several, as from a loader, read once. A mapping is handed on as keywords,
        without its labels; of a list or tuple the first item is the input.
    combine : {"probabilities", "logits", "outputs"}
        The mean of the members' probabilities; the probabilities of the mean of their logits, which
        is their geometric mean, normalised; or, as for a regression, the mean of what they return.
    weights : sequence of float, optional
        Of the members, at least 0; they are divided by their sum. Equal ones by default.

    Returns
    -------
    EnsemblePrediction
        ``mean`` and ``members`` of all batches, on the CPU.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, a model returns no logits, or shapes differ.

    Notes
    -----
    The cross-entropy of either mean is at most the mean of those of the members, by Jensen's
    inequality. A class that one member rules out is ruled out by the mean of logits.

    References
    ----------
    Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation
    using deep ensembles", NeurIPS 2017, arXiv 1612.01474.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import ensemble_predict
    >>> models = [torch.nn.Linear(4, 3) for _ in range(5)]
    >>> said = ensemble_predict(models, torch.randn(8, 4))
    >>> said.mean.shape, said.members.shape
    (torch.Size([8, 3]), torch.Size([5, 8, 3]))
    """
    name = "ensemble_predict"
    check_choice(name, "combine", combine, _COMBINE)
    if isinstance(models, torch.nn.Module) and not isinstance(models, torch.nn.ModuleList):
        # A Sequential would give its layers.
        got = f"an object of type {type(models).__name__}"
        hint = "a single one goes into a list, too"
        raise ArgumentTypeError(name, "models", "be a sequence of models", got, hint)
    found = [*models] if isinstance(models, Iterable) else [models]
    if not found or not all(callable(model) for model in found) or not isinstance(models, Iterable):
        raise ArgumentTypeError(name, "models", "hold at least one model", shown(models))
    _shares(name, weights, len(found))
    one = isinstance(inputs, Tensor | Mapping)
    if not one and (isinstance(inputs, str) or not isinstance(inputs, Iterable)):
        raise ArgumentTypeError(name, "inputs", "be a batch or batches", shown(inputs))
    parts: list[list[Tensor]] = [[] for _ in found]
    # Batches come outermost: a loader that shuffles would give each model another order.
    for batch in [inputs] if one else inputs:
        for model, part in zip(found, parts, strict=True):
            with evaluating(model):
                logits = logits_of(name, "models", outputs_of(model, batch))
            part.append(logits.to("cpu", torch.promote_types(logits.dtype, torch.float32)))
    if not parts[0]:
        raise ArgumentValueError(name, "inputs", "hold at least one batch", "none")
    shapes = {part.shape[1:] for own in parts for part in own}
    if len(shapes) != 1:
        got = f"outputs of shapes {sorted(map(tuple, shapes))} after the first axis"
        hint = "pad the batches to one length, or ask for each batch alone"
        raise ArgumentValueError(name, "inputs", "give outputs of one shape", got, hint)
    with called_as(name, members="models"):
        members = [torch.cat(own) for own in parts]
        return EnsemblePrediction.of(members, combine=combine, weights=weights)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """How far the members of an ensemble disagree.

    Attributes
    ----------
    rate : float
        Share of the samples that two different members take for two classes: mean over the pairs.
    pairs : ndarray of float64, shape (M, M)
        The same of each pair.
    mutual_information : ndarray of float64, shape (N, ...)
        Mean divergence of the members from their mean, in nats, for each sample: what a sample's
        doubt owes to disagreement.
    entropy : ndarray of float64, shape (N, ...)
        Entropy of the mean, in nats: all of the doubt.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.finetune import disagreement
    >>> sure = np.log([[[0.99, 0.01], [0.5, 0.5]], [[0.01, 0.99], [0.5, 0.5]]])
    >>> found = disagreement(sure)
    >>> found.entropy.round(2).tolist()  # two samples of equal doubt
    [0.69, 0.69]
    >>> found.mutual_information.round(2).tolist()  # in the second, the members agree on it
    [0.64, 0.0]
    """

    rate: float
    pairs: FloatArray
    mutual_information: FloatArray
    entropy: FloatArray


def disagreement(
    predictions: Any, *, logits: bool = True, weights: Sequence[float] | None = None
) -> Disagreement:
    """Return how far the members of an ensemble disagree.

    Parameters
    ----------
    predictions : EnsemblePrediction, array or tensor, shape (M, N, ..., K)
        What M members say of each sample.
    logits : bool
        Whether they are logits; probabilities otherwise.
    weights : sequence of float, optional
        Of the members, as in `ensemble_predict`.

    Returns
    -------
    Disagreement
        float64, computed in float64.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two members, or probabilities are none.

    Notes
    -----
    With p_m of member m and p = sum_m w_m p_m, the mutual information of prediction and member is

        sum_m w_m KL(p_m || p) = H(p) - sum_m w_m H(p_m),

    the generalised Jensen-Shannon divergence; it lies between 0 and log M. The rate is the mean of
    [class of i != class of j] over samples and pairs i != j, each pair with weight w_i w_j. It is
    bounded by the members' errors: those of few errors cannot disagree much.

    References
    ----------
    Lakshminarayanan et al., NeurIPS 2017, arXiv 1612.01474 (the divergence, as their measure of
    disagreement). Houlsby et al., 2011, arXiv 1112.5745 (the decomposition). Lin, "Divergence
    measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991). Kuncheva and
    Whitaker, "Measures of diversity in classifier ensembles", Machine Learning 51 (2003).

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import disagreement
    >>> disagreement(torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]], [[1.0, 0.0]]])).rate
    0.6666666666666666
    """
    name = "disagreement"
    if isinstance(predictions, EnsemblePrediction):
        predictions = predictions.members
    x = as_host(predictions, function=name, argument="predictions").to_float64()
    if x.ndim < 3 or len(x) < 2 or not x.size:
        requirement = "have the shape (M, N, ..., K) of two members or more"
        raise ArgumentValueError(name, "predictions", requirement, f"{x.shape}")
    if check_flag(name, "logits", logits):
        x = np.exp(x - x.max(axis=-1, keepdims=True))
        x = x / x.sum(axis=-1, keepdims=True)
    elif not ((x >= 0).all() and np.allclose(x.sum(axis=-1), 1.0, atol=1e-3)):
        hint = "logits=True"
        raise ArgumentValueError(name, "predictions", "be probabilities", "other numbers", hint)
    w = _shares(name, weights, len(x))
    if (w > 0).sum() < 2:
        requirement = "be above 0 for two members or more"
        raise ArgumentValueError(name, "weights", requirement, shown(weights))
    p = np.tensordot(w, x, axes=1)
    entropy = _entropy(p)
    between = entropy - np.tensordot(w, _entropy(x), axes=1)
    classes = x.argmax(axis=-1).reshape(len(x), -1)
    pairs = np.array([[float(np.mean(a != b)) for b in classes] for a in classes])
    weight = np.outer(w, w) * (1.0 - np.eye(len(w)))
    rate = math.fsum((weight * pairs).ravel()) / math.fsum(weight.ravel())
    return Disagreement(rate, pairs, np.maximum(between, 0.0), entropy)


def _entropy(p: npt.NDArray[np.float64]) -> FloatArray:
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(-(p * logs).sum(axis=-1))
