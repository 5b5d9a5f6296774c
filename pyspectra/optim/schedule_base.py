"""What the schedulers share: rates that depend on the step alone, and their states."""

from __future__ import annotations

import operator
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyspectra._support.arguments import check_count
from pyspectra.errors import ArgumentValueError
from pyspectra.optim.cosine_formulas import floors
from pyspectra.optim.formulas import Formula


class ScheduleLR(LRScheduler):
    """Sets every group's rate from the step alone, so that a resumed run meets the same ones."""

    arguments: dict[str, Any]
    # Arguments that states of earlier versions do not have, with the values that they had.
    later: ClassVar[dict[str, Any]] = {}

    def __init__(self, optimizer: Optimizer, arguments: dict[str, Any], last_epoch: int) -> None:
        self.arguments = arguments
        last_epoch = check_count(type(self).__name__, "last_epoch", last_epoch, least=-1)
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step.

        Parameters
        ----------
        step : int
            Number of the step, from zero.
        group : int
            Position in ``optimizer.param_groups``.

        Returns
        -------
        float
            The absolute rate.
        """
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the groups at the current step."""
        # Plain numbers, whatever was given: states of numpy's cannot be loaded safely.
        step = operator.index(self.last_epoch)
        return [float(self.rate(step, i)) for i in range(len(self.base_lrs))]

    def state_dict(self) -> dict[str, Any]:
        """Return the state: numbers alone, so that ``torch.load(weights_only=True)`` reads it."""
        return {
            "last_epoch": int(self.last_epoch),
            "_step_count": int(self._step_count),
            "base_lrs": [float(lr) for lr in self.base_lrs],
            "_last_lr": [float(lr) for lr in self._last_lr],
            "arguments": dict(self.arguments),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a state, arguments included, and set the rates of the groups.

        torch's schedulers leave the rates to the optimizer's state. Setting them here as well
        makes the order in which the two are made and loaded irrelevant.

        Parameters
        ----------
        state_dict : dict
            What :meth:`state_dict` of the same class returned, over as many groups.

        Raises
        ------
        ValueError
            If it is not such a state.
        """
        name = f"{type(self).__name__}.load_state_dict"
        own = self.state_dict()
        arguments = {**self.later, **state_dict.get("arguments", {})}
        if set(state_dict) != set(own) or set(arguments) != set(self.arguments):
            requirement = f"be the state of a {type(self).__name__}"
            got = f"one with {sorted(map(str, state_dict))}"
            raise ArgumentValueError(name, "state_dict", requirement, got)
        groups = len(self.optimizer.param_groups)
        if len(state_dict["base_lrs"]) != groups:
            raise ArgumentValueError(
                name,
                "state_dict",
                f"have the {groups} parameter groups of the optimizer",
                str(len(state_dict["base_lrs"])),
            )
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self.base_lrs = list(state_dict["base_lrs"])
        self._last_lr = list(state_dict["_last_lr"])
        self.arguments = arguments
        for group, base, rate in zip(
            self.optimizer.param_groups, self.base_lrs, self._last_lr, strict=True
        ):
            group["initial_lr"] = base
            if isinstance(group["lr"], Tensor):
                # A captured graph reads this very tensor.
                group["lr"].fill_(rate)
            else:
                group["lr"] = float(rate)


class FormulaLR(ScheduleLR):
    """The rates of a formula, a factor on the rate of each group."""

    formula: Formula

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step."""
        return float(self.base_lrs[group]) * type(self).formula(step, **self.arguments)


class FlooredLR(FormulaLR):
    """The rates of a formula that comes down to a share of the rate: to an absolute minimum."""

    later: ClassVar[dict[str, Any]] = {"minimum": 0.0}

    def __init__(self, optimizer: Optimizer, arguments: dict[str, Any], last_epoch: int) -> None:
        floors(type(self).__name__, optimizer, arguments["minimum"])
        super().__init__(optimizer, arguments, last_epoch)

    def rate(self, step: int, group: int) -> float:
        """Learning rate of a group at a step."""
        arguments = dict(self.arguments)
        base, minimum = float(self.base_lrs[group]), arguments.pop("minimum")
        floor = minimum / base if base else 0.0
        return base * type(self).formula(step, floor=floor, **arguments)
