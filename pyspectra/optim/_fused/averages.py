"""Moving averages of weights: swapping them in, and writing them out as a state dict."""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra.errors import ArgumentTypeError, ArgumentValueError, FormatError
from pyspectra.optim._fused import sharded


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
    """Return the model's state dict with averages (copies, in the types of the model).

    Buffers and parameters that have no average come as they are.

    Raises
    ------
    TypeError, ValueError
        If `model` is no module, or has none of the parameters `moved`.
    """
    if not isinstance(model, torch.nn.Module):
        raise ArgumentTypeError(
            owner, "model", "be a torch.nn.Module", f"an object of type {type(model).__name__}"
        )
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
        if isinstance(value, Tensor) and value in averages:
            if value not in copies:  # tied weights stay tied
                copies[value] = averages[value].to(value.dtype, copy=True)
            out[name] = copies[value]
        else:
            out[name] = value.detach() if isinstance(value, Tensor) else value
    return out


def check_shadow(
    function: str, state_dict: Mapping[str, Any], params: Mapping[str, Tensor]
) -> None:
    """Refuse what is no state of an `EMA` over these parameters.

    Raises
    ------
    TypeError, ValueError
        If it is no such state; the message says what is wrong.
    """
    if not isinstance(state_dict, Mapping):
        raise ArgumentTypeError(
            function, "state_dict", "be a mapping", f"an object of type {type(state_dict).__name__}"
        )
    if set(state_dict) != {"steps", "shadow"}:
        raise ArgumentValueError(
            function,
            "state_dict",
            "have steps and shadow",
            str(sorted(map(str, state_dict))),
            "a state loads into the class that made it",
        )
    steps, shadow = state_dict["steps"], state_dict["shadow"]
    if type(steps) is not int or steps < 0:
        raise ArgumentValueError(function, "steps", "be an integer of at least 0", repr(steps))
    if not isinstance(shadow, Mapping):
        raise ArgumentTypeError(
            function,
            "shadow",
            "map names to averages",
            f"an object of type {type(shadow).__name__}",
        )
    if set(shadow) != set(params):
        odd = sorted(set(shadow) ^ set(params), key=str)[0]
        raise ArgumentValueError(
            function,
            "state_dict",
            "name the averaged parameters",
            f"{len(shadow)} names for {len(params)}, of which {odd!r} is in one only",
        )
    for name, p in params.items():
        average = shadow[name]
        if not isinstance(average, Tensor) or not average.is_floating_point():
            got = average.dtype if isinstance(average, Tensor) else f"a {type(average).__name__}"
            requirement = f"map {name!r} to a floating-point tensor"
            raise ArgumentTypeError(function, "shadow", requirement, str(got))
        if tuple(average.shape) != tuple(p.shape):
            requirement = f"map {name!r} to a tensor of shape {tuple(p.shape)}"
            raise ArgumentValueError(function, "shadow", requirement, str(tuple(average.shape)))


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

    def _averages(self) -> dict[Tensor, Tensor]:
        raise NotImplementedError

    def _refuse_while_swapped(self, function: str) -> None:
        if self._swapped:
            raise RuntimeError(
                f"{type(self).__name__}: {function}() while the averaged weights are in place. "
                f"Hint: leave the {self._block}() block first."
            )

    @contextlib.contextmanager
    def _swapping(self) -> Iterator[None]:
        self._refuse_while_swapped(self._block)
        averages = self._averages()
        self._swapped = True
        try:
            with in_place(averages):
                yield
        finally:
            self._swapped = False


class Averages(Swapping, Optimizer):
    """Access to the ``ema`` entries of the state."""

    _block = "swap_ema"

    def _averages(self) -> dict[Tensor, Tensor]:
        if all(group["ema_decay"] is None for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: there is no moving average. Hint: pass ema_decay, or set "
                "it in the groups after loading a state that has none."
            )
        return {p: s["ema"] for p, s in self.state.items() if "ema" in s}

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
            Averaged weights are copies; they fit ``model.load_state_dict``.

        Raises
        ------
        TypeError, ValueError
            If `model` is no module, or another object than the one in training.
        RuntimeError
            If there is no average.
        """
        moved = {p for group in self.param_groups for p in group["params"]}
        return averaged_state_dict(type(self).__name__, model, self._averages(), moved)
