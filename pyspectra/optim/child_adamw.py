"""Child-Tuning AdamW: the step, the gradient mask and the average of the weights in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra import ops
from pyspectra.optim import _group, _state, _tensors

__all__ = ["ChildAdamW"]

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class ChildAdamW(Optimizer):
    """AdamW that updates a child network only, with a fused moving average of the weights.

    Parameters
    ----------
    params : iterable
        Parameters, ``(name, parameter)`` pairs (``model.named_parameters()``) or groups of either.
        With names, random masks belong to the names; without, to the positions in the groups.
        Every hyper-parameter except `mask` and `max_grad_norm` may differ between groups.
    lr, betas, eps, weight_decay
        As in ``torch.optim.AdamW``. The decay is decoupled.
    mode : {None, "F", "D"}
        Which gradients are masked, before both moments. "F": each step each element is kept with
        probability `reserve_p` and divided by it; elements left out still move by their momentum.
        "D": the fixed `mask`, without a scale. None: none.
    reserve_p : float
        In (2^-17, 1]; for "F" rounded to a multiple of 2^-16.
    mask : mapping, optional
        For "D": name or parameter -> boolean array of its shape, True = trainable. Parameters that
        it leaves out train fully. It is saved with the state (packed, one bit an element).
    order : {"torch", "alicemind"}
        See Notes.
    decay_masked : bool
        For "D": does weight decay apply to the weights outside the child network too?
    ema_decay : float, optional
        Decay of the moving average of the weights; None for no average. It starts from the weights
        before the first step and is kept in float32.
    ema_warmup : {"tf", None}
        "tf": at update number n the decay is min(ema_decay, (1 + n) / (10 + n)).
    ema_every : int
        Average every so many steps; n counts averages.
    seed : int
        Of the random numbers, in [0, 2^64).
    stochastic_rounding : bool
        Round bfloat16 parameters up or down with the probability of what is cut off.
    max_grad_norm : float, optional
        Clip the norm over all gradients, as ``clip_grad_norm_`` but without writing to them.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, naming them.

    Notes
    -----
    One step, g the masked gradient, t its number:

    ``order="torch"``: p *= 1 - lr wd; m += (1 - b1)(g - m); v = b2 v + (1 - b2) g^2;
    p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps). Equals ``torch.optim.AdamW`` for p = 1.

    ``order="alicemind"``: the moments as above;
    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps); then p -= lr wd p.

    Parameters may be float32, float64, bfloat16 or float16 in host memory; moments and average are
    float32 (float64 for float64). The bits of a result depend on the arguments alone, not on
    threads, instruction set or how often a run was resumed. ``p.grad`` is never written.
    State dicts exchange with ``torch.optim.AdamW`` both ways.

    References
    ----------
    Xu et al., "Raise a Child in Large Language Model: Towards Effective and Generalizable
    Fine-tuning", EMNLP 2021, arXiv 2109.05687. Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization", ICLR 2019, arXiv 1711.05101.
    """

    # Weights as they were, while the averaged ones are in their place.
    _raw: dict[Tensor, Tensor] | None = None

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        mode: str | None = None,
        reserve_p: float = 0.3,
        mask: Mapping[Any, Any] | None = None,
        order: str = "torch",
        decay_masked: bool = True,
        ema_decay: float | None = None,
        ema_warmup: str | None = "tf",
        ema_every: int = 1,
        seed: int = 0,
        stochastic_rounding: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(
                f"ChildAdamW: 'max_grad_norm' must be None or positive, got {max_grad_norm!r}."
            )
        self.max_grad_norm = max_grad_norm
        self._masks: dict[Tensor, Tensor] = {}
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "mode": mode,
            "reserve_p": reserve_p,
            "order": order,
            "decay_masked": decay_masked,
            "ema_decay": ema_decay,
            "ema_warmup": ema_warmup,
            "ema_every": ema_every,
            "seed": seed,
            "stochastic_rounding": stochastic_rounding,
        }
        _group.check_group(defaults)
        super().__init__(cast(Any, params), defaults)
        if mask is not None:
            self._set_mask(mask)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; its hyper-parameters are checked first.

        Parameters
        ----------
        param_group : dict
            ``"params"`` and any hyper-parameters that differ from the defaults.
        """
        _group.check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _named(self) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
        for i, group in enumerate(self.param_groups):
            names = group.get("param_names")
            for j, p in enumerate(group["params"]):
                yield (f"{i}.{j}" if names is None else names[j]), p, group

    def _set_mask(self, mask: Mapping[Any, Any]) -> None:
        by_key: dict[Any, tuple[str, Tensor]] = {}
        for name, p, group in self._named():
            if group["mode"] == "D":
                by_key[name] = by_key[p] = (name, p)
        for key, value in mask.items():
            if key not in by_key:
                what = f"parameter of shape {tuple(key.shape)}" if isinstance(key, Tensor) else key
                raise ValueError(
                    f"ChildAdamW: 'mask' must name parameters of a group with mode='D', got "
                    f"{what!r}. Hint: pass model.named_parameters() to mask by name."
                )
            name, p = by_key[key]
            self._masks[p] = _tensors.pack_mask(value, p, name)

    def _init_state(self, name: str, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        dtype = _tensors.state_dtype(p)
        if "exp_avg" not in state:
            _tensors.check_param(p, name)
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(p, dtype=dtype, requires_grad=False)
            state["exp_avg_sq"] = torch.zeros_like(p, dtype=dtype, requires_grad=False)
        if group["ema_decay"] is not None and "ema" not in state:
            state["ema"] = p.detach().to(dtype, copy=True)
        if group["mode"] == "D" and "mask" not in state and p in self._masks:
            state["mask"] = self._masks[p]
        return state

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
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        work, grads = [], []
        masked = {"needed": False, "found": False}
        for name, p, group in self._named():
            if p.grad is None:
                continue
            state = self.state[p]
            if "exp_avg" not in state or len(state) < 5:
                state = self._init_state(name, p, group)
            if group["mode"] == "D":
                masked["needed"] = True
                masked["found"] |= "mask" in state
            work.append((name, p, group, state))
            grads.append(_tensors.usable_grad(p, name))
        if masked["needed"] and not masked["found"] and not self._masks:
            raise RuntimeError(
                "ChildAdamW: mode 'D' needs a mask. Hint: pass mask={name: boolean array}, or load "
                "a state dict that has one."
            )
        scale = _tensors.clip_factor(grads, self.max_grad_norm)
        options: list[Any] = []
        index: dict[tuple[int, int], tuple[int, bool]] = {}
        rows = []
        for (name, p, group, state), grad in zip(work, grads, strict=True):
            step = state["step"] + 1
            found = index.get((id(group), step))
            if found is None:
                found = index[id(group), step] = (len(options), _group.ema_updates(group, step))
                options.append(_group.step_options(group, step, scale))
            random = group["mode"] == "F" or group["stochastic_rounding"]
            key = _group.parameter_key(group["seed"], name) if random else 0
            rows.append(
                _tensors.row(
                    p,
                    grad,
                    state,
                    name,
                    ema=found[1],
                    masked=group["mode"] == "D" and "mask" in state,
                    key=key,
                    option=found[0],
                )
            )
        ops.optim_step(rows, options)
        for _, p, _, state in work:
            state["step"] += 1
            # Autograd must know: a backward pass through the old weights is an error.
            torch.autograd.graph.increment_version(p)

    # --- moving average ---------------------------------------------------------------------------

    def _averages(self) -> dict[Tensor, Tensor]:
        if all(group["ema_decay"] is None for group in self.param_groups):
            raise RuntimeError("ChildAdamW: there is no moving average. Hint: pass ema_decay.")
        return {p: s["ema"] for p, s in self.state.items() if "ema" in s}

    def _refuse_while_swapped(self, function: str) -> None:
        if self._raw is not None:
            raise RuntimeError(
                f"ChildAdamW: {function}() while the averaged weights are in place. "
                "Hint: leave the swap_ema() block first."
            )

    @contextlib.contextmanager
    def swap_ema(self) -> Iterator[None]:
        """Put the averaged weights in place for the length of a ``with`` block.

        The weights come back bit for bit, after an exception too. Parameters that have not been
        stepped keep their weights. Needs memory for one copy of the weights.

        Raises
        ------
        RuntimeError
            If there is no average, or inside another such block.
        """
        self._refuse_while_swapped("swap_ema")
        averages = self._averages()
        raw = {p: p.detach().clone() for p in averages}
        self._raw = raw
        try:
            with torch.no_grad():
                for p, ema in averages.items():
                    p.copy_(ema)
            yield
        finally:
            with torch.no_grad():
                for p, weights in raw.items():
                    p.copy_(weights)
            self._raw = None

    def ema_state_dict(self, model: torch.nn.Module) -> dict[str, Tensor]:
        """Return the model's state dict with averaged weights, in the types of the model.

        Parameters
        ----------
        model : torch.nn.Module
            The model whose parameters these are. Buffers and parameters that have no average come
            as they are.

        Returns
        -------
        dict of str to Tensor
            Averaged weights are copies; they fit ``model.load_state_dict``.
        """
        averages = self._averages()
        out: dict[str, Tensor] = {}
        for name, value in model.state_dict(keep_vars=True).items():
            if isinstance(value, Tensor) and value in averages:
                out[name] = averages[value].to(value.dtype, copy=True)
            else:
                out[name] = value.detach() if isinstance(value, Tensor) else value
        return out

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state: torch's AdamW keys, plus ``ema`` and ``mask``.

        Raises
        ------
        RuntimeError
            While the averaged weights are in place: a checkpoint written then would lose the
            weights in training.
        """
        self._refuse_while_swapped("state_dict")
        out = super().state_dict()
        # A tensor, as torch has it; inside it is an int, which costs nothing to count up.
        out["state"] = {
            key: {**s, "step": torch.tensor(float(s["step"]))} if "step" in s else s
            for key, s in out["state"].items()
        }
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of ``torch.optim.AdamW``.

        Unlike torch, moments and average keep their type for 16-bit parameters. Hyper-parameters
        that the state does not have (torch's) keep their values.

        Parameters
        ----------
        state_dict : dict
            From `state_dict`.

        Raises
        ------
        ValueError
            If it does not fit the parameters, or is of another update rule. Nothing has changed.
        """
        self._refuse_while_swapped("load_state_dict")
        loaded: list[dict[str, Any] | None] = []

        def prepare(_optimizer: Optimizer, source: dict[str, Any]) -> dict[str, Any]:
            # Hooks registered by others have run: this is the state that will be loaded.
            groups = source["param_groups"]
            if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
                return source  # torch is about to refuse it
            merged = [
                _state.merged_group(mine, theirs, self.defaults)
                for mine, theirs in zip(self.param_groups, groups, strict=True)
            ]
            ids = [k for group in groups for k in group["params"]]
            for k, (name, p, _) in zip(ids, self._named(), strict=True):
                loaded.append(_state.converted(name, p, source["state"].get(k)))
            return {**source, "param_groups": merged}

        handle = self.register_load_state_dict_pre_hook(prepare)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        # torch has cast the state to the type of the parameters: put the exact one in its place.
        for (_, p, _), state in zip(self._named(), loaded, strict=True):
            if state is not None:
                self.state[p] = state

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "max_grad_norm": self.max_grad_norm,
            "_masks": self._masks,
        }
