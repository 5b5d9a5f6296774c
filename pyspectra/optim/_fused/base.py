"""What the fused optimizers share: the step, its state, and how states are saved and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra import ops
from pyspectra._support.arguments import check_count
from pyspectra.errors import ArgumentTypeError
from pyspectra.optim._fused import compile as graphs
from pyspectra.optim._fused import documentation, groups
from pyspectra.optim._fused import state as states
from pyspectra.optim._fused.averages import Averages, only_allocates
from pyspectra.optim._fused.device_plan import plan_class
from pyspectra.optim._fused.following import follow, most_steps
from pyspectra.optim._fused.names import plain_names
from pyspectra.optim._fused.options import OPTIONS, SharedOptions
from pyspectra.optim._fused.plan import Plan, with_grads
from pyspectra.optim._fused.rows import Entry
from pyspectra.optim._fused.saved_groups import (
    Family,
    check_layout,
    check_order,
    merged_group,
    mode_changes,
)
from pyspectra.optim._fused.tensors import check_param
from pyspectra.types import StepStatistics


def _of_whole(option: str) -> bool:
    return OPTIONS[option].of_whole


Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class FusedOptimizer(Averages):
    """An optimizer whose step is one call of the kernel over all parameters.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs or groups of either, as in torch.
    own : dict
        Options of this class, with the values that its constructor was given.
    shared : SharedOptions
        The options that every optimizer has, as far as the constructor was given them.
    """

    # Update rules of the kernel that a group can have; `_rule` picks one.
    _rules: tuple[str, ...]
    # How saved states of torch's optimizer of the same name are recognised.
    _family: Family
    # Number of steps to assume for a saved state that does not count them; None: it must count.
    _uncounted: int | None = None
    # Can the moments of a parameter that has taken steps begin at the next one?
    _moments_may_begin = False

    _masks: dict[Tensor, Tensor]  # packed masks of mode "D", until the state has them
    _plan: Plan | None = None
    _watch: groups.Watch | None = None
    # Steps until the plan was made. Parameters have counts of their own, of steps with a gradient.
    _taken = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        documentation.complete(cls)

    def __init__(self, params: Params, own: dict[str, Any], shared: SharedOptions) -> None:
        owner = type(self).__name__
        values = {**own, **groups.with_defaults(owner, shared)}
        whole = {k: groups.check_option(owner, k, v) for k, v in values.items() if _of_whole(k)}
        self.max_grad_norm: float | None = whole["max_grad_norm"]
        self._masks = {}
        self._takes_statistics: bool = whole["statistics"]
        self._statistics: Mapping[str, StepStatistics] = {}
        self._handle = graphs.register(self)
        defaults = {k: v for k, v in values.items() if not _of_whole(k)}
        super().__init__(cast(Any, params), groups.checked_group(owner, defaults))

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # torch.amp.GradScaler then leaves unscaling and skipping to `step`, which needs both in
        # order to clip. Without clipping it unscales by itself, as Lightning's clipping wants it.
        return self.max_grad_norm is not None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its options are checked first.

        Parameters
        ----------
        param_group : dict
            ``"params"`` and any options that differ from the defaults.

        Raises
        ------
        ValueError, TypeError
            If an option is out of range, or one that this optimizer would not obey.
        """
        self._refuse_while_swapped("add_param_group")
        owner = type(self).__name__
        groups.check_names(owner, param_group, self.defaults)
        checked = groups.checked_group(owner, {**self.defaults, **param_group})
        super().add_param_group({key: checked[key] for key in param_group})

    def _rule(self, group: Mapping[str, Any]) -> str:
        """Name of the kernel's update rule."""
        raise NotImplementedError

    def _rule_of(self, group: Mapping[str, Any]) -> ops.OptimRule:
        return ops.OPTIM_RULES[self._rule(group)]

    @property
    def _moments(self) -> tuple[str, ...]:
        """Keys of the moments of all rules of this class."""
        keys = (key for rule in self._rules for key in ops.OPTIM_RULES[rule].moments)
        return tuple(dict.fromkeys(keys))

    def _given_names(self) -> list[str]:
        return [
            name
            for i, group in enumerate(self.param_groups)
            for name in group.get("param_names")
            or (f"{i}.{j}" for j in range(len(group["params"])))
        ]

    def _named(self) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
        names = iter(plain_names(self._given_names()))
        for group in self.param_groups:
            for p in group["params"]:
                yield next(names), p, group

    # --- the step ---------------------------------------------------------------------------------

    # torch declares two overloads of step(); one signature serves both.
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.

        Returns
        -------
        object
            What the closure returned, or None.

        Raises
        ------
        RuntimeError
            While the averaged weights are in place, or in mode "D" without any mask.
        DeviceError, TypeError, ValueError
            If the kernel cannot take a tensor; nothing has moved then.
        """
        self._refuse_while_swapped("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            graphs.step(self)
            return loss
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        params = with_grads(self.param_groups)
        if not params and not self.state:
            return
        if self._watch is None:
            self._watch = groups.Watch(type(self).__name__, self.defaults)
        self._watch.check(self.param_groups)
        # Set by torch.amp.GradScaler for the length of a step.
        found_inf = getattr(self, "found_inf", None)
        if not self.state:
            if found_inf is not None and float(found_inf) != 0:
                return
            if only_allocates(self):
                self._entries()
                return
        self._buffers = {}  # of the average that was
        if params:
            self._run(params, found_inf)
        elif found_inf is None or not float(found_inf):
            self._taken, self._plan = self._steps_taken() + 1, None
            follow(self.param_groups, self.state, self._taken)

    def _run(self, params: list[Tensor], found_inf: Tensor | None) -> None:
        plan = self._plan
        if plan is None or not plan.holds(self.param_groups, params, self.state):
            owner = type(self).__name__
            self._taken, self._plan = self._steps_taken(), None
            make = plan_class(owner, params)
            plan = make(owner, self.param_groups, self._entries(), self._taken)
            self._plan = plan
        statistics = plan.run(
            found_inf=found_inf,
            loss_scale=getattr(self, "grad_scale", None),
            max_grad_norm=self.max_grad_norm,
            statistics=self._takes_statistics,
        )
        if statistics is None:
            return
        self._statistics = statistics
        if len(params) < sum(len(group["params"]) for group in self.param_groups):
            follow(self.param_groups, self.state, plan.taken(), found_inf)

    def _steps_taken(self) -> int:
        """Return how many steps this optimizer has taken: averages count these."""
        planned = 0 if self._plan is None else int(self._plan.taken())
        return max(self._taken, planned, most_steps(self.state.values()))

    def _entries(self) -> list[Entry]:
        entries = []
        for name, p, group in self._named():
            if p.grad is None:
                continue
            rule = self._rule_of(group)
            state: dict[str, Any] = self.state[p]
            if "step" not in state:
                check_param(type(self).__name__, p, name)
            # The count is read here only where a moment begins: on a device that waits.
            start = int(state.get("step", 0)) + 1 if states.is_new(rule, state) else 1
            states.initialise(rule, group, p, state, self._masks.get(p))
            compact = bool(group.get("compact")) and "mask" in state
            used = states.in_table(rule, group, p, state)
            entries.append(Entry(name, p, group, state, rule, used, compact, start))
        child = any(e.group.get("mode") == "D" for e in entries)
        # The masks of all parameters count: one with a mask may have no gradient at this step.
        if child and not self._masks and not any("mask" in s for s in self.state.values()):
            raise RuntimeError(
                f"{type(self).__name__}: mode 'D' needs a mask. Hint: pass mask={{name: boolean "
                "array}, or load a state dict that has one."
            )
        return entries

    def statistics(self) -> dict[str, StepStatistics]:
        """Return what the last step did, by parameter name.

        Returns
        -------
        dict of str to StepStatistics
            Empty before the first step.

        Raises
        ------
        RuntimeError
            If the optimizer was made without ``statistics=True``.
        """
        if not self._takes_statistics:
            raise RuntimeError(
                f"{type(self).__name__}: there are no statistics. Hint: pass statistics=True."
            )
        return dict(self._statistics)

    def state_bytes(self) -> int:
        """Return the memory of the state (moments, average, master, masks) in bytes."""
        return states.state_bytes(self.state.values())

    # --- saved states -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state: torch's keys, plus ``ema``, ``mask`` and ``master``.

        The state of a DTensor consists of DTensors of its shape and layout, the mask a boolean one,
        so that ``torch.distributed.checkpoint`` shards it.

        Raises
        ------
        RuntimeError
            While the averaged weights are in place: a checkpoint written then would lose the
            weights in training.
        """
        self._refuse_while_swapped("state_dict")
        out = super().state_dict()
        if "betas" in self.defaults:  # torch's word for it; SGD has one kind of decay only
            for group in out["param_groups"]:
                group["decoupled_weight_decay"] = self._family.decoupled
        taken = self._steps_taken()
        if taken > most_steps(self.state.values()):
            out["steps"] = taken  # no parameter has had a gradient at each of them
        ids = [k for group in out["param_groups"] for k in group["params"]]
        for k, (_, p, _) in zip(ids, self._named(), strict=True):
            if k in out["state"]:
                out["state"][k] = states.saved(p, out["state"][k])
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's optimizer of the same name.

        As in torch, options that the state has (``mode`` and ``ema_decay`` among them) and
        masks take the place of those given to the constructor; to change them, set them in
        ``param_groups`` afterwards. Those that the state does not have (torch's) keep their values.
        A state that switches masking on or off, or to the other mode, is loaded with a warning.
        Unlike torch, moments and average keep their type for 16-bit parameters.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned.

        Raises
        ------
        ValueError, TypeError
            If it does not fit the parameters, has their names in another order, or is of another
            update rule. Nothing has changed.
        """
        self._refuse_while_swapped("load_state_dict")
        owner = type(self).__name__
        if not isinstance(state_dict, dict):
            raise ArgumentTypeError(
                owner,
                "state_dict",
                "be a dict",
                f"an object of type {type(state_dict).__name__}",
                "torch.load reads one from a file",
            )
        loaded: list[dict[str, Any] | None] = []
        switched: list[str] = []
        taken = check_count(owner, "steps", state_dict.get("steps", 0), least=0)

        def prepare(_optimizer: Optimizer, source: dict[str, Any]) -> dict[str, Any]:
            # Hooks registered by others have run: this is the state that will be loaded.
            check_layout(owner, source)
            theirs = source["param_groups"]
            if [len(g["params"]) for g in theirs] != [len(g["params"]) for g in self.param_groups]:
                return source  # torch is about to refuse it
            check_order(owner, self.param_groups, theirs)
            merged = [
                merged_group(owner, mine, saved, self.defaults, self._family)
                for mine, saved in zip(self.param_groups, theirs, strict=True)
            ]
            loaded.extend(self._loaded_states(merged, source["state"]))
            switched.extend(mode_changes(self.param_groups, merged))
            return {**source, "param_groups": merged}

        handle = self.register_load_state_dict_pre_hook(prepare)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        self._taken, self._plan = taken, None  # a plan would keep the memory of the old state
        self._buffers = {}
        # torch has cast the state to the type of the parameters: put the exact one in its place.
        for (_, p, _), state in zip(self._named(), loaded, strict=True):
            if state is not None:
                self.state[p] = state
        if switched:
            warnings.warn(
                f"{owner}: the state that was loaded changes {switched[0]}. Hint: set it in "
                "param_groups afterwards to go on as the optimizer was made.",
                UserWarning,
                stacklevel=2,
            )

    def _loaded_states(
        self, merged: list[dict[str, Any]], saved: Mapping[Any, Any]
    ) -> Iterator[dict[str, Any] | None]:
        """Yield the saved states of the parameters, under the options of `merged` groups."""
        ids = [(k, group) for group in merged for k in group["params"]]
        for (k, group), (name, p, _) in zip(ids, self._named(), strict=True):
            to = states.Loading(
                owner=type(self).__name__,
                name=name,
                p=p,
                moments=self._moments,
                needed=() if self._moments_may_begin else self._rule_of(group).moments,
                compact=bool(group.get("compact")),
                mask=self._masks.get(p),
                uncounted=self._uncounted,
            )
            yield states.loaded(to, saved.get(k))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_handle" not in self.__dict__:  # a copy
            self._handle = graphs.register(self)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_swapped("copy")
        return {
            **super().__getstate__(),
            "max_grad_norm": self.max_grad_norm,
            "_masks": self._masks,
            "_taken": self._steps_taken(),
            "_takes_statistics": self._takes_statistics,
            "_statistics": dict(self._statistics),
        }
