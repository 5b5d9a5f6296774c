"""Moving averages of weights: swapping them in, and writing them out as a state dict."""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.optim._fused import sharded
from pyspectra.optim._fused.batch_norm import batch_statistics
from pyspectra.optim._fused.wrappers import extend_accelerate


def ema_decay_at(
    decay: float, warmup: str | None, n: int, *, power: float = 2.0 / 3.0, inv_gamma: float = 1.0
) -> float:
    """Decay of the moving average at its update number `n`, counted from 0.

    Notes
    -----
    ``"tf"``: d(n) = min(decay, (1 + n) / (10 + n)), TensorFlow's
    ``ExponentialMovingAverage(num_updates=n)``. ``"power"``: d(n) = min(decay,
    1 - (1 + n / inv_gamma)^-power), ``EMAWarmup`` of k-diffusion. None: d(n) = decay.
    """
    # csrc/optim/scalars.inl.hpp has the kernel's (a test compares the two): torch.compile cannot
    # trace into that one.
    if warmup == "tf":
        return min(decay, (1.0 + n) / (10.0 + n))
    if warmup == "power":
        return min(decay, 1.0 - math.pow(1.0 + n / inv_gamma, -power))
    return decay


@contextlib.contextmanager
def in_place(averages: Mapping[Tensor, Tensor]) -> Iterator[None]:
    """Put averages in the place of their parameters for the length of a ``with`` block.

    The weights come back bit for bit, after an exception too. Needs memory for one copy of them.
    """
    raw = {p: p.detach().clone() for p in averages}
    try:
        with torch.no_grad():
            for p, average in averages.items():
                p.copy_(average)
        yield
    finally:
        with torch.no_grad():
            for p, weights in raw.items():
                p.copy_(weights)


def averaged_state_dict(
    owner: str,
    model: torch.nn.Module,
    averages: Mapping[Tensor, Tensor],
    moved: Collection[Tensor],
) -> dict[str, Tensor]:
    """Return the model's state dict with averages, in the types of the model.

    Buffers and parameters that have no average come as they are. All are copies, except parameters
    that are frozen and have no average: those may be the bulk of a model, and do not change.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module, or has none of the parameters `moved`.
    """
    check_module(owner, model)
    values = model.state_dict(keep_vars=True)
    if not any(isinstance(value, Tensor) and value in moved for value in values.values()):
        raise ArgumentValueError(
            owner,
            "model",
            "be the one that the optimizer moves",
            f"a {type(model).__name__} none of whose parameters has an average",
            "a copy or a reloaded model has other parameters",
        )
    out: dict[str, Tensor] = {}
    copies: dict[Tensor, Tensor] = {}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            out[name] = value
            continue
        if value not in copies:  # tied weights stay tied
            frozen = isinstance(value, torch.nn.Parameter) and not value.requires_grad
            own = averages.get(value, value).detach()
            copies[value] = own.to(value.dtype, copy=value in averages or not frozen)
        out[name] = copies[value]
    return out


def check_module(owner: str, model: Any) -> torch.nn.Module:
    """Return the model; refuse one that is no module."""
    if not isinstance(model, torch.nn.Module):
        raise ArgumentTypeError(
            owner, "model", "be a torch.nn.Module", f"an object of type {type(model).__name__}"
        )
    return model


