"""Which modules of a torch model hold a weight, and which of them are nothing but linear layers."""

from __future__ import annotations

from typing import Any

from pyspectra.weights.kinds import CONV1D_GPT2, LINEAR, module_kind

__all__ = ["holders_of", "replaceable"]

# What derives from Linear may do more, or be read by its parent, as in MultiheadAttention.
_PLAIN = {"Linear": LINEAR.name, "Conv1D": CONV1D_GPT2.name}


def _is_replaceable(module: Any) -> bool:
    """Tell whether a module is a plain linear layer with a weight of its own, nothing around it."""
    plain = _PLAIN.get(type(module).__name__)
    return (
        plain is not None
        and module_kind(module, "weight") == plain
        and module._parameters.get("weight") is not None
    )


def _holders(model: Any) -> dict[int, list[tuple[str, Any]]]:
    """Return, by the identity of each parameter, its names and the modules that hold it."""
    found: dict[int, list[tuple[str, Any]]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                key = f"{prefix}.{name}" if prefix else name
                found.setdefault(id(parameter), []).append((key, module))
    return found


def holders_of(model: Any, key: str) -> list[Any]:
    """Return the modules of a torch model that hold a parameter: several where it is tied."""
    return [module for _, module in _holders(model)[id(model.get_parameter(key))]]


def replaceable(model: Any) -> set[str]:
    """Return the keys of weights that only linear layers hold that can be replaced."""
    return {
        key
        for holders in _holders(model).values()
        if all(_is_replaceable(module) and module is not model for _, module in holders)
        for key, _ in holders
        if key.endswith(".weight")
    }
