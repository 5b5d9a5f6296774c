"""
Compiled kernels of pyspectra. Private: pyspectra.ops is the only caller.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "Fit",
    "StepOptions",
    "available_isas",
    "build_info",
    "draws",
    "eigvals",
    "fit",
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
        stochastic_rounding: bool = False,
    ) -> None: ...

class Fit:
    @property
    def D(self) -> float: ...
    @property
    def alpha(self) -> float: ...
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
def build_info() -> dict[str, typing.Any]: ...
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
    estimator: str,
    threshold: typing.SupportsFloat | typing.SupportsIndex,
    xmin: typing.SupportsFloat | typing.SupportsIndex,
    xmax: typing.SupportsFloat | typing.SupportsIndex,
    k: typing.SupportsInt | typing.SupportsIndex,
) -> list[Fit]: ...
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