def load_file(path: Path) -> Any:
    """Load what ``torch.save`` has written, onto the host; nothing in it is executed.

    Raises
    ------
    FormatError
        If it is no such file, or a broken one.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        # torch's own message advises to let the file execute code.
        raise FormatError(f"{path}: is not a readable file of torch.save.") from error


def only_allocates(optimizer: Optimizer) -> bool:
    """Tell whether the step that is about to be taken is there to make the state and nothing else.

    Distributed checkpointing makes a state to load into, or to save, by a first step with zero
    gradients at a learning rate of zero. It must not count: the next step would draw other masks,
    and the average would move towards weights that are about to be replaced.
    """
    groups = optimizer.param_groups
    if optimizer.state or any(group.get("lr") is None or float(group["lr"]) for group in groups):
        return False
    grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    if not grads or any(grad.layout is not torch.strided for grad in grads):
        return False
    # The sum is over all processes, so that they come to the same answer.
    return sharded.total((g, float(sharded.local(g).count_nonzero())) for g in grads) == 0


class Swapping:
    """What can put averages in the place of the weights in training, in one block at a time."""

    _swapped = False
    _block: ClassVar[str]  # the method whose block that is
    # Statistics of batch normalisation under the averages of now: see `_update_bn`.
    _buffers: Mapping[Tensor, Tensor] = MappingProxyType({})

    def _averages(self) -> dict[Tensor, Tensor]:
        raise NotImplementedError

    def _moved(self) -> set[Tensor]:
        """Return the parameters that can have an average."""
        raise NotImplementedError

    def _in_place(self) -> dict[Tensor, Tensor]:
        """Return what takes the place of parameters and buffers."""
        return {**self._averages(), **self._buffers}

    def _restart(self) -> None:
        """Let the averages start anew, from the weights of now."""
        raise NotImplementedError

    def _update_bn(self, loader: Iterable[Any], model: torch.nn.Module, device: Any) -> None:
        self._buffers = {}
        with self._swapping():
            statistics = batch_statistics(type(self).__name__, loader, model, device)
        self._buffers = statistics

    def _refuse_while_swapped(self, function: str) -> None:
        if self._swapped:
            raise RuntimeError(
                f"{type(self).__name__}: {function}() while the averaged weights are in place. "
                f"Hint: leave the {self._block}() block first."
            )

    @contextlib.contextmanager
    def _swapping(self) -> Iterator[None]:
        self._refuse_while_swapped(self._block)
        averages = self._in_place()
        self._swapped = True
        try:
            with in_place(averages):
                yield
        finally:
            self._swapped = False


_OF_AVERAGES = ("swap_ema", "ema_state_dict", "update_bn")


class Averages(Swapping, Optimizer):
    """Access to the ``ema`` entries of the state."""

    _block = "swap_ema"

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        extend_accelerate(_OF_AVERAGES)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as torch has it."""
        extend_accelerate(_OF_AVERAGES)  # accelerate asks for it when it wraps an optimizer
        return super().state_dict()

    def _averages(self) -> dict[Tensor, Tensor]:
        if all(group["ema_decay"] is None for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: there is no moving average. Hint: pass ema_decay, or set "
                "it in the groups after loading a state that has none."
            )
        return {p: s["ema"] for p, s in self.state.items() if "ema" in s}

    def _moved(self) -> set[Tensor]:
        return {p for group in self.param_groups for p in group["params"]}

    def _restart(self) -> None:
        self._buffers = {}
        for p, state in self.state.items():
            if "ema" in state:
                state["ema"].copy_(state["master"] if "master" in state else p.detach())

    def swap_ema(self) -> contextlib.AbstractContextManager[None]:
        """Put the averaged weights in place for the length of a ``with`` block.

        The weights come back bit for bit, after an exception too. Parameters that have not been
        stepped keep their weights. Needs memory for one copy of the weights.

        Raises
        ------
        RuntimeError
            If there is no average, or inside another such block.
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
            Copies, that fit ``model.load_state_dict``; only frozen parameters without an average
            share the memory of the model's.

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or another object than the one in training.
        RuntimeError
            If there is no average.
        """
        return averaged_state_dict(type(self).__name__, model, self._in_place(), self._moved())

    def update_bn(
        self, loader: Iterable[Any], model: torch.nn.Module, *, device: Any = None
    ) -> None:
        """Take the statistics of batch normalisation again, with the averaged weights.

        `swap_ema` puts them in place too, and `ema_state_dict` has them, until the next step. The
        statistics of the model itself stay.

        Parameters
        ----------
        loader : iterable
            Batches, of which a list's or tuple's first part is what the model takes.
        model : torch.nn.Module
            The one in training.
        device : torch.device, optional
            Where batches are sent.

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or `loader` has no batch.
        RuntimeError
            If there is no average, or inside a block of `swap_ema`.
        """
        check_module(type(self).__name__ + ".update_bn", model)
        self._update_bn(loader, model, device)
