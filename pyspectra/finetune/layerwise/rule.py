"""What a rule is, and a rule at work in a training loop.

A rule reads the table of scores, and says what becomes of each layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from pyspectra._support.arguments import check_count, shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.finetune.layerwise.scores import (
    SNR,
    LayerScore,
    checked_score,
    measured,
    recorded,
)
from pyspectra.finetune.layerwise.units import Unit, joined, units
from pyspectra.finetune.processes import Processes
from pyspectra.weights import open_weights

__all__ = ["Decision", "LayerRule", "LayerwiseScheduler", "check_rule"]


@dataclass(frozen=True)
class Decision:
    """What becomes of the layers until the next decision.

    Attributes
    ----------
    factors : mapping of str to mapping of str to float
        Key of a unit -> option of the optimizer -> what its value is multiplied with. Units that
        are not named keep the value.
    frozen : frozenset of str
        Names of the parameters that are not trained.

    Examples
    --------
    >>> from pyspectra.finetune import Decision
    >>> Decision({"fc.weight": {"lr": 0.5}}).frozen
    frozenset()
    """

    factors: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    frozen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class LayerRule(ABC):
    """A rule that goes from scores of layers to what becomes of them.

    Parameters
    ----------
    score : str or None
        What the layers are judged by, see `layer_scores`; None for a rule that needs no scores.
    every : int or None
        Calls of ``step()`` of the scheduler between two decisions; None for a single one.

    Examples
    --------
    A rule of your own has a `decide`:

    >>> from dataclasses import dataclass
    >>> import torch
    >>> from pyspectra.finetune import Decision, LayerRule, param_groups
    >>> @dataclass(frozen=True, kw_only=True)
    ... class FreezeAll(LayerRule):
    ...     def decide(self, found, scores, turn):
    ...         return Decision(frozen=frozenset(n for unit in found for n in unit.names))
    >>> model = torch.nn.Linear(2, 2)
    >>> _ = param_groups(model, None, FreezeAll())
    >>> model.bias.requires_grad
    False
    """

    score: str | None = None
    every: int | None = None

    options: ClassVar[tuple[str, ...]] = ()
    """Options of the optimizer that the rule multiplies; none for one that freezes."""

    @property
    def follows_norms(self) -> bool:
        """Whether a batch norm goes with the layer before it."""
        return True

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.score is not None:
            object.__setattr__(self, "score", checked_score(name, self.score))
        if self.every is not None:
            object.__setattr__(self, "every", check_count(name, "every", self.every))

    @abstractmethod
    def decide(
        self, found: Sequence[Unit], scores: Mapping[str, LayerScore], turn: int
    ) -> Decision:
        """Return what becomes of the units of a model, at decision number `turn`."""

    def attach(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        *,
        spectra: Any = None,
        process_group: Any = "auto",
    ) -> LayerwiseScheduler:
        """Let the rule act on a training: now, and again every `every` steps.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Of the model's parameters; any class. Its groups are split where the rule treats their
            parameters differently: attach the rule before a scheduler of learning rates is made,
            and before a saved state is loaded.
        model : torch.nn.Module
        spectra : Watch or History, optional
            Where alphas are recorded already (``Watch(..., spectra_every=...)``): the last of each
            layer counts, whichever step it is of, by the estimator ``"ww"``. By default the rule
            measures the weights itself, with its own.
        process_group : {"auto", None} or process group
            The processes that train together: the first one decides for all. As in `fisher_diag`.

        Returns
        -------
        LayerwiseScheduler
            With ``step()``, ``state_dict()`` and ``load_state_dict()``.

        Raises
        ------
        TypeError, ValueError
            If the optimizer has no parameter of the model, or its groups would have to be split
            although a scheduler knows them.
        """
        return LayerwiseScheduler(self, optimizer, model, spectra, process_group)


class LayerwiseScheduler:
    """What `LayerRule.attach` returns: it decides again every so many steps.

    A rule that multiplies an option (``lr``, ``weight_decay``) does so for the length of a step of
    the optimizer alone: between steps ``param_groups`` have the value without the factor. So any
    scheduler of learning rates goes beside it, made after it: the learning rate of a layer is the
    scheduler's times the factor. A rule that freezes sets ``requires_grad``, and takes the gradient
    of what it freezes away; moments stay.

    Parameters
    ----------
    rule : LayerRule
    optimizer : torch.optim.Optimizer
    model : torch.nn.Module
    spectra : object, optional
    process_group : object
        As in `LayerRule.attach`, which makes it.

    Notes
    -----
    Factors are numbers of Python: a CUDA graph of a step would keep those of its capture.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import TempBalance
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> layers = TempBalance(every=1).attach(optimizer, model)
    >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    >>> for epoch in range(3):
    ...     model(torch.randn(8, 64)).square().mean().backward()
    ...     optimizer.step()
    ...     cosine.step()
    ...     layers.step()
    >>> sorted(factors["lr"] for factors in layers.factors.values())
    [0.5, 1.5]
    """

    def __init__(
        self,
        rule: LayerRule,
        optimizer: Optimizer,
        model: nn.Module,
        spectra: Any = None,
        process_group: Any = "auto",
    ) -> None:
        name = type(rule).__name__
        if not isinstance(optimizer, Optimizer):
            got = f"an object of type {type(optimizer).__name__}"
            raise ArgumentTypeError(name, "optimizer", "be a torch.optim.Optimizer", got)
        if not isinstance(model, nn.Module):
            got = f"an object of type {type(model).__name__}"
            raise ArgumentTypeError(name, "model", "be a torch.nn.Module", got)
        self._rule, self._optimizer = rule, optimizer
        self._processes = Processes(name, model, process_group)
        self._model = self._processes.model
        self._spectra = _checked_spectra(name, rule, spectra)
        self._units = units(self._model, rule.follows_norms)
        self._params = dict(self._model.named_parameters())
        self._trained = {n for n, p in self._params.items() if p.requires_grad}
        self._factors: dict[str, dict[str, float]] = {}
        self._frozen: frozenset[str] = frozenset()
        self._held: list[tuple[dict[str, Any], str, Any, Any]] = []
        self._count = self._turn = 0
        mine = {p for group in optimizer.param_groups for p in group["params"]}
        if mine.isdisjoint(self._params.values()):
            raise ArgumentValueError(
                name, "optimizer", "have parameters of the model", "none of them"
            )
        self._apply(self._decided())
        if rule.options:
            self._split(name)
        self._hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._multiply()),
            optimizer.register_step_post_hook(lambda *_: self._restore()),
        ]

    # --- what users look at -----------------------------------------------------------------------

    @property
    def factors(self) -> dict[str, dict[str, float]]:
        """What each option is multiplied with, by name of the leading weight and of the option."""
        return {key: dict(options) for key, options in self._factors.items()}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the parameters that the rule does not train, in the order of the model."""
        return tuple(n for n in self._params if n in self._frozen)

    def step(self) -> None:
        """Count a step (of the optimizer, or an epoch: `every` counts these), and decide if due."""
        self._count += 1
        if self._rule.every is not None and self._count % self._rule.every == 0:
            self._turn += 1
            self._apply(self._decided())

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps and the last decision, in plain values."""
        return {
            "count": self._count,
            "turn": self._turn,
            "factors": self.factors,
            "frozen": sorted(self._frozen),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state: with its decision until the next one is due.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned.

        Raises
        ------
        ValueError
            If it is not a state of such a scheduler, or of another model. Nothing has changed then.
        """
        name = type(self._rule).__name__
        try:
            count, turn = int(state_dict["count"]), int(state_dict["turn"])
            factors = {k: dict(v) for k, v in state_dict["factors"].items()}
            frozen = frozenset(state_dict["frozen"])
        except (KeyError, TypeError, AttributeError) as error:
            requirement = "be what state_dict() returned"
            raise ArgumentValueError(name, "state_dict", requirement, shown(state_dict)) from error
        unknown = sorted((factors.keys() | frozen) - self._params.keys())
        if unknown:
            requirement, got = "name layers of the model", repr(unknown[0])
            raise ArgumentValueError(name, "state_dict", requirement, got)
        self._count, self._turn = count, turn
        self._set(factors, frozen)

    def remove(self) -> None:
        """End the rule: options are as the optimizer has them, and what it froze is trained."""
        for hook in self._hooks:
            hook.remove()
        self._restore()
        self._set({}, frozenset())

    # --- decisions --------------------------------------------------------------------------------

    def _decided(self) -> Decision:
        """Return the decision of the first process; all of them take part in measuring."""
        scores: Mapping[str, LayerScore] = {}
        if self._rule.score is not None:
            rows: Iterable[LayerScore]
            if self._spectra is None:
                rows = measured(self._model, self._rule.score)
            else:
                keys = {layer.name: layer.key for layer in open_weights(self._model).layers}
                rows = recorded(self._spectra(), keys)
            scores = joined(type(self._rule).__name__, self._model, self._units, rows)
        return self._processes.of_first(self._rule.decide(self._units, scores, self._turn))

    def _apply(self, decision: Decision) -> None:
        factors = {k: dict(v) for k, v in decision.factors.items()}
        self._set(factors, decision.frozen)

    def _set(self, factors: dict[str, dict[str, float]], frozen: frozenset[str]) -> None:
        self._factors, self._frozen = factors, frozen
        for name, p in self._params.items():
            trains = name in self._trained and name not in frozen
            if p.requires_grad != trains:
                p.requires_grad_(trains)
            if name in frozen:
                p.grad = None

    # --- groups -----------------------------------------------------------------------------------

    def _split(self, name: str) -> None:
        """Give each unit a group of its own within the groups that there are."""
        unit_of: dict[Tensor, str] = {
            self._params[n]: u.key for u in self._units for n in u.names if u.is_matrix
        }
        split = [part for g in self._optimizer.param_groups for part in _parts(g, unit_of)]
        if len(split) != len(self._optimizer.param_groups):
            if any("initial_lr" in group for group in self._optimizer.param_groups):
                raise ArgumentValueError(
                    name,
                    "optimizer",
                    "have no scheduler yet: its groups are split by layers",
                    "one with a scheduler of learning rates",
                    "attach the rule first, then make the scheduler",
                )
            self._optimizer.param_groups[:] = split
        self._keys = [unit_of.get(g["params"][0]) if g["params"] else None for g in split]

    def _multiply(self) -> None:
        # A step that raised has left its values there, if nobody has set others since.
        self._held = [held for held in self._held if held[0][held[1]] is held[3]]
        self._restore()
        if not self._rule.options:
            return
        for group, key in zip(self._optimizer.param_groups, self._keys, strict=False):
            for option, factor in self._factors.get(key or "", {}).items():
                before = group[option]
                group[option] = before * factor
                self._held.append((group, option, before, group[option]))

    def _restore(self) -> None:
        for group, option, before, _ in self._held:
            group[option] = before
        self._held.clear()


