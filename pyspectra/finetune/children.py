"""Child networks: which weights of a model are trained, by the rules of the literature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from pyspectra._support.arguments import (
    check_choice,
    check_count,
    check_flag,
    check_probability,
    shown,
)
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.select import SCOPES, masks_of
from pyspectra.finetune.weight_scores import RANK, SCORES, Params
from pyspectra.optim import ChildAdamW

__all__ = ["FISH", "GMT", "LIFT", "LT_SFT", "SIFT", "ChildNetwork", "MaskScheduler"]

Scores = Mapping[str, Tensor]

_GIVEN = "given"


@dataclass(frozen=True, kw_only=True)
class ChildNetwork:
    """Which weights are trained: how they are scored, how many, and when they are chosen anew.

    Parameters
    ----------
    score : {"gradient", "low_rank", "magnitude", "given"}
        `gradient_scores` at the step, `low_rank_scores`, `magnitude_scores`, or what the caller
        gives: Fisher information (`fisher_diag`), `change_scores`, or a function of the model.
    share : float
        Part of the weights that is trained, in (0, 1].
    scope : {"global", "tensor", "row"}
        What they compete within; see `select`.
    every : int or None
        Steps between two choices; None for a single one, at the first step.
    rank : int
        Singular directions of ``"low_rank"``.
    budget : int or None
        If given, ``budget (rows + columns)`` weights of each matrix are trained instead of a share:
        as many as LoRA of that rank has.
    keep_moments : bool
        Weights that are no longer chosen go on by their momentum; see `ChildAdamW.set_mask`.

    Notes
    -----
    Presets, to be changed with `dataclasses.replace`:

    - ``GMT``: the largest gradients of each step (arXiv 2406.15330). The published ratios vary, and
      results depend little on them; ours is one half. Momentum goes on, as where gradients are
      masked before Adam.
    - ``SIFT``: the largest gradients of the first step in each matrix, 0.8 % (arXiv 2312.11875;
      the released GLUE runs, of the matrices of attention).
    - ``FISH``: 0.5 % of all weights by Fisher information of 1024 samples (arXiv 2111.09839):
      ``fisher_diag(..., per_sample=True, max_grad_norm=None)``.
    - ``LT_SFT``: 1 % of all weights, those that a full fine-tuning has moved most
      (arXiv 2110.07560; default of the released code): `change_scores`, the old weights restored.
    - ``LIFT``: the top 5 % of each matrix after reduction to rank 128, anew every 400 steps (arXiv
      2506.00772; the released runs have ranks of 32 to 128, 10 to 400 steps, and ``budget=128``,
      without weight decay).

    Examples
    --------
    >>> import torch
    >>> from dataclasses import replace
    >>> from pyspectra.finetune import LIFT
    >>> from pyspectra.optim import ChildAdamW
    >>> model = torch.nn.Linear(20, 20)
    >>> optimizer = ChildAdamW(model.named_parameters(), mode="D", decay_masked=False)
    >>> masks = replace(LIFT, rank=2, every=10).attach(optimizer, model, params=["weight"])
    >>> before = model.weight.detach().clone()
    >>> model(torch.randn(8, 20)).square().sum().backward()
    >>> optimizer.step()
    >>> int((model.weight != before).sum())  # 5 % of 400
    20
    """

    score: str
    share: float
    scope: str = "global"
    every: int | None = None
    rank: int = RANK
    budget: int | None = None
    keep_moments: bool = False

    def __post_init__(self) -> None:
        name = "ChildNetwork"
        checked: dict[str, Any] = {
            "score": check_choice(name, "score", self.score, (*SCORES, _GIVEN)),
            "share": check_probability(name, "share", self.share),
            "scope": check_choice(name, "scope", self.scope, SCOPES),
            "rank": check_count(name, "rank", self.rank),
            "keep_moments": check_flag(name, "keep_moments", self.keep_moments),
        }
        for field in ("every", "budget"):
            value = getattr(self, field)
            checked[field] = None if value is None else check_count(name, field, value)
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    def scores(self, model: nn.Module, params: Params = None) -> dict[str, Tensor]:
        """Return the scores of the weights of a model as it is now.

        Raises
        ------
        ValueError
            If the scores are to be given.
        """
        if self.score in SCORES:
            return SCORES[self.score](model, params, self.rank)
        raise ArgumentValueError("ChildNetwork", "scores", "be given", "None")

    def masks(self, scores: Scores) -> dict[str, Tensor]:
        """Return the masks by these scores, True for what is trained.

        Parameters
        ----------
        scores : mapping of str to torch.Tensor
            As `select` takes them.

        Returns
        -------
        dict of str to torch.Tensor
            What `ChildAdamW` takes.
        """
        if self.budget is None:
            return masks_of(scores, self.share, self.scope, "top", 0, "ChildNetwork")
        out: dict[str, Tensor] = {}
        for name, score in scores.items():
            rows, columns = score.shape[-2:] if score.ndim > 1 else (1, score.numel())
            count = self.budget * (rows + columns) * (score.numel() // max(1, rows * columns))
            part = _share(min(count, score.numel()), score.numel())
            out |= masks_of({name: score}, part, "tensor", "top", 0, "ChildNetwork")
        return {name: out[name] for name in scores}

    def attach(
        self,
        optimizer: ChildAdamW,
        model: nn.Module,
        *,
        params: Params = None,
        scores: Scores | Callable[[nn.Module], Scores] | None = None,
    ) -> MaskScheduler:
        """Let the optimizer train this child network, chosen anew as often as the preset has it.

        Parameters
        ----------
        optimizer : ChildAdamW
            With ``mode="D"``, no mask needed; ``decay_masked=False`` if weights outside of the
            child network are to stand still.
        model : torch.nn.Module
        params : predicate, list of str, optional
            Which weights are masked, as in `fisher_diag`; all others are trained.
        scores : mapping or callable, optional
            The scores, where they are to be given; a callable takes the model each time.

        Returns
        -------
        MaskScheduler
            It acts before a step of the optimizer, and needs no calls. It has a state to save.

        Raises
        ------
        TypeError, ValueError
            If the optimizer masks no parameters, scores are missing, or given where the preset
            computes them.
        """
        return MaskScheduler(self, optimizer, model, params, scores)


def _share(count: int, size: int) -> float:
    """Return the share of which `select` takes `count` of `size` elements, ties aside."""
    return 1.0 if count >= size else 1.0 - (size - count - 0.5) / (size - 1)


class MaskScheduler:
    """What `ChildNetwork.attach` returns: it sets the masks of an optimizer before its steps.

    Parameters
    ----------
    child : ChildNetwork
    optimizer : ChildAdamW
    model : torch.nn.Module
    params, scores : object
        As in `ChildNetwork.attach`, which makes it.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import GMT
    >>> from pyspectra.optim import ChildAdamW
    >>> model = torch.nn.Linear(4, 4)
    >>> optimizer = ChildAdamW(model.named_parameters(), mode="D")
    >>> masks = GMT.attach(optimizer, model, params=["weight"])
    >>> model(torch.randn(8, 4)).square().sum().backward()
    >>> optimizer.step()
    >>> int(masks.masks["weight"].sum())
    8
    """

    def __init__(
        self,
        child: ChildNetwork,
        optimizer: ChildAdamW,
        model: nn.Module,
        params: Params = None,
        scores: Scores | Callable[[nn.Module], Scores] | None = None,
    ) -> None:
        if not isinstance(optimizer, ChildAdamW):
            got = f"an object of type {type(optimizer).__name__}"
            raise ArgumentTypeError("ChildNetwork", "optimizer", "be a ChildAdamW", got)
        if not isinstance(model, nn.Module):
            got = f"an object of type {type(model).__name__}"
            raise ArgumentTypeError("ChildNetwork", "model", "be a torch.nn.Module", got)
        if (scores is not None) != (child.score == _GIVEN):
            words = "be given" if scores is None else f"be None with score={child.score!r}"
            raise ArgumentValueError("ChildNetwork", "scores", words, shown(scores))
        self._child, self._optimizer, self._model = child, optimizer, model
        # A generator of names would be empty at the second choice.
        many = params is None or callable(params) or isinstance(params, str)
        self._params: Params = params if many else [*cast("Iterable[str]", params)]
        self._scores = scores
        self._count = 0
        self._masks: dict[str, Tensor] = {}
        self._hook = optimizer.register_step_pre_hook(lambda *_: self._before())

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that were set last, by name; empty before the first step of this process."""
        return dict(self._masks)

    def refresh(self) -> None:
        """Choose the child network now."""
        if self._scores is None:
            found: Scores = self._child.scores(self._model, self._params)
        else:
            found = self._scores(self._model) if callable(self._scores) else self._scores
        self._masks = self._child.masks(found)
        own = dict(self._model.named_parameters())
        self._optimizer.set_mask(
            {own.get(name, name): mask for name, mask in self._masks.items()},
            keep_moments=self._child.keep_moments,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps; the masks are in the state of the optimizer."""
        return {"count": self._count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state; the optimizer has its own, with the masks.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned.
        """
        if not isinstance(state_dict, Mapping) or "count" not in state_dict:
            requirement = "be what state_dict() returned"
            raise ArgumentValueError("ChildNetwork", "state_dict", requirement, shown(state_dict))
        self._count = check_count("ChildNetwork", "state_dict", state_dict["count"], least=0)

    def remove(self) -> None:
        """Choose no more: the masks stay as they are."""
        self._hook.remove()

    def _before(self) -> None:
        every = self._child.every
        if self._count == 0 or (every is not None and self._count % every == 0):
            self.refresh()
        self._count += 1


GMT = ChildNetwork(score="gradient", share=0.5, every=1, keep_moments=True)
SIFT = ChildNetwork(score="gradient", share=0.008, scope="tensor")
FISH = ChildNetwork(score="given", share=0.005)
LT_SFT = ChildNetwork(score="given", share=0.01)
LIFT = ChildNetwork(score="low_rank", share=0.05, scope="tensor", every=400, rank=RANK)
