"""torch modules: the weights of a live model, with the kind that its layer type tells."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from pyspectra._arrays import HostArray, array_info, as_host, raw_array
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats.quantised_module import partners
from pyspectra.weights.formats.quiet import computed_weight, derived_names
from pyspectra.weights.kinds import module_kind
from pyspectra.weights.layer import Held
from pyspectra.weights.parts import GRU_GATES, LSTM_GATES, NO_PARTS
from pyspectra.weights.skip import Skip, array_skip

__all__ = ["read"]


def _part_names(module: Any, name: str) -> tuple[str, ...] | None:
    """Names of the gates that a recurrent weight stacks; None where the type tells nothing."""
    nn = sys.modules["torch"].nn
    if name.startswith("weight_hr"):
        return NO_PARTS  # a projection of the outputs, not a gate
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return LSTM_GATES
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return GRU_GATES
    return NO_PARTS if isinstance(module, (nn.RNN, nn.RNNCell)) else None


def _value(module: Any, name: str) -> Any:
    """Return the tensor that the module computes with, parametrizations applied."""
    own = module._parameters
    return own[name] if name in own else computed_weight(module, name)


def _load(module: Any, name: str, key: str) -> HostArray:
    return as_host(_value(module, name), function="Layer.load", argument=key)


def _raw(module: Any, name: str) -> npt.NDArray[Any]:
    return raw_array(_value(module, name))


def _load_partner(module: Any, name: str, key: str) -> HostArray:
    return as_host(_partner(module, name, key), function="Layer.load", argument=key)


def _raw_partner(module: Any, name: str, key: str) -> npt.NDArray[Any]:
    return raw_array(_partner(module, name, key))


def _partner(module: Any, name: str, key: str) -> Any:
    return dict(partners(module, name))[key]


def _partner_entry(dot: str, module: Any, name: str, own: str, value: Any) -> TensorEntry:
    info = array_info(value)
    assert info is not None
    load = Held(functools.partial(_load_partner, module, name, own))
    raw = Held(functools.partial(_raw_partner, module, name, own))
    return TensorEntry(
        dot + own,
        info.shape,
        info.dtype,
        load if info.problem is None else None,
        identity=info.identity,
        problem=Skip("buffer"),
        raw=raw,
    )


def _entry(dot: str, module: Any, name: str, value: Any, identity: Any) -> TensorEntry:
    key = dot + name
    info = array_info(value)
    if info is None:
        problem = Skip("not_a_tensor", {"type": type(value).__name__})
        return TensorEntry(key, None, "none", None, problem=problem)
    return TensorEntry(
        key,
        info.shape,
        info.dtype,
        Held(functools.partial(_load, module, name, key)) if info.problem is None else None,
        module_kind(module, name),
        identity or info.identity,
        array_skip(info.problem),
        _part_names(module, name),
        raw=Held(functools.partial(_raw, module, name))
        if array_skip(info.problem) is None
        else None,
    )


def _module_entries(prefix: str, module: Any) -> Iterator[TensorEntry]:
    dot = f"{prefix}." if prefix else ""
    if type(module).__module__.startswith("torch.ao.nn.quantized") and hasattr(module, "weight"):
        problem = Skip("quantised_layer", {"type": type(module).__name__})
        yield TensorEntry(f"{dot}weight", None, "quantised", None, problem=problem)
        return
    for name in derived_names(module):
        # Computed afresh, so that its address says nothing: the owner does.
        yield _entry(dot, module, name, _value(module, name), ("derived", id(module), name))
    for name, value in module._parameters.items():
        if value is not None:
            yield _entry(dot, module, name, value, None)
            for own, beside in partners(module, name):
                yield _partner_entry(dot, module, name, own, beside)
    transient: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    for name, value in module._buffers.items():
        if value is not None and name not in transient:
            info = array_info(value)
            shape, dtype = (None, "none") if info is None else (info.shape, info.dtype)
            yield TensorEntry(dot + name, shape, dtype, None, problem=Skip("buffer"))


def read(model: Any) -> Contents:
    """List the parameters of a module.

    Parameters
    ----------
    model : torch.nn.Module
        On any device, in any mode; neither is changed, nor anything else, at any moment.
        Parametrized weights are listed as the layer computes with them in evaluation mode.

    Returns
    -------
    Contents
        Parameters in the order of ``model.state_dict()``, module by module. Shared modules are
        listed under every name, and recognised as shared.
    """
    entries = [
        entry
        for prefix, module in model.named_modules(remove_duplicate=False)
        for entry in _module_entries(prefix, module)
    ]
    return Contents("torch_module", entries)
