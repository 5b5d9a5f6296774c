"""
Compiled kernels of pyspectra. Private: pyspectra.ops is the only caller.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "FIT_BYTES",
    "Fit",
    "FitOptions",
    "SOURCE_BYTES",
    "StepOptions",
    "available_isas",
    "bootstrap",
    "build_info",
    "cuda_built",
    "device_chase",
    "device_draw",
    "device_fit",
    "device_panel",
    "device_plan",
    "device_prepared_bytes",
    "device_ranks",
    "device_step",
    "device_tridiagonal_eigvals",
    "device_tridiagonalize",
    "draws",
    "eigvals",
    "fit",
    "fits_from_bytes",
    "grad_squares",
    "gram",
    "isa",
    "load_lapack",
    "num_threads",
    "order_statistic",
    "permute",
    "philox",
    "rule_names",
    "set_isa",
    "set_num_threads",
    "statistics_columns",
    "status_names",
    "step",
    "step_columns",
    "svdvals",
]

class StepOptions:
    def __init__(
        self,
        *,
        rule: typing.SupportsInt | typing.SupportsIndex,
        lr: typing.SupportsFloat | typing.SupportsIndex,
        beta1: typing.SupportsFloat | typing.SupportsIndex = 0.9,
        beta2: typing.SupportsFloat | typing.SupportsIndex = 0.999,
        eps: typing.SupportsFloat | typing.SupportsIndex = 1e-08,
        momentum: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        dampening: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        nesterov: bool = False,
        weight_decay: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        step: typing.SupportsInt | typing.SupportsIndex = 1,
        grad_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        keep: typing.SupportsInt | typing.SupportsIndex = 0,
        decay_masked: bool = True,
        ema_decay: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        ema_warmup: typing.SupportsInt | typing.SupportsIndex = 0,
        ema_every: typing.SupportsInt | typing.SupportsIndex = 1,
        stochastic_rounding: bool = False,
    ) -> None: ...

class FitOptions:
    def __init__(
        self,
        *,
        estimator: str,
        threshold: typing.SupportsFloat | typing.SupportsIndex,
        xmin: typing.SupportsFloat | typing.SupportsIndex,
        xmax: typing.SupportsFloat | typing.SupportsIndex,
        k: typing.SupportsInt | typing.SupportsIndex,
        min_tail: typing.SupportsInt | typing.SupportsIndex,
        xmin_max: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...

class Fit:
    @property
    def D(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def alpha_corrected(self) -> float: ...
    @property
    def alpha_stderr(self) -> float: ...
    @property
    def index(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def n_tail(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def xmax(self) -> float: ...
    @property
    def xmin(self) -> float: ...

def available_isas() -> list[str]: ...
def bootstrap(
    spectra: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]],
    options: FitOptions,
    fits: collections.abc.Sequence[
        tuple[
            typing.SupportsFloat | typing.SupportsIndex,
            typing.SupportsFloat | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    first: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    keys: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> list[numpy.typing.NDArray[numpy.float64]]:
    """
    (alpha, D, n_tail) of `count` replicates of each fit, from the one numbered `first` on; fits as (alpha, xmin, n, index).
    """

def build_info() -> dict[str, typing.Any]: ...
def cuda_built() -> bool: ...
def device_chase(
    *,
    a: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    band: typing.SupportsInt | typing.SupportsIndex,
    progress: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_draw(
    *,
    count: typing.SupportsInt | typing.SupportsIndex,
    per: typing.SupportsInt | typing.SupportsIndex,
    first: typing.SupportsInt | typing.SupportsIndex,
    sources: typing.SupportsInt | typing.SupportsIndex,
    x: typing.SupportsInt | typing.SupportsIndex,
    starts: typing.SupportsInt | typing.SupportsIndex,
    log_x: typing.SupportsInt | typing.SupportsIndex,
    scratch: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_fit(
    *,
    count: typing.SupportsInt | typing.SupportsIndex,
    longest: typing.SupportsInt | typing.SupportsIndex,
    threshold: typing.SupportsFloat | typing.SupportsIndex,
    xmax: typing.SupportsFloat | typing.SupportsIndex,
    x: typing.SupportsInt | typing.SupportsIndex,
    starts: typing.SupportsInt | typing.SupportsIndex,
    log_x: typing.SupportsInt | typing.SupportsIndex,
    tail_sum: typing.SupportsInt | typing.SupportsIndex,
    D: typing.SupportsInt | typing.SupportsIndex,
    best: typing.SupportsInt | typing.SupportsIndex,
    fits: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_panel(
    *,
    A: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    start: typing.SupportsInt | typing.SupportsIndex,
    band: typing.SupportsInt | typing.SupportsIndex,
    V: typing.SupportsInt | typing.SupportsIndex,
    T: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
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
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_tridiagonal_eigvals(
    *,
    d: typing.SupportsInt | typing.SupportsIndex,
    e: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    evals: typing.SupportsInt | typing.SupportsIndex,
    device: typing.SupportsInt | typing.SupportsIndex,
    stream: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def device_tridiagonalize(
    *,
    A: typing.SupportsInt | typing.SupportsIndex,
    count: typing.SupportsInt | typing.SupportsIndex,
    n: typing.SupportsInt | typing.SupportsIndex,
    d: typing.SupportsInt | typing.SupportsIndex,
    e: typing.SupportsInt | typing.SupportsIndex,
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
def eigvals(
    A: collections.abc.Sequence[numpy.ndarray],
) -> tuple[list[numpy.typing.NDArray[numpy.float64]], list[int]]: ...
def fit(
    spectra: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]],
    options: FitOptions,
) -> list[Fit]: ...
def fits_from_bytes(bytes: numpy.typing.NDArray[numpy.uint8]) -> list[Fit]: ...
def grad_squares(
    table: numpy.typing.NDArray[numpy.int64],
) -> numpy.typing.NDArray[numpy.float64]: ...
def gram(
    X: collections.abc.Sequence[numpy.ndarray],
    dtype: typing.SupportsInt | typing.SupportsIndex,
    out: list[numpy.typing.NDArray[numpy.float64]],
) -> None: ...
def isa() -> str: ...
def load_lapack(capi: dict[str, typing.Any]) -> None:
    """
    Fill the LAPACK table from scipy.linalg.cython_lapack.__pyx_capi__.
    """

def num_threads() -> int: ...
def order_statistic(
    arrays: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float32]],
    index: typing.SupportsInt | typing.SupportsIndex,
) -> tuple[float, int]: ...
def permute(
    X: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    key: typing.SupportsInt | typing.SupportsIndex,
    out: numpy.ndarray,
) -> None: ...
def philox(
    counter: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(4)"
    ],
    key: typing.Annotated[
        collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(2)"
    ],
) -> typing.Annotated[list[int], "FixedSize(4)"]: ...
def rule_names() -> dict[str, int]: ...
def set_isa(name: str) -> None: ...
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def statistics_columns() -> list[str]: ...
def status_names() -> dict[str, int]: ...
def step(
    table: numpy.typing.NDArray[numpy.int64],
    options: collections.abc.Sequence[StepOptions],
    statistics: bool = False,
) -> numpy.typing.NDArray[numpy.float64]: ...
def step_columns() -> list[str]: ...
def svdvals(
    X: collections.abc.Sequence[numpy.ndarray], dtype: typing.SupportsInt | typing.SupportsIndex
) -> tuple[list[numpy.typing.NDArray[numpy.float64]], list[int]]: ...

FIT_BYTES: int = 80
SOURCE_BYTES: int = 48
