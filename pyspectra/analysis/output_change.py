"""What a network returns with other weights in one layer, and how far that is from before."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra._arrays import is_torch_module, is_torch_tensor, require_torch
from pyspectra._support.arguments import as_number, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.types import FloatArray

__all__ = ["OutputTrial"]

Forward = Callable[[Any, Any], Any]
Loss = Callable[[Any, Any], Any]


class OutputTrial:
    """A network on a few batches: what it returns, and what with other weights.

    Parameters
    ----------
    function : str
        The public function, for messages.
    model : torch.nn.Module
    data : iterable
        Batches: a mapping is given as keywords, of a list or tuple the first item, all else as it
        is.
    forward : callable, optional
        ``forward(model, batch)`` returns the output instead.
    loss : callable, optional
        ``loss(output, batch)`` returns a number.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If one is of the wrong kind, or `data` holds no batch.
    """

    def __init__(
        self, function: str, model: Any, data: Any, forward: Forward | None, loss: Loss | None
    ) -> None:
        if not is_torch_module(model):
            needed, got = "be a torch module where 'data' is given", shown(model)
            raise ArgumentTypeError(function, "model_or_path", needed, got)
        if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
            raise ArgumentTypeError(function, "data", "be an iterable of batches", shown(data))
        for name, value in (("forward", forward), ("loss", loss)):
            if value is not None and not callable(value):
                raise ArgumentTypeError(function, name, "be a function or None", shown(value))
        self._torch = require_torch(function)
        self._function = function
        self._model = model
        self._batches = list(data)
        self._forward = _called if forward is None else forward
        self._loss = loss
        self._tensors: dict[str, Any] = {}
        self._outputs: list[list[Any]] = []
        self._losses: list[float] = []
        if not self._batches:
            raise ArgumentValueError(function, "data", "hold at least one batch", "none")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the network as it is, in evaluation mode; at the end its modes are as they were."""
        modes = [(m, m.training) for m in self._model.modules()]
        self._model.eval()
        self._tensors = self._model.state_dict()
        try:
            with self._torch.no_grad():
                for batch in self._batches:
                    tensors, loss = self._run(batch)
                    if not tensors:
                        needed = "return a floating-point tensor, or several"
                        raise ArgumentTypeError(self._function, "forward", needed, "none")
                    self._outputs.append(tensors)
                    self._losses.append(loss)
            yield
        finally:
            for module, training in modes:
                module.training = training

    def change(self, key: str, values: FloatArray) -> tuple[float, float]:
        """Run the network with other values of one tensor, which then has its own again.

        Parameters
        ----------
        key : str
            Name of the tensor in the state dict.
        values : ndarray

        Returns
        -------
        output : float
            Norm of the change of all outputs over their norm; NaN without such a tensor.
        loss : float
            Change of the mean loss; NaN without a loss.
        """
        if key not in self._tensors:
            return math.nan, math.nan
        tensor = self._tensors[key]
        own = tensor.clone()
        square = total = difference = 0.0
        with self._torch.no_grad():
            try:
                tensor.copy_(self._torch.from_numpy(np.ascontiguousarray(values)))
                for batch, before, loss in zip(
                    self._batches, self._outputs, self._losses, strict=True
                ):
                    after, new = self._run(batch)
                    for a, b in zip(before, after, strict=True):
                        square += float((b.double() - a.double()).square().sum())
                        total += float(a.double().square().sum())
                    difference += new - loss
            finally:
                tensor.copy_(own)
        output = math.sqrt(square / total) if total > 0.0 else math.nan
        return output, difference / len(self._batches)

    def _run(self, batch: Any) -> tuple[list[Any], float]:
        """Return the tensors that the network returns, and the loss."""
        output = self._forward(self._model, batch)
        loss = math.nan
        if self._loss is not None:
            value = self._loss(output, batch)
            number = as_number(value)
            if number is None:
                raise ArgumentTypeError(self._function, "loss", "return a number", shown(value))
            loss = number
        return list(_floats(output)), loss


def _called(model: Any, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, Sequence) else batch)


def _floats(output: Any) -> Iterator[Any]:
    """Yield the floating-point tensors of an output: a tensor, a tuple, a ModelOutput."""
    if is_torch_tensor(output):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping | Sequence) and not isinstance(output, str):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _floats(item)
