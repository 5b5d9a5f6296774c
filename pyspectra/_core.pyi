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
    "available_isas",
    "build_info",
    "eigvals",
    "fit",
    "gram",
    "isa",
    "load_lapack",
    "num_threads",
    "set_isa",
    "set_num_threads",
    "status_names",
    "svdvals",
]

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
def set_isa(name: str) -> None: ...
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None: ...
def status_names() -> dict[str, int]: ...
def svdvals(
    X: collections.abc.Sequence[numpy.ndarray], dtype: typing.SupportsInt | typing.SupportsIndex
) -> tuple[list[numpy.typing.NDArray[numpy.float64]], list[int]]: ...