def check_rule(function: str, rule: object) -> LayerRule:
    """Return `rule`; raise if it is none.

    Raises
    ------
    ArgumentTypeError
        If it is no rule, also where it is the class of one.
    """
    if not isinstance(rule, LayerRule):
        raise ArgumentTypeError(function, "rule", "be a rule, such as TempBalance()", shown(rule))
    return rule


def _checked_spectra(
    function: str, rule: LayerRule, spectra: Any
) -> Callable[[], Iterable[Mapping[str, Any]]] | None:
    """Return what gives the recorded lines of a watch or a history, or None to measure."""
    if spectra is None:
        return None
    history: Any = spectra if hasattr(spectra, "spectra") else getattr(spectra, "history", None)
    if not hasattr(history, "spectra"):
        raise ArgumentTypeError(function, "spectra", "be a Watch or a History", shown(spectra))
    if rule.score is None or rule.score == SNR:
        requirement = f"be None: {function} does not judge by alpha"
        raise ArgumentValueError(function, "spectra", requirement, shown(spectra))
    return lambda: history.spectra


def _parts(group: dict[str, Any], unit_of: Mapping[Tensor, str]) -> Iterator[dict[str, Any]]:
    """Yield the group, in parts whose parameters are of the same unit, or of none."""
    names = group.get("param_names")
    members: dict[str | None, list[int]] = {}
    for i, p in enumerate(group["params"]):
        members.setdefault(unit_of.get(p), []).append(i)
    if len(members) < 2:
        yield group
        return
    for indices in members.values():
        part = {**group, "params": [group["params"][i] for i in indices]}
        if names is not None:
            part["param_names"] = [names[i] for i in indices]
        yield part
