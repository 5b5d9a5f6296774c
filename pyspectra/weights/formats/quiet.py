"""Weights that a module computes from other parameters, computed without touching the module.

Spectral normalisation advances its power iteration whenever its weight is computed in training
mode, and whatever else computes a weight may keep count of something. Looking at a model must not
change it: not for good, and not for a moment either, in which another thread could see it or an
interrupt could leave it so. So what computes is a copy, with buffers of its own and in evaluation
mode; the model's flags, buffers and attributes are only read.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import sys
from collections import OrderedDict
from typing import Any, Final

__all__ = ["computed_weight", "derived_names"]

_CONTAINERS: Final = (list, dict, set, OrderedDict)


def derived_names(module: Any) -> list[str]:
    """Names of weights that a module computes from other parameters."""
    names = list(getattr(module, "parametrizations", {}))
    names += [name for name in map(_hook_target, _hooks(module)) if name is not None]
    return names


def computed_weight(module: Any, name: str) -> Any:
    """Return the tensor that a module computes with, where that is none of its parameters.

    Parameters
    ----------
    module : torch.nn.Module
        It is read, and stays as it is at every moment.
    name : str
        One of its `derived_names`.

    Returns
    -------
    torch.Tensor
        As it is in evaluation mode: parametrizations, pruning masks and the older weight and
        spectral normalisation are applied, which leave a plain attribute that is stale between
        an optimizer step and the next forward pass. In the parameters' own precision, whatever
        the caller casts to.
    """
    with sys.modules["torch"].no_grad(), _without_autocast(module):
        if name in getattr(module, "parametrizations", {}):
            return _quiet_copy(module.parametrizations[name], {})()
        hook = next((hook for hook in _hooks(module) if _hook_target(hook) == name), None)
        if hook is None:
            return getattr(module, name)
        if not type(hook).__module__.startswith("torch."):  # nobody knows what it does
            module, hook = _quiet_copy(module, {}), copy.copy(hook)
        if hasattr(hook, "apply_mask"):
            return hook.apply_mask(module)
        if type(hook).__name__ == "SpectralNorm":
            return hook.compute_weight(module, do_power_iteration=False)
        return hook.compute_weight(module)


def _without_autocast(module: Any) -> contextlib.AbstractContextManager[Any]:
    """Turn torch's autocast off, which belongs to a thread: others that read have none."""
    torch = sys.modules["torch"]
    tensors = itertools.chain(module.parameters(), module.buffers())
    modes = contextlib.ExitStack()
    for device in sorted({tensor.device.type for tensor in tensors}):
        if torch.amp.is_autocast_available(device):
            modes.enter_context(torch.autocast(device, enabled=False))
    return modes


def _hooks(module: Any) -> list[Any]:
    return list(getattr(module, "_forward_pre_hooks", {}).values())


def _hook_target(hook: Any) -> str | None:
    """Name of the weight that a forward hook recomputes, if it is of the kinds that do."""
    if hasattr(hook, "compute_weight"):
        return getattr(hook, "name", None)
    if hasattr(hook, "apply_mask"):
        return getattr(hook, "_tensor_name", None)
    return None


def _quiet_copy(module: Any, copies: dict[int, Any]) -> Any:
    """Copy a module, and those in it: parameters are shared, buffers and attributes are not."""
    torch = sys.modules["torch"]
    if isinstance(module, torch.jit.ScriptModule):  # its state is out of reach
        return module
    if id(module) in copies:
        return copies[id(module)]
    copied = copies[id(module)] = object.__new__(type(module))
    state = {name: _own(value) for name, value in vars(module).items()}
    state["_parameters"] = dict(module._parameters)
    state["_buffers"] = {name: _own(buffer) for name, buffer in module._buffers.items()}
    state["_modules"] = {
        name: None if inner is None else _quiet_copy(inner, copies)
        for name, inner in module._modules.items()
    }
    state["training"] = False
    vars(copied).update(state)
    return copied


def _own(value: Any) -> Any:
    """Copy what a forward pass might change in place."""
    if isinstance(value, sys.modules["torch"].Tensor):
        return value.detach().clone()
    return copy.copy(value) if type(value) in _CONTAINERS else value
