"""A moving average of the weights beside any optimizer of torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra import ops
from pyspectra._support.arguments import check_choice, check_count, check_flag, check_number
from pyspectra.optim._fused import averages
from pyspectra.optim._fused import ema_arguments as arguments
from pyspectra.optim._fused.following import follow_all, laid_out, wide

__all__ = ["EMA"]


class EMA(averages.Swapping):
    """Exponential moving average of weights, updated after each step of an optimizer.

    Where the optimizer is one of this package, its own ``ema_decay`` does the same within the step,
    with less memory traffic. One rule holds for both: an average follows its parameter at every
    step of the optimizer, with or without a gradient.

    Parameters
    ----------
    model_or_params : torch.nn.Module or iterable
        A model, parameters, or ``(name, parameter)`` pairs; all floating-point. A parameter of a
        model that is frozen is its own average until it is not frozen any more.
    decay : float
        Decay of the average, in [0, 1].
    warmup : {"tf", "power", None}
        How the decay d(n) grows over the update number n, from 0: see Notes.
    every : int
        Average every so many optimizer steps; n counts averages.
    power, inv_gamma : float, optional
        Positive numbers for ``warmup="power"`` alone, by default 2/3 and 1. A power of 2/3 suits
        runs of a million steps and more, 3/4 suits shorter ones.
    buffers : bool
        Average the floating-point buffers of the model too: the running statistics of batch
        normalisation. Otherwise those of the model are used with the averaged weights, or what
        `update_bn` finds.

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
        buffers: bool = False,
    ) -> None:
        self.decay = check_number("EMA", "decay", decay, least=0.0, most=1.0)
        self.warmup = check_choice("EMA", "warmup", warmup, list(ops.EMA_WARMUPS))
        self.every = check_count("EMA", "every", every)
        self.power = arguments.of_power_warmup("power", power, 2.0 / 3.0, warmup)
        self.inv_gamma = arguments.of_power_warmup("inv_gamma", inv_gamma, 1.0, warmup)
        averaged_buffers = check_flag("EMA", "buffers", buffers)
        self._params = arguments.named(model_or_params)
        whole = isinstance(model_or_params, torch.nn.Module)
        self._model = model_or_params if whole else None
        # A frozen parameter of a model is its own average, and needs no memory for one.
        self._shadow = {k: wide(p) for k, p in self._params.items() if p.requires_grad or not whole}
        self._own_buffers = arguments.buffers_of(model_or_params) if averaged_buffers else {}
        self._buffer_shadow = {k: wide(b) for k, b in self._own_buffers.items()}
        self._steps = [0]  # of each optimizer
        self._counts = True  # the step that is being taken
        self._handles: list[Any] = []
        self._optimizers: list[Optimizer] = []

    # --- beside an optimizer ----------------------------------------------------------------------

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> EMA:
        """Update after each step of `optimizer`, until `detach`.

        The averages begin at the weights before the first step, wherever those come from.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Any that moves at least one of the parameters; a wrapper of accelerate or Lightning too.
        *others : torch.optim.Optimizer
            Further ones. A step of each averages the parameters that it moves, and counts its own
            steps; parameters that no optimizer has go with the first.

        Returns
        -------
        EMA
            This object.

        Raises
        ------
        RuntimeError
            If it is attached already.
        TypeError, ValueError
            If one is no optimizer of torch, or moves none of the parameters.
        """
        optimizers = arguments.moving((optimizer, *others), self._params)
        if self._handles:
            raise RuntimeError("EMA.attach: already attached. Hint: detach() first.")
        self._optimizers = optimizers
        self._steps = _counts(self._steps, len(optimizers))
        for k, each in enumerate(optimizers):
            self._handles += [
                each.register_step_pre_hook(functools.partial(self._before_step, k)),
                each.register_step_post_hook(functools.partial(self._after_step, k)),
                each.register_state_dict_pre_hook(self._before_state_dict),
            ]
        return self

    def detach(self) -> None:
        """Leave the optimizer alone from now on; the averages stay."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers = [], []

    def _of_optimizer(self, k: int) -> Mapping[str, Tensor]:
        """Return the parameters that a step of an optimizer averages."""
        if len(self._optimizers) < 2:
            return self._params
        moved = [
            {id(p) for g in each.param_groups for p in g["params"]} for each in self._optimizers
        ]
        others = set[int]().union(*moved[1:])
        return {
            name: p
            for name, p in self._params.items()
            if (id(p) in moved[k] if k else id(p) not in others)
        }

    def _before_step(self, k: int, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._refuse_while_swapped("optimizer.step")
        self._counts = not averages.only_allocates(optimizer)
        if not self._counts:
            return
        if self._steps[k] == 0:
            self._begin(self._of_optimizer(k), with_buffers=k == 0)
        self._track()

    def _track(self) -> None:
        """Begin to average parameters that have been frozen until now."""
        if len(self._shadow) < len(self._params):
            for name, p in self._params.items():
                if p.requires_grad and name not in self._shadow:
                    self._shadow[name] = wide(p)

    def _begin(self, params: Mapping[str, Tensor], with_buffers: bool) -> None:
        """Let averages be the weights of now."""
        for name, p in params.items():
            if name in self._shadow:
                self._shadow[name] = wide(p)
        if with_buffers:
            self._buffer_shadow = {name: wide(b) for name, b in self._own_buffers.items()}

    def _restart(self) -> None:
        self._buffers = {}
        self._begin(self._params, with_buffers=True)
        self._steps = [0] * len(self._steps)

    def _before_state_dict(self, _optimizer: Any) -> None:
        self._refuse_while_swapped("optimizer.state_dict")

    def _after_step(self, k: int, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        # A GradScaler does not call step() on overflow, except where the optimizer skips by itself:
        # then it finds this for the length of the call.
        found_inf = getattr(optimizer, "found_inf", None)
        if self._counts and (found_inf is None or not float(found_inf)):
            self._update(k, self._of_optimizer(k))

    def decay_at(self, n: int) -> float:
        """Decay at update number `n`, counted from 0."""
        return averages.ema_decay_at(
            self.decay, self.warmup, n, power=self.power, inv_gamma=self.inv_gamma
        )

    def update(self) -> None:
        """Count one optimizer step, and average if it is a multiple of `every`.

        `attach` calls it by itself, and looks at the weights before a step too: without it a layer
        that is unfrozen is averaged from the first update on.

        Raises
        ------
        RuntimeError
            While the averages are in place.
        """
        self._refuse_while_swapped("update")
        self._track()
        for k in range(max(1, len(self._optimizers))):
            self._update(k, self._of_optimizer(k))

    def _update(self, k: int, params: Mapping[str, Tensor]) -> None:
        self._buffers = {}  # of the averages that were
        self._steps[k] += 1
        if self._steps[k] % self.every:
            return
        weight = 1.0 - self.decay_at(self._steps[k] // self.every - 1)
        follow_all(self._shadow, params, weight)
        if k == 0:
            follow_all(self._buffer_shadow, self._own_buffers, weight)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_while_swapped("copy")
        # A copy is attached to nothing.
        return {**self.__dict__, "_handles": [], "_optimizers": [], "_buffers": {}, "_model": None}

    # --- the averages -----------------------------------------------------------------------------

    def _averages(self) -> dict[Tensor, Tensor]:
        begun = {
            name: p
            for k in range(max(1, len(self._optimizers)))
            if self._steps[k]
            for name, p in self._of_optimizer(k).items()
        }  # the others are their own average
        found = {p: self._shadow[name] for name, p in begun.items() if name in self._shadow}
        if self._steps[0]:
            found.update((b, self._buffer_shadow[name]) for name, b in self._own_buffers.items())
        return found

    def _moved(self) -> set[Tensor]:
        return {*self._params.values()}

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
            It fits ``model.load_state_dict``. Frozen parameters without an average are no copies.

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or another object than the one in training.
        """
        return averages.averaged_state_dict("EMA", model, self._in_place(), self._moved())

    def update_bn(
        self, loader: Iterable[Any], model: torch.nn.Module | None = None, *, device: Any = None
    ) -> None:
        """Take the statistics of batch normalisation again, with the averaged weights.

        `swap` puts them in place too, and `ema_state_dict` has them, until the next update. The
        statistics of the model itself stay.

        Parameters
        ----------
        loader : iterable
            Batches, of which a list's or tuple's first part is what the model takes.
        model : torch.nn.Module, optional
            The one in training; default: the one that this was made from (copies need it).
        device : torch.device, optional
            Where batches are sent.

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or `loader` has no batch.
        RuntimeError
            Inside a block of `swap`.

        Examples
        --------
        >>> import torch
        >>> from pyspectra.optim import EMA
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        >>> ema = EMA(model, decay=0.999)
        >>> ema.update_bn([torch.randn(8, 3)])
        """
        own = averages.check_module("EMA.update_bn", self._model if model is None else model)
        self._update_bn(loader, own, device)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state: ``steps``, the optimizer steps seen, and ``shadow``, the averages.

        Beside several optimizers ``steps`` is a list. ``frozen`` names parameters that have been
        frozen so far, and ``buffers`` has averaged buffers, if there are any. The weights in
        training are not in it: save the model's state dict beside it, and both are restored.

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
        steps = self._steps[0] if len(self._steps) == 1 else [*self._steps]
        state: dict[str, Any] = {"steps": steps, "shadow": dict(self._shadow)}
        frozen = [name for name in self._params if name not in self._shadow]
        if frozen:
            state["frozen"] = frozen
        if self._own_buffers:
            state["buffers"] = dict(self._buffer_shadow)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state; the hyper-parameters stay those of the constructor.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned, over parameters of the same names and shapes; prefixes of
            ``torch.compile`` and ``DistributedDataParallel`` do not count. A parameter that was
            frozen then is its own average until the next step.

        Raises
        ------
        ValueError, TypeError
            If it does not fit the parameters. Nothing has changed.
        RuntimeError
            While the averages are in place.
        """
        self._refuse_while_swapped("load_state_dict")
        state = arguments.plain_state(
            "EMA.load_state_dict", state_dict, self._params, self._own_buffers
        )
        self._steps = _counts(state["steps"], len(self._optimizers) or len(state["steps"]))
        self._buffers = {}
        self._shadow = {
            name: laid_out(state["shadow"][name], p)
            for name, p in self._params.items()
            if name in state["shadow"]
        }
        self._buffer_shadow = {
            name: laid_out(state["buffers"][name], b) if name in state["buffers"] else wide(b)
            for name, b in self._own_buffers.items()
        }


def _counts(steps: list[int], n: int) -> list[int]:
    """Return the counts of n optimizers; those that are not known are the first's."""
    return (steps + steps[:1] * n)[:n]
