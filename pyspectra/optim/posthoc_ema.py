"""Averages whose length is chosen after training: Karras et al.'s post-hoc EMA."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Optimizer

from pyspectra._support.arguments import check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.optim._fused.averages import load_file
from pyspectra.optim.ema import EMA

__all__ = ["PowerFunctionEMA", "reconstruct_ema", "reconstruction_error"]

F64 = npt.NDArray[np.float64]

_LARGEST = 12.0**-0.5  # the width of a flat profile, which has gamma = 0


def gamma_of(sigma_rel: float) -> float:
    """Exponent of the profile whose standard deviation is `sigma_rel` of the training length.

    The root of ``(g + 2)^2 (g + 3) = (g + 1) / sigma_rel^2`` (arXiv 2312.02696, appendix C).
    """
    t = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


class PowerFunctionEMA(EMA):
    """Moving average whose length is a fixed share of the training so far.

    Parameters
    ----------
    model_or_params : torch.nn.Module or iterable
        As in `EMA`.
    sigma_rel : float
        Standard deviation of the profile, relative to the time trained, in (0, 12^-1/2). Keep two,
        of 0.05 and 0.10, and save their states from time to time: `reconstruct_ema` makes
        averages of any other width from them.
    every : int
        As in `EMA`.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range; the message names it.

    Notes
    -----
    ``average <- beta average + (1 - beta) weight`` with beta = (1 - 1/t)^(gamma + 1) at update t,
    counted from 1: the weights of the past follow (tau/t)^gamma. The initial weights leave no
    trace. gamma is the positive root of (g + 2)^2 (g + 3) = (g + 1) / sigma_rel^2.

    References
    ----------
    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR 2024,
    arXiv 2312.02696, section 3 and appendix C.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import PowerFunctionEMA
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> ema = PowerFunctionEMA(model, sigma_rel=0.1)
    >>> for value in range(100):
    ...     _ = torch.nn.init.constant_(model.weight, value)
    ...     ema.update()
    >>> with ema.swap():
    ...     80 < model.weight.item() < 95  # the centre of the last tenth or two
    True
    """

    def __init__(
        self,
        model_or_params: torch.nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        sigma_rel: float = 0.05,
        every: int = 1,
    ) -> None:
        width = _check_width("PowerFunctionEMA", sigma_rel)
        with called_as("PowerFunctionEMA"):
            super().__init__(model_or_params, every=every)
        self.sigma_rel = width
        self._gamma = gamma_of(self.sigma_rel)

    def attach(self, optimizer: Optimizer, *others: Optimizer) -> EMA:
        """Update after each step of `optimizer`, as `EMA.attach`; further ones are refused.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            Any that moves at least one of the parameters.
        *others : torch.optim.Optimizer
            None: the time of a profile is that of one optimizer.

        Returns
        -------
        EMA
            This object.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            As `EMA.attach`, or if there are several optimizers.
        """
        if others:
            raise ArgumentValueError(
                "PowerFunctionEMA.attach",
                "others",
                "be empty",
                f"{len(others)} more optimizers",
                "make one for the parameters of each optimizer",
            )
        return super().attach(optimizer)

    def decay_at(self, n: int) -> float:
        """Decay at update number `n`, counted from 0."""
        return float((1.0 - 1.0 / (n + 1)) ** (self._gamma + 1.0))

    def state_dict(self) -> dict[str, Any]:
        """Return the state of an `EMA`, with ``sigma_rel`` and ``updates``."""
        state = super().state_dict()
        updates = state["steps"] // self.every
        return {**state, "sigma_rel": self.sigma_rel, "updates": updates}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state of the same width and the same `every`.

        Parameters
        ----------
        state_dict : mapping
            What `state_dict` returned.

        Raises
        ------
        ValueError, TypeError
            If it does not fit. Nothing has changed.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentTypeError(
                "PowerFunctionEMA.load_state_dict",
                "state_dict",
                "be a mapping",
                f"an object of type {type(state_dict).__name__}",
            )
        state = dict(state_dict)
        width = state.pop("sigma_rel", None)
        updates = state.pop("updates", None)
        if width != self.sigma_rel:
            raise ArgumentValueError(
                "PowerFunctionEMA.load_state_dict",
                "state_dict",
                f"have sigma_rel = {self.sigma_rel}",
                str(width),
            )
        if isinstance(state.get("steps"), int) and state["steps"] // self.every != updates:
            raise ArgumentValueError(
                "PowerFunctionEMA.load_state_dict",
                "state_dict",
                f"be of every = {self.every}",
                f"{updates} updates in {state['steps']} steps",
            )
        super().load_state_dict(state)


def reconstruct_ema(
    snapshots: Sequence[Mapping[str, Any] | str | os.PathLike[str]],
    sigma_rel: float,
    *,
    updates: int | None = None,
    tolerance: float = 0.1,
) -> dict[str, Tensor]:
    """Average of any width, made after training from saved states of `PowerFunctionEMA`.

    Parameters
    ----------
    snapshots : sequence
        Saved states (or files that ``torch.save`` made of them), of two widths as a rule, at
        several times.
    sigma_rel : float
        Width of the wanted average, in (0, 12^-1/2). Between the widths of the snapshots it comes
        out almost exactly, as long as there are some 8 of them or more.
    updates : int, optional
        Time of the wanted average, in updates; default: the last one of the snapshots. Later
        snapshots are not used. It should be the time of a snapshot: nothing of what came after
        the last one can be represented.
    tolerance : float
        Largest error of the combination that is accepted: of `reconstruction_error`.

    Returns
    -------
    dict of str to Tensor
        Name -> average, float32 (float64 where the snapshots are), on the host. Summed in float64.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, the snapshots do not fit each other, or they cannot
        represent the wanted average; the message says with which error.
    FormatError
        If a file is broken.

    Notes
    -----
    The combination whose profile is closest to the wanted one in the mean square, among those whose
    shares sum to one: A x + m = b and sum(x) = 1 with the inner products of the profiles as
    entries, in closed form.

    References
    ----------
    Karras et al., arXiv 2312.02696, appendix C.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import PowerFunctionEMA, reconstruct_ema
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> averages = [PowerFunctionEMA(model, sigma_rel=width) for width in (0.05, 0.10)]
    >>> snapshots = []
    >>> for value in range(1, 101):
    ...     _ = torch.nn.init.constant_(model.weight, value)
    ...     for ema in averages:
    ...         ema.update()
    ...         if value % 20 == 0:
    ...             snapshots.append(ema.state_dict())
    >>> average = reconstruct_ema(snapshots, sigma_rel=0.07)
    >>> 80 < average["weight"].item() < 95
    True
    """
    function = "reconstruct_ema"
    tolerance = check_number(function, "tolerance", tolerance, least=0.0)
    states, shares, error = _fitted(function, snapshots, sigma_rel, updates)
    names = set(states[0]["shadow"])
    if any(set(state["shadow"]) != names for state in states):
        raise ArgumentValueError(
            function, "snapshots", "be of the same parameters", "some of others"
        )
    if error > tolerance:
        raise ArgumentValueError(
            function,
            "snapshots",
            f"represent sigma_rel = {sigma_rel:g} at this time within {tolerance:.3g}",
            f"an error of {error:.3g} of the profile",
            "take the time of a snapshot, more snapshots, a width between theirs, or a larger "
            "tolerance",
        )
    out = {}
    for name, first in states[0]["shadow"].items():
        total = torch.zeros(first.shape, dtype=torch.float64)
        for share, state in zip(shares, states, strict=True):
            total += float(share) * state["shadow"][name].detach().cpu().double()
        out[name] = total.to(first.dtype)
    return out


def reconstruction_error(
    snapshots: Sequence[Mapping[str, Any] | str | os.PathLike[str]],
    sigma_rel: float,
    *,
    updates: int | None = None,
) -> float:
    """Error with which `reconstruct_ema` represents an average.

    Parameters
    ----------
    snapshots, sigma_rel, updates
        As for `reconstruct_ema`.

    Returns
    -------
    float
        Root mean square of the difference between the profile of the combination and the wanted
        one, relative to that of the wanted one: 0 where it is among the snapshots, 1 where they
        say nothing about it.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.
    FormatError
        If a file is broken.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.optim import PowerFunctionEMA, reconstruction_error
    >>> ema = PowerFunctionEMA(torch.nn.Linear(1, 1), sigma_rel=0.1)
    >>> ema.update()
    >>> reconstruction_error([ema.state_dict()], sigma_rel=0.1) < 1e-6
    True
    >>> round(reconstruction_error([ema.state_dict()], sigma_rel=0.05), 2)
    0.47
    """
    return _fitted("reconstruction_error", snapshots, sigma_rel, updates)[2]


def _fitted(
    function: str, snapshots: Any, sigma_rel: float, updates: int | None
) -> tuple[list[Mapping[str, Any]], F64, float]:
    """Return the snapshots that count, their shares, and the error of the combination."""
    sigma_rel = _check_width(function, sigma_rel)
    if updates is not None:
        updates = check_count(function, "updates", updates)
    states = [_opened(function, snapshot) for snapshot in snapshots]
    if updates is not None:
        states = [state for state in states if state["updates"] <= updates]
    points = {(state["updates"], state["sigma_rel"]) for state in states}
    if not states or len(points) != len(states) or any(t < 1 for t, _ in points):
        raise ArgumentValueError(
            function,
            "snapshots",
            "be at least one state after an update, no two of the same width and time",
            f"{len(states)} of {len(points)} kinds",
        )
    t = np.array([state["updates"] for state in states], dtype=np.float64)
    gamma = np.array([gamma_of(state["sigma_rel"]) for state in states])
    end = np.float64(t.max() if updates is None else updates)
    # Only ratios of times count; with the wanted one at 1 all entries are of one size.
    return (states, *combination(t / end, gamma, np.float64(1.0), np.float64(gamma_of(sigma_rel))))


def _products(t_a: F64, gamma_a: F64, t_b: F64, gamma_b: F64) -> F64:
    """Inner products of profiles ``(g + 1) tau^g / t^(g + 1)`` on [0, t]."""
    ratio = t_a / t_b
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    top = (gamma_a + 1) * (gamma_b + 1) * ratio**exponent
    return np.asarray(top / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b)))


def combination(t: F64, gamma: F64, end: Any, wanted: Any) -> tuple[F64, float]:
    """Shares of the profiles (t, gamma) closest to the profile (end, wanted), and their error.

    The shares sum to one: otherwise weights that all snapshots agree on would shrink wherever the
    fit is not perfect. The error is relative to the wanted profile, in the root mean square.
    """
    n = len(t)
    A = _products(t[:, None], gamma[:, None], t[None, :], gamma[None, :])
    b = _products(t, gamma, end, wanted)
    system = np.block([[A, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    # Snapshots that are almost the same make it almost singular: of all solutions the smallest.
    solution = np.linalg.lstsq(system, np.append(b, 1.0), rcond=1e-14)[0][:n]
    shares = solution / np.sum(solution)
    norm = float(_products(end, wanted, end, wanted))
    squares = float(shares @ A @ shares - 2.0 * shares @ b) + norm
    return shares, float(np.sqrt(max(0.0, squares) / norm))


def _check_width(function: str, sigma_rel: object) -> float:
    width = check_number(function, "sigma_rel", sigma_rel, above=0.0)
    if width >= _LARGEST:
        raise ArgumentValueError(function, "sigma_rel", "be below 12^-1/2", repr(sigma_rel))
    return width


def _opened(function: str, snapshot: Any) -> Mapping[str, Any]:
    if isinstance(snapshot, (str, os.PathLike)):
        snapshot = load_file(Path(snapshot))
    if not isinstance(snapshot, Mapping) or not {"shadow", "sigma_rel", "updates"} <= set(snapshot):
        raise ArgumentValueError(
            function,
            "snapshots",
            "be states of a PowerFunctionEMA, or files of them",
            f"an object of type {type(snapshot).__name__}",
        )
    return snapshot
