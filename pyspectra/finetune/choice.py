"""Which parameters are scored: by default the weights inside the blocks of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.blocks import block_weights
from pyspectra.optim._fused.names import plain_names

__all__ = ["Predicate", "chosen"]

Predicate = Callable[[str, nn.Parameter], bool]


def chosen(function: str, model: nn.Module, params: Predicate | Iterable[str] | None) -> list[str]:
    """Return the names of the parameters that a caller chose: by default the weights of the blocks.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there are none, or a name is unknown or of a frozen parameter.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if params is None:
        names = block_weights(model)
        got = (
            "None, which means the weights inside numbered blocks (entries of layers, h, blocks or "
            f"a ModuleList), of which {type(model).__name__} has none that are trained"
        )
    elif callable(params):
        names = [name for name, p in trained.items() if params(name, p)]
        got = "a predicate that chose none"
    else:
        if isinstance(params, str) or not isinstance(params, Iterable):
            raise ArgumentTypeError(
                function, "params", "be a predicate or a list of names", repr(params)
            )
        names = list(dict.fromkeys(params))
        got = "an empty list"
    if not names:
        raise ArgumentValueError(
            function,
            "params",
            "name at least one parameter that requires a gradient",
            got,
            "pass params=lambda name, p: p.ndim == 2, or names from model.named_parameters()",
        )
    given = _as_given(trained)
    for name in names:
        if name not in given:
            raise ArgumentValueError(
                function,
                "params",
                "name parameters of the model that require a gradient",
                repr(name),
                "they are the names of model.named_parameters()",
            )
    return [given[name] for name in names]


def _as_given(trained: Iterable[str]) -> dict[str, str]:
    """Map the names of a model, and those of the plain one in a wrapper, to the former."""
    names = list(trained)
    return {
        **dict(zip(plain_names(names), names, strict=True)),
        **dict(zip(names, names, strict=True)),
    }
