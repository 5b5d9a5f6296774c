"""
Power-law fits and their bootstrap.
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
    "bootstrap",
    "device_draw",
    "device_fit",
    "fit",
    "fits_from_bytes",
]

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
def fit(
    spectra: collections.abc.Sequence[typing.Annotated[numpy.typing.ArrayLike, numpy.float64]],
    options: FitOptions,
) -> list[Fit]: ...
def fits_from_bytes(bytes: numpy.typing.NDArray[numpy.uint8]) -> list[Fit]: ...

FIT_BYTES: int = 80
SOURCE_BYTES: int = 48
