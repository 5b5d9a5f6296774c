"""
The fused optimizer step and what it draws.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "StepOptions",
    "device_plan",
    "device_prepared_bytes",
    "device_ranks",
    "device_squares",
    "device_step",
    "draws",
    "ema_warmups",
    "grad_squares",
    "order_statistic",
    "rules",
    "statistics_columns",
    "step",
    "step_columns",
]

class StepOptions:
    def __init__(
        self,
        *,
        rule: typing.SupportsInt | typing.SupportsIndex,
        lr: typing.SupportsFloat | typing.SupportsIndex = 0.001,
        beta1: typing.SupportsFloat | typing.SupportsIndex = 0.9,
        beta2: typing.SupportsFloat | typing.SupportsIndex = 0.999,
        eps: typing.SupportsFloat | typing.SupportsIndex = 1e-08,
        momentum: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        dampening: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        momentum_start: typing.SupportsInt | typing.SupportsIndex = 1,
        nesterov: bool = False,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        step: typing.SupportsInt | typing.SupportsIndex = 1,
        grad_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        keep: typing.SupportsInt | typing.SupportsIndex = 0,
        decay_masked: bool = True,
        ema_decay: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        ema_warmup: typing.SupportsInt | typing.SupportsIndex = 0,
        ema_every: typing.SupportsInt | typing.SupportsIndex = 1,
        ema_lead: typing.SupportsInt | typing.SupportsIndex = 0,
        stochastic_rounding: bool = False,
    ) -> None: ...

def device_plan(
    table: numpy.typing.NDArray[numpy.int64], options: collections.abc.Sequence[StepOptions]
) -> tuple[numpy.typing.NDArray[numpy.uint8], typing.Annotated[list[int], "FixedSize(8)"]]: ...
def device_prepared_bytes(options: typing.SupportsInt | typing.SupportsIndex) -> int: ...
def device_ranks(
    *,
    tensors: typing.SupportsInt | typing.SupportsIndex,
    plan: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_squares(
    *,
    count: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(8)"
    ],
    tensors: typing.SupportsInt | typing.SupportsIndex,
    grads: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    grad_table: typing.SupportsInt | typing.SupportsIndex,
    plan: typing.SupportsInt | typing.SupportsIndex,
    blocks: typing.SupportsInt | typing.SupportsIndex,
    squares: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_step(
    *,
    count: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(8)"
    ],
    tensors: typing.SupportsInt | typing.SupportsIndex,
    options: collections.abc.Sequence[StepOptions],
    steps: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    lrs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    grads: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    grad_table: typing.SupportsInt | typing.SupportsIndex,
    plan: typing.SupportsInt | typing.SupportsIndex,
    prepared: typing.SupportsInt | typing.SupportsIndex,
    blocks: typing.SupportsInt | typing.SupportsIndex,
    squares: typing.SupportsInt | typing.SupportsIndex,
    statistics: typing.SupportsInt | typing.SupportsIndex,
    found_inf: typing.SupportsInt | typing.SupportsIndex,
    loss_scale: typing.SupportsInt | typing.SupportsIndex,
    max_grad_norm: typing.SupportsFloat | typing.SupportsIndex,
    squares_are_taken: bool = False,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def draws(
    key: typing.SupportsInt | typing.SupportsIndex,
    step: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
    offset: typing.SupportsInt | typing.SupportsIndex,
    size: typing.SupportsInt | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.uint16]: ...
def ema_warmups() -> dict[str, int]: ...
def grad_squares(
    table: numpy.typing.NDArray[numpy.int64],
) -> numpy.typing.NDArray[numpy.float64]: ...
def order_statistic(
    arrays: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]],
    index: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[float, int]: ...
def rules() -> list[tuple[str, str, bool]]:
    """
    Name, keys of the moments, and whether they can be compact; a rule's code is its place.
    """

def statistics_columns() -> list[str]: ...
def step(
    table: numpy.typing.NDArray[numpy.int64],
    options: collections.abc.Sequence[StepOptions],
    statistics: bool = False,
) -> numpy.typing.NDArray[numpy.float64]: ...
def step_columns() -> list[str]: ...
