"""Eigenvalue spectra of weight matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray, as_host
from pyspectra._cuda import devices, eigenvalues
from pyspectra._support.arguments import check_choice, check_flag
from pyspectra.errors import ArgumentValueError, ConvergenceError
from pyspectra.spectra.small_end import GRAM_RESOLUTION, beyond_gram, small_end_anew
from pyspectra.types import ESD, FloatArray, Status

METHODS = ("auto", "gram", "svd")

# Squares of entries below about 1e-140 leave float64's range: the Gram matrix of such a matrix
# says nothing.
GRAM_SMALLEST = 1e-280

# Below it float64 loses digits, and soon all of them.
SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)


def needs_svd(evals: FloatArray, status: Status) -> bool:
    """Tell whether eigenvalues from a Gram matrix (ascending) are beyond what it resolves.

    A Gram matrix that is not finite also goes to the SVD: its squares may have overflowed where the
    entries themselves are finite.
    """
    if status is Status.NOT_FINITE:
        return True
    if status is not Status.OK or evals.size == 0:
        return False
    largest = evals[-1]
    return bool(largest < GRAM_SMALLEST or evals[0] < GRAM_RESOLUTION * largest)


def squared_singular_values(X: Sequence[HostArray]) -> tuple[list[FloatArray], list[Status]]:
    """Ascending squared singular values by SVD, for spectra that `needs_svd`."""
    values, status = ops.svdvals(X)
    return squares([v[::-1] for v in values], status)


def foreseen(
    X: Sequence[HostArray], grams: Sequence[FloatArray]
) -> dict[int, tuple[FloatArray, Status]]:
    """Solve those matrices of which all values are due by SVD, whatever the eigenvalues would be.

    Returns ascending squared singular values and the status, by their numbers.
    """
    due = [i for i, (W, G) in enumerate(zip(X, grams, strict=True)) if beyond_gram(W, G)]
    if not due:
        return {}
    evals, status = squared_singular_values([X[i] for i in due])
    return dict(zip(due, zip(evals, status, strict=True), strict=True))


def unresolved_anew(
    X: Sequence[HostArray],
    grams: Sequence[FloatArray],
    evals: Sequence[FloatArray],
    status: Sequence[Status],
) -> tuple[list[FloatArray], list[Status]]:
    """Solve matrices again of which `needs_svd`; `evals` are those of their Gram matrices.

    Few small values are taken anew by themselves, of other matrices all by SVD.
    """
    found: list[FloatArray | None] = [
        small_end_anew(W, G, known) if state is Status.OK else None
        for W, G, known, state in zip(X, grams, evals, status, strict=True)
    ]
    out, codes = list(found), list(status)
    rest = [i for i, one in enumerate(found) if one is None]
    if rest:
        for i, one, code in zip(rest, *squared_singular_values([X[i] for i in rest]), strict=True):
            out[i], codes[i] = one, code
    return [one for one in out if one is not None], codes


def squares(
    values: Sequence[FloatArray], status: list[Status]
) -> tuple[list[FloatArray], list[Status]]:
    """Squares of ascending singular values; `status` then tells what leaves float64's range."""
    with np.errstate(all="ignore"):
        evals = [np.ascontiguousarray(v**2) for v in values]
    for i, squared in enumerate(evals):
        if status[i] is not Status.OK or squared.size == 0:
            continue
        if not np.isfinite(squared[-1]):
            status[i] = Status.NOT_FINITE  # finite entries, but eigenvalues beyond float64
        elif squared[-1] < SMALLEST_NORMAL and values[i][-1] > 0.0:
            status[i] = Status.DEGENERATE  # not zero, but its eigenvalues round to zero
    return evals, status


def pool(
    matrix_evals: Sequence[FloatArray],
    status: Sequence[Status],
    *,
    N: int,
    M: int,
    method: str,
    bound: float = 0.0,
) -> ESD:
    """Join the eigenvalues of the matrices of one layer into its ESD.

    One matrix that failed makes the layer fail: a spectrum with a hole in it is no spectrum.
    """
    worst = next((s for s in status if s is not Status.OK), Status.OK)
    # Rounding can leave a zero eigenvalue slightly below zero.
    stack = np.maximum(np.array(matrix_evals), 0.0)
    clean = tuple(stack)
    evals = np.sort(stack, axis=None) if len(clean) > 1 else clean[0]
    if worst is not Status.OK:
        evals = np.full_like(evals, np.nan)
    return ESD(
        evals=evals,
        N=N,
        M=M,
        n_matrices=len(clean),
        method=method,
        status=worst,
        matrix_evals=clean,
        bound=bound,
    )


