"""Lottery tickets: iterative magnitude pruning with rewinding, on the masked optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import check_choice, check_flag, check_number, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.choice import Predicate, chosen
from pyspectra.finetune.layerwise.scores import ALPHA, measured
from pyspectra.finetune.select import masks_of
from pyspectra.optim import ChildAdamW
from pyspectra.optim._fused import sharded

__all__ = ["LotteryTicket", "PruningRound"]


@dataclass(frozen=True)
class PruningRound:
    """What one round of pruning did.

    Attributes
    ----------
    sparsity : float
        Share of the weights that is zero after it.
    alpha_before, alpha_after : mapping of str to float
        Tail exponents of the trained weights, before and after the smallest became zero, by name of
        the parameter; NaN where there is no fit. Empty if they were not asked for.

    Examples
    --------
    >>> from pyspectra.finetune import PruningRound
    >>> PruningRound(0.2).alpha_after
    {}
    """

    sparsity: float
    alpha_before: Mapping[str, float] = field(default_factory=dict)
    alpha_after: Mapping[str, float] = field(default_factory=dict)


class LotteryTicket:
    """Find a small network inside a large one: train, prune the smallest weights, rewind, repeat.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : ChildAdamW
        With ``mode="D"``; no mask is needed.
    params : predicate, list of str, optional
        Which weights are pruned: a function of name and parameter, or names. By default all
        matrices and convolutions but embeddings.
    scope : {"global", "tensor"}
        What the weights compete within: all tensors together, or each.

    Raises
    ------
    TypeError, ValueError
        If the optimizer masks no parameters, or nothing is chosen.

    Notes
    -----
    `record` keeps weights, buffers and the state of the optimizer, at the start or after k steps.
    `prune` takes the weights of smallest magnitude away from those that are left, puts everything
    back to what was recorded, and sets what was pruned to zero: the weights, their moments, their
    average and their float32 masters. Zero they stay, exactly: no step moves a masked weight, and
    decay leaves zero where it is. Schedulers of learning rates are the caller's to start again.

    References
    ----------
    Frankle, Carbin, "The lottery ticket hypothesis", ICLR 2019, arXiv 1803.03635; Frankle et al.,
    "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020, arXiv 1912.05671
    (rewinding to step k).

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import LotteryTicket
    >>> from pyspectra.optim import ChildAdamW
    >>> model = torch.nn.Linear(8, 8)
    >>> optimizer = ChildAdamW(model.named_parameters(), mode="D")
    >>> ticket = LotteryTicket(model, optimizer)
    >>> ticket.record()
    >>> for _ in range(2):
    ...     for step in range(5):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(16, 8)).square().mean().backward()
    ...         optimizer.step()
    ...     _ = ticket.prune(0.5)
    >>> int((model.weight != 0).sum()), [r.sparsity for r in ticket.rounds]
    (16, [0.5, 0.75])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: ChildAdamW,
        *,
        params: Predicate | Iterable[str] | None = None,
        scope: str = "global",
    ) -> None:
        name = "LotteryTicket"
        if not isinstance(model, nn.Module):
            got = f"an object of type {type(model).__name__}"
            raise ArgumentTypeError(name, "model", "be a torch.nn.Module", got)
        if not isinstance(optimizer, ChildAdamW):
            got = f"an object of type {type(optimizer).__name__}"
            raise ArgumentTypeError(name, "optimizer", "be a ChildAdamW", got)
        self._scope = check_choice(name, "scope", scope, ("global", "tensor"))
        self._model, self._optimizer = model, optimizer
        tables = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}

        def matrices(_: str, p: nn.Parameter) -> bool:
            return p.ndim > 1 and p not in tables

        self._names = chosen(name, model, matrices if params is None else params)
        own = dict(model.named_parameters())
        self._params = {n: own[n] for n in self._names}
        self._masks = {
            n: torch.ones(p.shape, dtype=torch.bool, device=sharded.local(p).device)
            for n, p in self._params.items()
        }
        optimizer.set_mask(self._by_parameter())
        self._rounds: list[PruningRound] = []
        self._recorded: tuple[dict[str, Any], dict[str, Any]] | None = None

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks by name, True for what is left; what another `ChildAdamW` takes."""
        return dict(self._masks)

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        left = sum(int(mask.sum()) for mask in self._masks.values())
        return 1.0 - left / sum(mask.numel() for mask in self._masks.values())

    @property
    def rounds(self) -> tuple[PruningRound, ...]:
        """What each call of `prune` did."""
        return tuple(self._rounds)

    def record(self) -> None:
        """Keep weights, buffers and optimizer as they are now: what `prune` goes back to."""
        state = {k: copy.deepcopy(v) for k, v in self._model.state_dict().items()}
        self._recorded = state, copy.deepcopy(self._optimizer.state_dict())

    def prune(self, share: float, *, rewind: bool = True, alphas: bool = False) -> PruningRound:
        """Set the smallest of the weights that are left to zero, and go back to the record.

        Parameters
        ----------
        share : float
            Of the weights that are left, in (0, 1): 0.2 in the papers.
        rewind : bool
            False goes on from the weights as they are, without those that were pruned.
        alphas : bool
            Measure the spectra of the trained weights, before and after.

        Returns
        -------
        PruningRound
            What was done; `rounds` has all of them.

        Raises
        ------
        TypeError, ValueError
            If an argument is of the wrong kind or range.
        RuntimeError
            If nothing was recorded, and `rewind` asks for it.
        """
        share = check_number("LotteryTicket", "share", share, above=0.0, below=1.0)
        rewind = check_flag("LotteryTicket", "rewind", rewind)
        alphas = check_flag("LotteryTicket", "alphas", alphas)
        if rewind and self._recorded is None:
            raise RuntimeError(
                "LotteryTicket: there is nothing to rewind to. Hint: call record() before training."
            )
        before = self._alphas() if alphas else {}
        self._masks = self._smaller(share)
        self._zero()
        after = self._alphas() if alphas else {}
        if rewind:
            self._rewind()
        else:
            self._optimizer.set_mask(self._by_parameter())
            self._zero()
        self._rounds.append(PruningRound(self.sparsity, before, after))
        return self._rounds[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, the record and the rounds, to be saved beside model and optimizer."""
        model, optimizer = self._recorded or (None, None)
        return {
            "masks": self.masks,
            "model": model,
            "optimizer": optimizer,
            "rounds": [
                {
                    "sparsity": r.sparsity,
                    "alpha_before": dict(r.alpha_before),
                    "alpha_after": dict(r.alpha_after),
                }
                for r in self._rounds
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state; load those of model and optimizer too.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned.

        Raises
        ------
        ValueError
            If it is not of these parameters.
        """
        masks = state_dict.get("masks") if isinstance(state_dict, Mapping) else None
        if not isinstance(masks, Mapping) or masks.keys() != self._masks.keys():
            requirement = "be what state_dict() returned for these parameters"
            raise ArgumentValueError("LotteryTicket", "state_dict", requirement, shown(state_dict))
        self._masks = {n: m.to(self._masks[n].device) for n, m in masks.items()}
        model, optimizer = state_dict["model"], state_dict["optimizer"]
        self._recorded = None if model is None else (model, optimizer)
        self._rounds = [PruningRound(**r) for r in state_dict["rounds"]]
        # Right after a rewind to the first step, the optimizer has no state that could hold them.
        self._optimizer.set_mask(self._by_parameter())

    # --- how --------------------------------------------------------------------------------------

    def _by_parameter(self) -> dict[Any, Tensor]:
        return {self._params[n]: mask for n, mask in self._masks.items()}

    def _alphas(self) -> dict[str, float]:
        rows = {row.key: row.value for row in measured(self._model, ALPHA)}
        return {n: rows[n] for n in self._names if n in rows}

    @torch.no_grad()
    def _smaller(self, share: float) -> dict[str, Tensor]:
        """Return the masks of the weights that are left after a round."""
        # What is gone competes with nothing: a weight that is left may be zero, too.
        scores = {
            n: sharded.whole(p).detach().abs().float().masked_fill(~self._masks[n], -1.0)
            for n, p in self._params.items()
        }
        if self._scope == "tensor":
            out: dict[str, Tensor] = {}
            for n, score in scores.items():
                out |= self._kept({n: score}, share)
            return out
        return self._kept(scores, share)

    def _kept(self, scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        size = sum(score.numel() for score in scores.values())
        left = sum(int(self._masks[n].sum()) for n in scores)
        count = max(1, round((1.0 - share) * left))
        part = 1.0 if count >= size else 1.0 - (size - count - 0.5) / (size - 1)
        masks = masks_of(scores, part, "global", "top", 0, "LotteryTicket")
        return {n: mask & self._masks[n] for n, mask in masks.items()}

    @torch.no_grad()
    def _zero(self) -> None:
        """Set weights, averages and masters outside of the masks to zero."""
        for n, p in self._params.items():
            mask = sharded.part(self._masks[n], p) if sharded.is_sharded(p) else self._masks[n]
            state = self._optimizer.state.get(p, {})
            for x in (p, state.get("ema"), state.get("master")):
                if isinstance(x, Tensor):
                    own = sharded.local(x)
                    own.masked_fill_(~cast(Tensor, mask).to(own.device), 0.0)

    def _rewind(self) -> None:
        assert self._recorded is not None
        model, optimizer = self._recorded
        self._model.load_state_dict(model)
        self._optimizer.load_state_dict(copy.deepcopy(optimizer))
        self._optimizer.set_mask(self._by_parameter())
        self._zero()
