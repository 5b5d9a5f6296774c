"""Scores of single weights that need no data but what the model has: itself and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_count
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.choice import Predicate, chosen
from pyspectra.optim._fused import sharded

__all__ = [
    "SCORES",
    "Params",
    "WeightScore",
    "change_scores",
    "gradient_scores",
    "low_rank_scores",
    "magnitude_scores",
]

RANK = 128


Params = Predicate | Iterable[str] | None


@dataclass(frozen=True)
class WeightScore:
    """A score of single weights, of a model as it is now.

    Attributes
    ----------
    function : str
        The public function, for messages.
    of : callable
        Name, parameter and rank -> scores of the parameter's shape.
    """

    function: str
    of: Callable[[str, nn.Parameter, int], Tensor]

    def __call__(self, model: nn.Module, params: Params, rank: int = RANK) -> dict[str, Tensor]:
        """Return the scores of the parameters that are chosen, in float32.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            As the public functions say.
        """
        if not isinstance(model, nn.Module):
            got = f"an object of type {type(model).__name__}"
            raise ArgumentTypeError(self.function, "model", "be a torch.nn.Module", got)
        own = dict(model.named_parameters())
        with torch.no_grad():
            names = chosen(self.function, model, params)
            return {name: self.of(name, own[name], rank).to(torch.float32) for name in names}


def _magnitude(_name: str, p: nn.Parameter, _rank: int) -> Tensor:
    return sharded.whole(p).abs()


def _gradient(_name: str, p: nn.Parameter, _rank: int) -> Tensor:
    return torch.zeros_like(sharded.whole(p)) if p.grad is None else sharded.whole(p.grad).abs()


def _low_rank(name: str, p: nn.Parameter, rank: int) -> Tensor:
    W = sharded.whole(p).to(torch.float32)
    if W.ndim < 2:
        got = f"{name!r} of shape {tuple(p.shape)}"
        raise ArgumentValueError("low_rank_scores", "params", "name matrices", got)
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    low: Tensor = (U[..., :rank] * S[..., None, :rank]) @ V[..., :rank, :]
    return low.abs()


SCORES: Final = {
    "gradient": WeightScore("gradient_scores", _gradient),
    "low_rank": WeightScore("low_rank_scores", _low_rank),
    "magnitude": WeightScore("magnitude_scores", _magnitude),
}
"""The scores that a `ChildNetwork` computes by name."""


def magnitude_scores(model: nn.Module, params: Params = None) -> dict[str, Tensor]:
    """Return the absolute value of every weight.

    Parameters
    ----------
    model : torch.nn.Module
    params : predicate, list of str, optional
        As in `fisher_diag`: the weights inside the blocks by default.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> float32 scores of the parameter's shape, whole also where that is sharded.

    Raises
    ------
    TypeError, ValueError
        If nothing is chosen, or a name is unknown or frozen.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import magnitude_scores
    >>> model = torch.nn.Linear(3, 2)
    >>> scores = magnitude_scores(model, ["weight"])
    >>> torch.equal(scores["weight"], model.weight.abs())
    True
    """
    return SCORES["magnitude"](model, params)


def gradient_scores(model: nn.Module, params: Params = None) -> dict[str, Tensor]:
    """Return the absolute value of the gradient that every weight has now.

    Parameters
    ----------
    model : torch.nn.Module
        After a backward pass. A parameter without a gradient scores zero.
    params : predicate, list of str, optional
        As in `fisher_diag`: the weights inside the blocks by default.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> float32 scores of the parameter's shape, whole also where that is sharded.

    Raises
    ------
    TypeError, ValueError
        If nothing is chosen, or a name is unknown or frozen.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import gradient_scores
    >>> model = torch.nn.Linear(2, 1)
    >>> model(torch.tensor([[3.0, -4.0]])).sum().backward()
    >>> gradient_scores(model, ["weight"])
    {'weight': tensor([[3., 4.]])}
    """
    return SCORES["gradient"](model, params)


def change_scores(
    model: nn.Module,
    before: Mapping[str, Tensor],
    params: Params = None,
) -> dict[str, Tensor]:
    """Return how far every weight has moved.

    Parameters
    ----------
    model : torch.nn.Module
    before : mapping of str to torch.Tensor
        What the parameters were: a state dict, of copies.
    params : predicate, list of str, optional
        As in `fisher_diag`: the weights inside the blocks by default.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> float32 scores of the parameter's shape, whole also where that is sharded.

    Raises
    ------
    TypeError, ValueError
        If nothing is chosen, a name is unknown or frozen, or `before` does not have it in that
        shape.

    Examples
    --------
    >>> import copy, torch
    >>> from pyspectra.finetune import change_scores
    >>> model = torch.nn.Linear(2, 1)
    >>> before = copy.deepcopy(model.state_dict())
    >>> _ = model.weight.data.add_(0.5)
    >>> bool((change_scores(model, before, ["weight"])["weight"] > 0.49).all())
    True
    """

    def change(name: str, p: nn.Parameter, _rank: int) -> Tensor:
        old = before.get(name)
        if not isinstance(old, Tensor) or old.shape != p.shape:
            got = f"shape {tuple(old.shape)}" if isinstance(old, Tensor) else "none"
            requirement = f"hold a tensor of shape {tuple(p.shape)} for {name!r}"
            raise ArgumentValueError("change_scores", "before", requirement, got)
        return (sharded.whole(p) - sharded.whole(old).to(p.device)).abs()

    return WeightScore("change_scores", change)(model, params)


def low_rank_scores(
    model: nn.Module, params: Params = None, *, rank: int = RANK
) -> dict[str, Tensor]:
    """Return the absolute value of every weight in the best approximation of low rank.

    Parameters
    ----------
    model : torch.nn.Module
    params : predicate, list of str, optional
        As in `fisher_diag`: the weights inside the blocks by default. They have two axes or more; a
        stack of matrices is approximated matrix by matrix.
    rank : int
        Singular directions that are kept of each matrix.

    Returns
    -------
    dict of str to torch.Tensor
        Name -> float32 scores of the parameter's shape, whole also where that is sharded.

    Raises
    ------
    TypeError, ValueError
        If nothing is chosen, a name is unknown or frozen, or a parameter is no matrix.

    Notes
    -----
    Score |W_r| with W_r = sum of s_i u_i v_i over the `rank` largest singular values, in float32.

    References
    ----------
    Liu et al., "LIFT the veil for the truth: principal weights emerge after rank reduction for
    reasoning-focused supervised fine-tuning", ICML 2025, arXiv 2506.00772.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import low_rank_scores
    >>> model = torch.nn.Linear(3, 3)
    >>> _ = model.weight.data.copy_(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> low_rank_scores(model, ["weight"], rank=1)["weight"].round().diagonal()
    tensor([3., 0., 0.])
    """
    return SCORES["low_rank"](model, params, check_count("low_rank_scores", "rank", rank))