def esd(W: Any, *, method: Literal["auto", "gram", "svd"] = "auto") -> ESD:
    """Empirical spectral density of one weight matrix.

    Parameters
    ----------
    W : array or tensor, shape (rows, cols)
        float16, bfloat16, float32 or float64, any strides; numpy or torch. Never written to.
    method : {"auto", "gram", "svd"}
        ``"gram"``: eigenvalues of the float64 Gram matrix of the shorter side. ``"svd"``: singular
        values of a float64 copy. ``"auto"``: gram; where the smallest eigenvalue is below 1e-9 of
        the largest, which a Gram matrix does not resolve, singular values in the place of the small
        ones if they are few, else of all. Either are as good as those of an SVD. That all are due
        is mostly seen before any eigenvalue is computed.

    Returns
    -------
    ESD
        Ascending eigenvalues of ``W.T @ W`` (squared singular values, undivided), with the method
        that served. A matrix with NaN or infinity, or whose eigenvalues exceed float64, has status
        ``NOT_FINITE`` and NaN eigenvalues; one whose eigenvalues fall below float64's range
        (entries below about 1e-154) has ``DEGENERATE``.

    Raises
    ------
    TypeError
        If `W` is not a real floating-point array.
    ValueError
        If `W` is not 2-D or is empty, or `method` is unknown.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    >>> esd = ps.esd(W)
    >>> esd.N, esd.M, esd.Q, len(esd.evals), esd.method
    (60, 40, 1.5, 40, 'gram')
    >>> np.allclose(np.sqrt(esd.evals[::-1]), np.linalg.svd(W, compute_uv=False))
    True
    """
    check_choice("esd", "method", method, METHODS)
    host = None if devices.on_device(W) else as_host(W, function="esd", argument="W")
    shape = tuple(W.shape) if host is None else host.shape
    if len(shape) != 2:
        hint = "a convolution is kh*kw matrices W[:, :, i, j]; analyze() takes it whole"
        raise ArgumentValueError("esd", "W", "be 2-D", f"shape {shape}", hint)
    if min(shape) == 0:
        raise ArgumentValueError("esd", "W", "not be empty", f"shape {shape}")
    N, M = max(shape), min(shape)
    if method != "svd":
        if host is None:
            evals, status = eigenvalues.eigvals(eigenvalues.gram(W)[None])
        else:
            grams = ops.gram([host])
            if method == "auto" and beyond_gram(host, grams[0]):
                method = "svd"
            else:
                evals, status = ops.eigvals(grams)
    if method != "svd" and (method == "gram" or not needs_svd(evals[0], status[0])):
        return pool(evals, status, N=N, M=M, method="gram")
    if host is None:
        evals, status = squares(*eigenvalues.singular_values([W]))
    elif method == "svd":
        evals, status = squared_singular_values([host])
    else:
        evals, status = unresolved_anew([host], grams, evals, status)
    return pool(evals, status, N=N, M=M, method="svd")


@overload
def eigvals(A: Any, *, out_status: Literal[False] = False) -> FloatArray: ...


@overload
def eigvals(A: Any, *, out_status: Literal[True]) -> tuple[FloatArray, np.ndarray]: ...


def eigvals(A: Any, *, out_status: bool = False) -> FloatArray | tuple[FloatArray, np.ndarray]:
    """Eigenvalues of one symmetric matrix or a batch of them.

    Parameters
    ----------
    A : array or tensor, shape (n, n) or (b, n, n)
        Symmetric; only the lower triangles are read. Computed in float64, on the CUDA device
        where `A` is on one. Never written to.
    out_status : bool
        Return ``(evals, status)`` instead of raising: failed matrices are rows of NaN.

    Returns
    -------
    evals : ndarray of float64, shape (n,) or (b, n)
        Ascending.
    status : ndarray of int, shape () or (b,), only if `out_status`
        Codes of `pyspectra.Status`.

    Raises
    ------
    TypeError
        If `A` is not a real floating-point array.
    ValueError
        If `A` is not square, or (unless `out_status`) holds NaN or infinity, or has an eigenvalue
        that float64 cannot hold.
    ConvergenceError
        If the iteration failed (unless `out_status`).

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> ps.eigvals(np.array([[2.0, 1.0], [1.0, 2.0]]))
    array([1., 3.])
    >>> evals, status = ps.eigvals(np.array([[[4.0]], [[np.nan]]]), out_status=True)
    >>> [str(ps.Status(code)) for code in status]
    ['ok', 'not_finite']
    """
    out_status = check_flag("eigvals", "out_status", out_status)
    host = None if devices.on_device(A) else as_host(A, function="eigvals", argument="A")
    shape = tuple(A.shape) if host is None else host.shape
    if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
        raise ArgumentValueError(
            "eigvals", "A", "have shape (n, n) or (b, n, n)", str(shape),
            "esd(W) takes a rectangular matrix",
        )  # fmt: skip
    evals: FloatArray | list[FloatArray]
    status: Sequence[int]
    if host is None:
        evals, status = eigenvalues.eigvals(A.reshape(-1, *shape[-2:]))
    else:
        values = host.data if host.dtype == "float64" else host.to_float64()
        evals, status = ops.eigvals_stack(values if values.ndim == 3 else values[None])
    out = np.asarray(evals).reshape(shape[:-1])
    if out_status:
        return out, np.array(status, dtype=np.int64).reshape(shape[:-2])
    if not any(status):  # Status.OK is zero
        return out
    for i, s in enumerate(map(Status, status)):
        which = "" if len(shape) == 2 else f" (matrix {i} of the batch)"
        if s is Status.NOT_FINITE:
            matrix = A.reshape(-1, *shape[-2:])[i].cpu().double().numpy() if host is None else (
                values.reshape(-1, *shape[-2:])[i]
            )  # fmt: skip
            overflow = bool(np.isfinite(np.tril(matrix)).all())
            got = "one beyond 1.8e308" if overflow else "NaN or infinity"
            raise ArgumentValueError(
                "eigvals", "A", "have finite eigenvalues" if overflow else "be finite",
                f"{got}{which}", "out_status=True returns NaN rows instead",
            )  # fmt: skip
        if s is not Status.OK:
            raise ConvergenceError(f"eigvals: the iteration did not converge{which}.")
    return out
