"""What the fused optimizers share: the step, its state, and how states are saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra import ops
from pyspectra.optim._fused import compile as _compile
from pyspectra.optim._fused import group as _group
from pyspectra.optim._fused import state as _state
from pyspectra.optim._fused import tensors as _tensors
from pyspectra.optim._fused.averages import Averages, only_allocates
from pyspectra.optim._fused.device_plan import plan_class
from pyspectra.optim._fused.plan import Entry, Plan, with_grads
from pyspectra.types import StepStatistics

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class FusedOptimizer(Averages):
    """An optimizer whose step is one call of the kernel over all parameters.

    Parameters
    ----------
    params : iterable
        As in torch.
    defaults : dict
        Hyper-parameters of a group.
    max_grad_norm : float or None
        See `ChildAdamW`.
    statistics : bool
        See `ChildAdamW`.
    """

    # Keys of the state that the update rule reads and writes, first moment first.
    _moments: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    # Does weight decay leave the gradient alone? What a saved state of torch says of itself.
    _decoupled = True

    _masks: dict[Tensor, Tensor]  # packed, of mode "D", until the state has them
    _plan: Plan | None = None

    def __init__(
        self,
        params: Params,
        defaults: dict[str, Any],
        *,
        max_grad_norm: float | None,
        statistics: bool,
    ) -> None:
        owner = type(self).__name__
        _group.check_whole(owner, max_grad_norm, statistics)
        _group.check_group(owner, defaults)
        self.max_grad_norm = max_grad_norm
        self._masks = {}
        self._takes_statistics = statistics
        self._statistics: Mapping[str, StepStatistics] = {}
        self._handle = _compile.register(self)
        super().__init__(cast(Any, params), defaults)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # torch.amp.GradScaler then leaves unscaling and skipping to `step`, which needs both in
        # order to clip. Without clipping it unscales by itself, as Lightning's clipping wants it.
        return self.max_grad_norm is not None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its hyper-parameters are checked first.

        Parameters
        ----------
        param_group : dict
            ``"params"`` and any hyper-parameters that differ from the defaults.
        """
        self._refuse_while_swapped("add_param_group")
        _group.check_group(type(self).__name__, {**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _rule(self, group: Mapping[str, Any]) -> str:
        """Name of the kernel's update rule."""
        raise NotImplementedError

    def _moments_of(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Keys of the moments that a step of this group needs."""
        return ops.OPTIM_RULES[self._rule(group)].moments

    def _given_names(self) -> list[str]:
        return [
            name
            for i, group in enumerate(self.param_groups)
            for name in group.get("param_names")
            or (f"{i}.{j}" for j in range(len(group["params"])))
        ]

    def _named(self) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
        names = iter(_group.plain_names(self._given_names()))
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
            For tensors that the kernel cannot take, before anything has moved.
        """
        self._refuse_while_swapped("step")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            _compile.step(self)
            return loss
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        params = with_grads(self.param_groups)
        if not params:
            return
        # Set by torch.amp.GradScaler for the length of a step.
        found_inf = getattr(self, "found_inf", None)
        if not self.state:
            if found_inf is not None and float(found_inf) != 0:
                return
            if only_allocates(self):
                self._entries()
                return
        plan = self._plan
        if plan is None or not plan.holds(self.param_groups, params, self.state):
            owner = type(self).__name__
            self._plan = None
            plan = self._plan = plan_class(owner, params)(owner, self.param_groups, self._entries())
        statistics = plan.run(
            found_inf=found_inf,
            loss_scale=getattr(self, "grad_scale", None),
            max_grad_norm=self.max_grad_norm,
            statistics=self._takes_statistics,
        )
        if statistics is not None:
            self._statistics = statistics

    def _entries(self) -> list[Entry]:
        entries = []
        for name, p, group in self._named():
            if p.grad is None:
                continue
            moments = self._moments_of(group)
            state = self._init_state(name, p, group, moments)
            compact = bool(group.get("compact")) and "mask" in state
            entries.append(Entry(name, p, group, state, self._rule(group), moments, compact))
        child = any(e.group.get("mode") == "D" for e in entries)
        # Of all parameters: those with a mask may have no gradient this time.
        if child and not self._masks and not any("mask" in s for s in self.state.values()):
            raise RuntimeError(
                f"{type(self).__name__}: mode 'D' needs a mask. Hint: pass mask={{name: boolean "
                "array}, or load a state dict that has one."
            )
        return entries

    def _init_state(
        self, name: str, p: Tensor, group: Mapping[str, Any], moments: tuple[str, ...]
    ) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        dtype = _tensors.state_dtype(p)
        if "step" not in state:
            _tensors.check_param(type(self).__name__, p, name)
            state["step"] = 0
        mask = state.get("mask", self._masks.get(p)) if group.get("mode") == "D" else None
        for key in moments:
            if key not in state and mask is not None and group.get("compact"):
                state[key] = torch.zeros(_tensors.count_ones(mask), dtype=dtype, device=p.device)
            elif key not in state:
                state[key] = torch.zeros_like(p, dtype=dtype, requires_grad=False)
        copies = {
            "ema": group["ema_decay"] is not None,
            "master": group["master_weights"] and p.dtype in _tensors.NARROW,
        }
        for key, wanted in copies.items():
            if wanted and (key not in state or state["step"] == 0):
                # Before the first step the weights of now count, whatever made the state.
                state[key] = p.detach().to(dtype, copy=True)
        if mask is not None:
            state["mask"] = mask
        return state

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
        tensors = (x for state in self.state.values() for x in state.values())
        return sum(x.nbytes for x in tensors if isinstance(x, Tensor))

    # --- saved states -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state: torch's keys, plus ``ema``, ``mask`` and ``master``.

        Of a DTensor all of it is DTensors of its shape and layout, the mask a boolean one, so that
        ``torch.distributed.checkpoint`` shards it.

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
                group["decoupled_weight_decay"] = self._decoupled
        ids = [k for group in out["param_groups"] for k in group["params"]]
        for k, (_, p, _) in zip(ids, self._named(), strict=True):
            if k in out["state"]:
                out["state"][k] = _state.saved(p, out["state"][k], self._moments)
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of torch's optimizer of the same name.

        As in torch, hyper-parameters that the state has (``mode`` and ``ema_decay`` among them) and
        masks take the place of those given to the constructor; to change them, set them in
        ``param_groups`` afterwards. Those that the state does not have (torch's) keep their values.
        Unlike torch, moments and average keep their type for 16-bit parameters.

        Parameters
        ----------
        state_dict : dict
            From `state_dict`.

        Raises
        ------
        ValueError, TypeError
            If it does not fit the parameters, has their names in another order, or is of another
            update rule. Nothing has changed.
        """
        self._refuse_while_swapped("load_state_dict")
        owner = type(self).__name__
        if not isinstance(state_dict, dict):
            raise TypeError(
                f"{owner}: 'state_dict' must be a dict, got an object of type "
                f"{type(state_dict).__name__}. Hint: torch.load reads one from a file."
            )
        loaded: list[dict[str, Any] | None] = []

        def prepare(_optimizer: Optimizer, source: dict[str, Any]) -> dict[str, Any]:
            # Hooks registered by others have run: this is the state that will be loaded.
            _state.check_layout(owner, source)
            groups = source["param_groups"]
            if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
                return source  # torch is about to refuse it
            _state.check_order(owner, self.param_groups, groups)
            merged = [
                _state.merged_group(owner, mine, theirs, self.defaults, self._decoupled)
                for mine, theirs in zip(self.param_groups, groups, strict=True)
            ]
            ids = [(k, group) for group in merged for k in group["params"]]
            for (k, group), (name, p, _) in zip(ids, self._named(), strict=True):
                loaded.append(
                    _state.converted(
                        owner,
                        name,
                        p,
                        source["state"].get(k),
                        moments=self._moments,
                        needed=self._moments_of(group),
                        compact=bool(group.get("compact")),
                        mask=self._masks.get(p),
                    )
                )
            return {**source, "param_groups": merged}

        handle = self.register_load_state_dict_pre_hook(prepare)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        self._plan = None  # it would keep the memory of the old state
        # torch has cast the state to the type of the parameters: put the exact one in its place.
        for (_, p, _), state in zip(self._named(), loaded, strict=True):
            if state is not None:
                self.state[p] = state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_handle" not in self.__dict__:  # a copy
            self._handle = _compile.register(self)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_swapped("copy")
        return {
            **super().__getstate__(),
            "max_grad_norm": self.max_grad_norm,
            "_masks": self._masks,
            "_takes_statistics": self._takes_statistics,
            "_statistics": dict(self._statistics),
        }
