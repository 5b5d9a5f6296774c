"""Run a model for its outputs alone: without gradients, without dropout, and leave it as it was."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyspectra.errors import ArgumentTypeError

__all__ = ["device_of", "evaluating", "logits_of", "outputs_of", "to_device"]

# What a batch has for a loss, which is not computed here.
_TARGETS = ("labels", "label", "label_ids", "num_items_in_batch")


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Compute without gradients and in the mode of evaluation; modes come back at the end.

    Parameters
    ----------
    model : torch.nn.Module or callable
    """
    training = [m for m in model.modules() if m.training] if isinstance(model, nn.Module) else []
    with torch.no_grad():
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True


def device_of(model: Any) -> torch.device | None:
    """Return the device of a model's first tensor, if it has any."""
    if not isinstance(model, nn.Module):
        return None
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def to_device(value: Any, device: torch.device | None) -> Any:
    """Return a batch with its tensors on a device; containers of it become dicts and lists."""
    if isinstance(value, Tensor):
        return value if device is None else value.to(device)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(item, device) for item in value]
    return value


def outputs_of(model: Callable[..., Any], batch: Any) -> Any:
    """Return what a model says of a batch.

    Parameters
    ----------
    model : torch.nn.Module or callable
    batch : object
        A mapping becomes keywords: without labels, and without what ``forward`` does not take. Of
        a list or tuple the first item is the input, as in the batches of a loader.
    """
    batch = to_device(batch, device_of(model))
    if isinstance(batch, Mapping):
        return model(**_keywords(model, batch))
    return model(batch[0] if isinstance(batch, list) else batch)


def _keywords(model: Callable[..., Any], batch: Mapping[str, Any]) -> dict[str, Any]:
    forward = model.forward if isinstance(model, nn.Module) else model
    known = inspect.signature(forward).parameters.values()
    names = {p.name for p in known}
    if any(p.kind == p.VAR_KEYWORD for p in known):
        names |= batch.keys()
    names -= {*_TARGETS}
    # Such a model makes the inputs of its decoder of the labels.
    decodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if decodes and batch.get("decoder_input_ids") is None:
        names.add("labels")
    return {name: value for name, value in batch.items() if name in names}


def logits_of(function: str, argument: str, outputs: Any) -> Tensor:
    """Return the logits among the outputs of a model: itself, ``logits``, or the first of a tuple.

    Raises
    ------
    ArgumentTypeError
        If there are none.
    """
    found = outputs
    if isinstance(outputs, Mapping):
        found = outputs.get("logits")
    elif hasattr(outputs, "logits"):
        found = outputs.logits
    elif isinstance(outputs, tuple | list) and outputs:
        found = outputs[0]
    if not isinstance(found, Tensor):
        requirement = "return a tensor, or an object with 'logits'"
        got = f"an object of type {type(outputs).__name__}"
        raise ArgumentTypeError(function, argument, requirement, got)
    return found
