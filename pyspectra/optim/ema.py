"""A moving average of the weights beside any optimizer of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra import ops
from pyspectra._support.arguments import check_choice, check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused import averages, sharded
from pyspectra.optim._fused.tensors import state_dtype

__all__ = ["EMA", "decay_from_half_life"]


def decay_from_half_life(half_life: float, *, every: float = 1) -> float:
    """Decay of the average whose weights of the past halve every `half_life`.

    Parameters
    ----------
    half_life : float
        Half-life in optimizer steps (or samples, or tokens: the unit of `every`).
    every : float
        Units between two updates of the average: 1, or ``ema_every``, or the batch size where the
        half-life counts samples.

    Returns
    -------
    float
        ``2^(-every / half_life)``, for ``decay`` of `EMA` and ``ema_decay`` of the optimizers.

    Raises
    ------
    ValueError, TypeError
        If an argument is not a positive number.

    References
    ----------
    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR 2024,
    arXiv 2312.02696, section 3.

    Examples
    --------
    >>> from pyspectra.optim import decay_from_half_life
    >>> decay_from_half_life(1)
    0.5
    >>> round(decay_from_half_life(1000), 5)
    0.99931
    """
    half_life = check_number("decay_from_half_life", "half_life", half_life, above=0.0)
    every = check_number("decay_from_half_life", "every", every, above=0.0)
    return float(2.0 ** (-every / half_life))


class EMA(averages.Swapping):
    """Exponential moving average of weights, updated after each step of an optimizer.

    Where the optimizer is one of this package, its own ``ema_decay`` does the same within the step,
    with less memory traffic; only that a parameter which has no gradient at a step is averaged here
    and left out there.

    Parameters
    ----------
    model_or_params : torch.nn.Module or iterable
        A model (its floating-point parameters that require gradients now), parameters, or
        ``(name, parameter)`` pairs. The average starts from their present values.
    decay : float
        Decay of the average, in [0, 1].
    warmup : {"tf", "power", None}
        How the decay d(n) grows over the update number n, from 0: see Notes.
    every : int
        Average every so many optimizer steps; n counts averages.
    power, inv_gamma : float, optional
        Positive numbers for ``warmup="power"`` alone, by default 2/3 and 1. A power of 2/3 suits
        runs of a million steps and more, 3/4 suits shorter ones.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    Notes
    -----
    ``average <- average - (1 - d(n)) (average - weight)`` with

    - ``"tf"``: d(n) = min(decay, (1 + n) / (10 + n)), TensorFlow's ``ExponentialMovingAverage``
      with ``num_updates``;
    - ``"power"``: d(n) = min(decay, 1 - (1 + n / inv_gamma)^-power), ``EMAWarmup`` of k-diffusion;
    - None: d(n) = decay.

    Averages are float32 (float64 for float64 parameters): in bfloat16 an average of decay 0.9999
    stands still. They are updated once per optimizer step, however many micro-batches that has; a
    step that a ``GradScaler`` skips does not count.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import EMA
    >>> model = torch.nn.Linear(3, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> ema = EMA(model, decay=0.999).attach(optimizer)
    >>> model(torch.ones(4, 3)).square().sum().backward()
    >>> optimizer.step()
    >>> with ema.swap():
    ...     outputs = model(torch.ones(4, 3))
    """

    _block = "swap"

    def __init__(
        self,
        model_or_params: torch.nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        decay: float = 0.9999,
        warmup: str | None = "tf",
        every: int = 1,
        *,
        power: float | None = None,
        inv_gamma: float | None = None,
    ) -> None:
        self.decay = check_number("EMA", "decay", decay, least=0.0, most=1.0)
        self.warmup = check_choice("EMA", "warmup", warmup, list(ops.EMA_WARMUPS))
        self.every = check_count("EMA", "every", every)
        self.power = _of_power_warmup("power", power, 2.0 / 3.0, warmup)
        self.inv_gamma = _of_power_warmup("inv_gamma", inv_gamma, 1.0, warmup)
        self._params = _named(model_or_params)
        self._shadow = {
            name: p.detach().to(state_dtype(p), copy=True) for name, p in self._params.items()
        }
        self._steps = 0
        self._counts = True  # the step that is being taken
        self._handles: list[Any] = []

    # --- beside an optimizer ----------------------------------------------------------------------

    def attach(self, optimizer: Optimizer) -> EMA:
        """Update after each step of `optimizer`, until `detach`.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Any that moves at least one of the parameters.

        Returns
        -------
        EMA
            This object.

        Raises
        ------
        RuntimeError
            If it is attached already.
        TypeError, ValueError
            If `optimizer` is no optimizer of torch, or moves none of the parameters.
        """
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(
                "EMA.attach",
                "optimizer",
                "be a torch.optim.Optimizer",
                f"an object of type {type(optimizer).__name__}",
            )
        if self._handles:
            raise RuntimeError("EMA.attach: already attached. Hint: detach() first.")
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in moved for p in self._params.values()):
            raise ArgumentValueError(
                "EMA.attach",
                "optimizer",
                "move at least one of the averaged parameters",
                "none",
                "make EMA and optimizer from the same model object",
            )
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_pre_hook(self._before_state_dict),
        ]
        return self

    def detach(self) -> None:
        """Leave the optimizer alone from now on; the averages stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._refuse_while_swapped("optimizer.step")
        self._counts = not averages.only_allocates(optimizer)

    def _before_state_dict(self, _optimizer: Any) -> None:
        self._refuse_while_swapped("optimizer.state_dict")

    def _after_step(self, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        # A GradScaler does not call step() on overflow, except where the optimizer skips by itself:
        # then it finds this for the length of the call.
        found_inf = getattr(optimizer, "found_inf", None)
        if self._counts and (found_inf is None or not float(found_inf)):
            self.update()

    def decay_at(self, n: int) -> float:
        """Decay at update number `n`, counted from 0."""
        return averages.ema_decay_at(
            self.decay, self.warmup, n, power=self.power, inv_gamma=self.inv_gamma
        )

    def update(self) -> None:
        """Count one optimizer step, and average if it is a multiple of `every`.

        `attach` calls it by itself.

        Raises
        ------
        RuntimeError
            While the averages are in place.
        """
        self._refuse_while_swapped("update")
        self._steps += 1
        if self._steps % self.every:
            return
        decay = self.decay_at(self._steps // self.every - 1)
        shadows, weights = [], []
        with torch.no_grad():
            for name, p in self._params.items():
                average = self._shadow[name]
                if average.device != p.device:  # the model has moved
                    average = self._shadow[name] = average.to(p.device)
                shadow, weight = sharded.local(average), sharded.local(p.detach())
                if shadow.dtype is weight.dtype:
                    shadows.append(shadow)
                    weights.append(weight)
                else:  # one at a time: a wide copy of all weights could be too much
                    shadow.lerp_(weight.to(shadow.dtype), 1.0 - decay)
            if shadows:
                torch._foreach_lerp_(shadows, weights, 1.0 - decay)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_swapped("copy")
        return {**self.__dict__, "_handles": []}  # a copy is attached to nothing

    # --- the averages -----------------------------------------------------------------------------

    def _averages(self) -> dict[Tensor, Tensor]:
        return {p: self._shadow[name] for name, p in self._params.items()}

    def swap(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights in place for the length of a ``with`` block.

        The weights come back bit for bit, after an exception too. Needs memory for one copy of
        the weights.

        Raises
        ------
        RuntimeError
            Inside another such block.
        """
        return self._swapping()

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

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or another object than the one in training.
        """
        own = self._averages()
        return averages.averaged_state_dict("EMA", model, own, own)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state: ``steps``, the optimizer steps seen, and ``shadow``, the averages.

        The weights in training are not in it: save the model's state dict beside it, and both are
        restored.

        Returns
        -------
        dict
            ``torch.load(weights_only=True)`` reads it. The tensors are not copies.

        Raises
        ------
        RuntimeError
            While the averages are in place: the model saved beside it would lose the weights in
            training.
        """
        self._refuse_while_swapped("state_dict")
        return {"steps": self._steps, "shadow": dict(self._shadow)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state; the hyper-parameters stay those of the constructor.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned, over parameters of the same names and shapes.

        Raises
        ------
        ValueError, TypeError
            If it does not fit the parameters. Nothing has changed.
        RuntimeError
            While the averages are in place.
        """
        self._refuse_while_swapped("load_state_dict")
        averages.check_shadow("EMA.load_state_dict", state_dict, self._params)
        shadow = state_dict["shadow"]
        self._steps = state_dict["steps"]
        self._shadow = {
            name: sharded.laid_out(shadow[name].detach().to(p.device, state_dtype(p), copy=True), p)
            for name, p in self._params.items()
        }


def _of_power_warmup(name: str, value: float | None, default: float, warmup: str | None) -> float:
    """Return a parameter of ``warmup="power"``, which no other warm-up has."""
    if value is None:
        return default
    number = check_number("EMA", name, value, above=0.0)
    if warmup != "power":
        raise ArgumentValueError("EMA", name, "come with warmup='power'", f"warmup={warmup!r}")
    return number


def _named(model_or_params: Any) -> dict[str, Tensor]:
    """Names and parameters, checked."""
    params: dict[str, Tensor]
    if isinstance(model_or_params, torch.nn.Module):
        params = {
            name: p
            for name, p in model_or_params.named_parameters()
            if p.requires_grad and p.is_floating_point()
        }
        got = f"a {type(model_or_params).__name__} without any"
    else:
        if isinstance(model_or_params, Tensor) or not isinstance(model_or_params, Iterable):
            raise ArgumentTypeError(
                "EMA",
                "model_or_params",
                "be a module or an iterable of parameters",
                f"an object of type {type(model_or_params).__name__}",
            )
        params, seen = {}, set[int]()
        for i, item in enumerate(model_or_params):
            name, p = item if isinstance(item, tuple) else (str(i), item)
            if not isinstance(p, Tensor) or not p.is_floating_point():
                what = p.dtype if isinstance(p, Tensor) else f"an object of type {type(p).__name__}"
                raise ArgumentTypeError(
                    "EMA", "model_or_params", "hold floating-point tensors", f"{what} for {name!r}"
                )
            if name in params or id(p) in seen:
                raise ArgumentValueError(
                    "EMA", "model_or_params", "hold each parameter once", f"{name!r} twice"
                )
            params[name] = p
            seen.add(id(p))
        got = "none"
    if not params:
        raise ArgumentValueError("EMA", "model_or_params", "have parameters to average", got)
    return params
