"""A linear layer of two thin matrices, and modules in which it takes the place of a whole one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_flag
from pyspectra.edit import low_rank
from pyspectra.edit.compress import planned
from pyspectra.edit.holders import holders_of, replaceable
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.weights import open_weights

__all__ = ["LowRankLinear", "factorize", "load_low_rank"]

M = TypeVar("M", bound=nn.Module)


class LowRankLinear(nn.Module):
    """A linear layer whose weight is the product of two thin ones: ``y = U (D x) + b``.

    Parameters
    ----------
    in_features, out_features : int
        As of `torch.nn.Linear`.
    rank : int
        Width between the two.
    bias : bool
        Whether there is b.
    device, dtype : optional
        As of `torch.nn.Linear`.

    Attributes
    ----------
    to_rank : torch.nn.Linear
        D, shape (rank, in), without a bias.
    from_rank : torch.nn.Linear
        U, shape (out, rank), with b.

    Notes
    -----
    It takes ``rank * (in + out)`` parameters instead of ``in * out``. The state dict has
    ``to_rank.weight``, ``from_rank.weight`` and ``from_rank.bias``.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import LowRankLinear
    >>> layer = LowRankLinear(6, 4, rank=2)
    >>> layer
    LowRankLinear(
      (to_rank): Linear(in_features=6, out_features=2, bias=False)
      (from_rank): Linear(in_features=2, out_features=4, bias=True)
    )
    >>> x = torch.randn(3, 6)
    >>> torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.to_rank = nn.Linear(in_features, rank, bias=False, device=device, dtype=dtype)
        self.from_rank = nn.Linear(rank, out_features, bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``U (D x) + b``."""
        output: Tensor = self.from_rank(self.to_rank(input))
        return output

    @property
    def in_features(self) -> int:
        """Size of each input."""
        return self.to_rank.in_features

    @property
    def out_features(self) -> int:
        """Size of each output."""
        return self.from_rank.out_features

    @property
    def rank(self) -> int:
        """Width between the two."""
        return self.to_rank.out_features

    @property
    def weight(self) -> Tensor:
        """The product, shape (out, in), computed anew: models ask a layer for its type by it."""
        return self.from_rank.weight @ self.to_rank.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias b, or None."""
        return self.from_rank.bias


def factorize(
    model: M,
    ratio: float | Mapping[str, int],
    *,
    by: str | None = None,
    grams: Mapping[str, Any] | None = None,
    layers: Sequence[int | str] | int | str | None = None,
    inplace: bool = False,
) -> M:
    """Put two thin linear layers in the place of each that `pyspectra.compress` compresses.

    Parameters
    ----------
    model : torch.nn.Module
        A model.
    ratio, by, grams, layers
        As of `pyspectra.compress`.
    inplace : bool
        Change `model` instead of a copy.

    Returns
    -------
    torch.nn.Module
        A copy whose compressed layers are `LowRankLinear`; `model` itself with ``inplace=True``.
        It computes what `model` does with the weights of `pyspectra.compress`.

    Raises
    ------
    TypeError, ValueError
        As `pyspectra.compress`.

    Notes
    -----
    Both factors have the roots of the product's singular values. Biases, types, devices, modes and
    ``requires_grad`` stay; layers that share a weight share the factors. A layer whose factors
    would have no fewer entries than the weight stays whole, with a weight of that rank.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import factorize
    >>> model = torch.nn.Sequential(torch.nn.Linear(40, 60), torch.nn.ReLU())
    >>> factorize(model, 0.5)[0].rank  # 12 * (60 + 40) is half of 60 * 40
    12
    """
    if not isinstance(model, nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("factorize", "model", "be a torch.nn.Module", got)
    inplace = check_flag("factorize", "inplace", inplace)
    with called_as("factorize", model_or_path="model"):
        opened = open_weights(model)
    with opened as source:
        plan = planned("factorize", source, model, ratio, by, grams, layers)
    model = model if inplace else copy.deepcopy(model)
    for key, step in plan.items():
        weight = model.get_parameter(key).detach()
        pair = step.factors(step.layer.load().to_float64())
        if pair is None:
            continue
        B, A = pair
        if step.rank > low_rank.largest_rank(step.layer.shape):
            weight.copy_(torch.from_numpy(step.stored(B @ A)))
        else:
            halves = (torch.from_numpy(np.ascontiguousarray(X)).to(weight) for X in (A, B))
            _replace(model, key, *halves)
    return model


def _replace(model: nn.Module, key: str, A: Tensor, B: Tensor) -> None:
    """Put a `LowRankLinear` in place of the layer, and of all that share its weight."""
    holders = holders_of(model, key)
    halves: tuple[nn.Parameter, nn.Parameter] | None = None
    for old in holders:
        weight: Tensor = old.weight
        new = LowRankLinear(A.shape[1], len(B), len(A), bias=False, device="meta")
        if halves is None:
            halves = (
                nn.Parameter(A, requires_grad=weight.requires_grad),
                nn.Parameter(B, requires_grad=weight.requires_grad),
            )
        new.to_rank.weight, new.from_rank.weight = halves
        new.from_rank.bias = old.bias
        new.train(old.training)
        for parent, name in _places(model, old):
            parent._modules[name] = new


def _places(model: nn.Module, child: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield the modules that hold a module, each with the name that it has in it."""
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):
            if module is child:
                yield parent, name


def load_low_rank(model: M, state: Mapping[str, Tensor], *, strict: bool = True) -> M:
    """Load the state dict of a compressed model into one that is still whole.

    Parameters
    ----------
    model : torch.nn.Module
        The architecture before compression, with any weights. Changed in place: a linear layer of
        which the state has two factors becomes a `LowRankLinear`.
    state : mapping of str to Tensor
        State dict of what `factorize` made.
    strict : bool
        As of ``load_state_dict``: names have to agree.

    Returns
    -------
    torch.nn.Module
        `model`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or two factors do not fit a linear layer of `model`,
        which is then as it was.
    RuntimeError
        From ``load_state_dict``, if names or shapes disagree.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import factorize, load_low_rank
    >>> def network():
    ...     return torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 20))
    >>> small = factorize(network(), 0.5)
    >>> again = load_low_rank(network(), small.state_dict())
    >>> x = torch.randn(3, 40)
    >>> torch.equal(again(x), small(x))
    True
    """
    if not isinstance(model, nn.Module) or not isinstance(state, Mapping):
        name, value = ("state", state) if isinstance(model, nn.Module) else ("model", model)
        needed = "be a mapping" if name == "state" else "be a torch.nn.Module"
        got = f"an object of type {type(value).__name__}"
        raise ArgumentTypeError("load_low_rank", name, needed, got)
    strict = check_flag("load_low_rank", "strict", strict)
    known = replaceable(model)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for key, A in state.items():
        name = key.removesuffix(".to_rank.weight")
        B = state.get(f"{name}.from_rank.weight")
        if name == key or B is None or _is_low_rank(model, name):
            continue
        if f"{name}.weight" not in known:
            got = f"none called {name!r}"
            raise ArgumentValueError("load_low_rank", "model", "have its linear layers", got)
        _check_fits(model, name, A, B)
        found[name] = A, B
    for name, factors in found.items():
        if _is_low_rank(model, name):  # it shares the weight of another, which has been replaced
            continue
        weight = model.get_parameter(f"{name}.weight").detach()
        _replace(model, f"{name}.weight", *(weight.new_empty(x.shape) for x in factors))
    model.load_state_dict(state, strict=strict)
    return model


def _check_fits(model: nn.Module, name: str, A: Tensor, B: Tensor) -> None:
    """Raise ArgumentValueError unless the product of two factors has the shape of the layer."""
    shape = model.get_parameter(f"{name}.weight").shape
    is_linear = isinstance(model.get_submodule(name), nn.Linear)
    rows, cols = shape if is_linear else shape[::-1]  # the other kind is stored transposed
    if A.ndim != 2 or B.ndim != 2 or (len(B), *A.shape) != (rows, B.shape[1], cols):
        got = f"{tuple(B.shape)} and {tuple(A.shape)}"
        needed = f"have factors of a matrix of shape ({rows}, {cols}) for {name!r}"
        raise ArgumentValueError("load_low_rank", "state", needed, got)


def _is_low_rank(model: nn.Module, name: str) -> bool:
    """Tell whether it is one already: tied layers are replaced together."""
    return any(n == name and isinstance(m, LowRankLinear) for n, m in model.named_modules())
