"""The way of every edit: copy the model, check that it can be written to, edit, write back.

Names, shapes, dtypes and devices stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pyspectra._arrays import HostArray, array_info, is_torch_module, is_torch_tensor, require_torch
from pyspectra._support.arguments import check_flag
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.types import FloatArray
from pyspectra.weights import Layer, open_weights, reasons_for_none
from pyspectra.weights.formats import state_dict
from pyspectra.weights.kinds import LORA
from pyspectra.weights.matricize import matricize
from pyspectra.weights.selection import chosen_layers

Edit = Callable[[Layer, Sequence[FloatArray]], Sequence[FloatArray] | None]


def apply(
    function: str,
    model: Any,
    layers: Sequence[int | str] | int | str | None,
    inplace: bool,
    edit: Edit,
) -> Any:
    """Edit the weight matrices of a model: copy it, check that it can be written to, write back.

    Parameters
    ----------
    function : str
        The public function, for messages.
    model : nn.Module or mapping
        A model or a state dict (torch or numpy values).
    layers : int, str, sequence of them or None
        Which layers; None means all.
    inplace : bool
        Write into `model` instead of a copy.
    edit : callable
        Takes a layer and its matrices (float64); returns new ones, or None for a layer that stays.

    Returns
    -------
    dict or nn.Module
        A new state dict; `model` itself with ``inplace=True``.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `model` is of the wrong kind, holds no weight matrix or cannot be written to.
    """
    if not (is_torch_module(model) or isinstance(model, Mapping)):
        got = f"an object of type {type(model).__name__}"
        kinds = "be a torch module or a state dict"
        raise ArgumentTypeError(function, "model", kinds, got, "load the file first")
    inplace = check_flag(function, "inplace", inplace)
    if inplace and isinstance(model, np.lib.npyio.NpzFile):
        memory = "be in memory with inplace=True"
        raise ArgumentTypeError(function, "model", memory, "an open .npz file")
    with called_as(function, model_or_path="model"):
        opened = open_weights(model)  # before the copy: it refuses what nobody could copy
    with opened as source:
        state: Any = model.state_dict() if is_torch_module(model) else model
        target = state if inplace else _copied(function, state)
        tensors = state_dict.flat(target)
        if not source.layers:
            got = f"{source.name}, {reasons_for_none(source.skipped)}"
            raise ArgumentValueError(function, "model", "hold a weight matrix", got)
        # Parts are edited with their whole; LoRA pairs and recomputed weights are not stored.
        stored = [
            layer
            for layer in chosen_layers(source.layers, source.skipped, layers, function)
            if layer.part_of is None and layer.kind != LORA.name and layer.key in tensors
        ]
        for layer in stored:  # all of them before the first is written to
            _check_writable(function, layer.key, tensors[layer.key])
        for layer in stored:
            values = _edited(layer, edit)
            if values is not None:
                _write(tensors[layer.key], values)
    return model if inplace else target


def _copied(function: str, value: Any) -> Any:
    """Copy a state dict; tensors that share memory (tied weights) share that of the copies."""
    try:
        return copy.deepcopy(_copyable(value, {}))
    except RecursionError as error:
        got = "mappings that are nested too deeply to be copied"
        raise ArgumentValueError(function, "model", "be a plain state dict", got) from error


def _copyable(value: Any, copies: dict[int, Any]) -> Any:
    """Put what deepcopy refuses into another form: nothing is copied yet.

    What holds one mapping twice, or itself, does so in the copy: `copies` are known by identity.
    """
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, Mapping):
        # A dict keeps its class and what it carries besides (torch's _metadata); an open .npz or a
        # read-only view becomes a plain dict.
        same = copy.copy(value) if isinstance(value, dict) else {}
        copies[id(value)] = same
        for key, item in value.items():
            same[key] = _copyable(item, copies)
        return same
    if is_torch_tensor(value):
        if not value.is_leaf:
            value = value.detach()
        info = array_info(value)
        if info is not None and info.identity is not None and _repeats(value.shape, value.stride()):
            return value.contiguous()
    return value


def _repeats(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Tell whether elements (of an expanded tensor, of overlapping windows) share memory.

    No element of an axis may come before the end of what the finer axes span: true of every view
    that slices and transposes make.
    """
    end = 0
    for step, n in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if step <= end:
            return True
        end += (n - 1) * step
    return False


def _edited(layer: Layer, edit: Edit) -> FloatArray | None:
    """Return the layer's values after `edit`, or None if they stay as they are."""
    values = layer.load().to_float64()
    if values.size == 0 or not np.isfinite(values).all():
        return None
    views = [X.data for X in matricize(layer, HostArray(values, "float64")).slices]
    edited = edit(layer, views)
    if edited is None:
        return None
    for view, matrix in zip(views, edited, strict=True):
        view[...] = matrix
    return values


def _check_writable(function: str, key: str, tensor: Any) -> None:
    strides = tensor.stride() if is_torch_tensor(tensor) else tensor.strides
    if _repeats(tensor.shape, strides):
        got = f"elements of {key!r} that share memory"
        raise ArgumentValueError(function, "model", "be writable", got, "make it contiguous")
    if not is_torch_tensor(tensor) and not tensor.flags.writeable:
        raise ArgumentValueError(function, "model", "be writable", f"{key!r}, which is not")


def _write(tensor: Any, values: FloatArray) -> None:
    if is_torch_tensor(tensor):
        torch = require_torch("an edit")
        limit = torch.finfo(tensor.dtype).max
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.clip(values, -limit, limit)))
    elif tensor.dtype.kind == "f":
        limit = float(np.finfo(tensor.dtype).max)
        tensor[...] = np.clip(values, -limit, limit)
    else:  # bfloat16, as wide as float32
        tensor[...] = values
