"""
Gram matrices, eigenvalues, singular values.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "amx_available",
    "apply_inverse",
    "deal_out",
    "device_chase",
    "device_panel",
    "device_tridiagonal_eigvals",
    "device_tridiagonalize",
    "eigvals",
    "eigvals_stack",
    "fast_eigvals",
    "fast_probes",
    "gram",
    "inverse_steps",
    "leading_pivots",
    "normal_product",
    "shifted_factor",
    "sign_draws",
    "svdvals",
    "take_lapack_from",
]

def amx_available() -> bool: ...
def apply_inverse(
    L: numpy.typing.NDArray[numpy.float64], X: numpy.typing.NDArray[numpy.float64]
) -> None: ...
def deal_out(X: numpy.ndarray, out: numpy.ndarray) -> None: ...
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
def eigvals(
    A: collections.abc.Sequence[numpy.ndarray],
) -> tuple[list[numpy.typing.NDArray[numpy.float64]], list[int]]: ...
def eigvals_stack(A: numpy.ndarray) -> tuple[numpy.typing.NDArray[numpy.float64], list[int]]: ...
def fast_eigvals(
    W: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    probes: typing.Annotated[numpy.typing.ArrayLike, numpy.float64],
) -> tuple[numpy.typing.NDArray[numpy.float64], float, int]: ...
def gram(
    X: collections.abc.Sequence[numpy.ndarray],
    dtype: typing.SupportsInt | typing.SupportsIndex,
    out: list[numpy.typing.NDArray[numpy.float64]],
) -> None: ...
def inverse_steps(
    L: numpy.typing.NDArray[numpy.float64],
    X: numpy.typing.NDArray[numpy.float64],
    steps: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def leading_pivots(
    G: numpy.typing.NDArray[numpy.float64],
    order: typing.SupportsInt | typing.SupportsIndex,
    shift: typing.SupportsFloat | typing.SupportsIndex,
) -> numpy.typing.NDArray[numpy.float64]: ...
@typing.overload
def normal_product(
    W: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    X: numpy.typing.NDArray[numpy.float64] | None,
    Y: numpy.typing.NDArray[numpy.float64],
    transposed: bool,
) -> typing.Any: ...
@typing.overload
def normal_product(
    W: numpy.ndarray,
    dtype: typing.SupportsInt | typing.SupportsIndex,
    X: numpy.typing.NDArray[numpy.float32] | None,
    Y: numpy.typing.NDArray[numpy.float32],
    transposed: bool,
) -> typing.Any: ...
def shifted_factor(
    G: numpy.typing.NDArray[numpy.float64], shift: typing.SupportsFloat | typing.SupportsIndex
) -> numpy.typing.NDArray[numpy.float64]: ...
def sign_draws(
    stack: numpy.typing.NDArray[numpy.float64],
    bits: numpy.typing.NDArray[numpy.uint8],
    draws: typing.SupportsInt | typing.SupportsIndex,
    centred: bool,
) -> numpy.typing.NDArray[numpy.float64]: ...
def svdvals(
    X: collections.abc.Sequence[numpy.ndarray], dtype: typing.SupportsInt | typing.SupportsIndex
) -> tuple[list[numpy.typing.NDArray[numpy.float64]], list[int]]: ...
def take_lapack_from(capsules: collections.abc.Callable[[], dict[str, typing.Any]]) -> None:
    """
    Say what returns __pyx_capi__ of scipy.linalg.cython_blas and cython_lapack, when a kernel first needs a routine of theirs.
    """

fast_probes: int = 8
