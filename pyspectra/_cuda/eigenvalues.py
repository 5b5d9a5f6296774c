"""Gram matrices and symmetric eigenvalues on a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pyspectra import ops
from pyspectra._cuda import devices
from pyspectra.types import FloatArray, Status

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Up to this order matrices are reduced by our one-block kernel, above it in two stages: the library
# takes the matrices of a batch one after the other, and half of its work for each is bound by
# memory. No GPU has measured it yet; benchmarks/gpu does.
ONE_BLOCK_ORDER = 256

# Width of the band between the two stages of our reduction of large matrices.
BAND = 32

# Rows of a matrix that are in float64 at a time hold about this many elements.
GRAM_BLOCK = 1 << 24


def gram(W: Tensor) -> Tensor:
    """Gram matrix of the shorter side of a matrix, float64; a block of rows at a time."""
    with devices.memory_errors(W.device):
        return _gram(W)


def _gram(W: Tensor) -> Tensor:
    tall = W.detach() if W.shape[0] >= W.shape[1] else W.detach().mT
    M = tall.shape[1]
    out = tall.new_zeros((M, M), dtype=_float64())
    step = max(1, GRAM_BLOCK // max(M, 1))
    for begin in range(0, tall.shape[0], step):
        block = tall[begin : begin + step].to(out.dtype)
        out.addmm_(block.mT, block)
    return out


def _float64() -> torch.dtype:
    import torch

    return torch.float64


def eigvals_of(grams: Sequence[Tensor]) -> tuple[list[FloatArray], list[Status]]:
    """`eigvals` of matrices of equal order, on their device. Raises MemoryError."""
    import torch

    with devices.memory_errors(grams[0].device):
        return eigvals(torch.stack(list(grams)))


def eigvals(A: Tensor, *, method: str | None = None) -> tuple[list[FloatArray], list[Status]]:
    """Ascending eigenvalues of symmetric matrices, shape (b, n, n); the lower triangles are read.

    `method`: ``"one_block"`` and ``"two_stage"`` are reductions of ours, ``"library"`` is torch's
    (cuSOLVER); by order where None.
    """
    import torch

    count, n = A.shape[0], A.shape[-1]
    A = A.detach().to(torch.float64)
    A = (A.tril() + A.tril(-1).mT).contiguous()
    if count == 0 or n == 0:
        return [np.empty(n) for _ in range(count)], [Status.OK] * count
    A, restore, status = _scaled(A)
    method = method or ("one_block" if n <= ONE_BLOCK_ORDER else "two_stage")
    if method == "library":
        values = torch.linalg.eigvalsh(A)
    else:
        values = _bisected(*(_one_block(A) if method == "one_block" else _two_stage(A)))
    return _in_range([np.sort(row) for row in (values * restore[:, None]).cpu().numpy()], status)


def singular_values(matrices: Sequence[Tensor]) -> tuple[list[FloatArray], list[Status]]:
    """Ascending singular values of matrices of one shape, on their device. Raises MemoryError.

    The non-negative eigenvalues of ``[[0, R^T], [R, 0]]`` (Jordan, Wielandt), R the triangle of a
    QR factorisation: to some ulps of the largest, which a Gram matrix does not give.
    """
    import torch

    with devices.memory_errors(matrices[0].device):
        W = torch.stack([X.detach().to(torch.float64) for X in matrices])
        R, restore, status = _scaled(W if W.shape[-2] >= W.shape[-1] else W.mT)
        M = R.shape[-1]
        if R.shape[-2] > M:
            R = torch.linalg.qr(R, mode="r").R
        both = R.new_zeros((len(R), 2 * M, 2 * M))
        both[:, M:, :M] = R  # the lower triangle is what is read
        values, _ = eigvals(both)
    back = restore.tolist()
    with np.errstate(over="ignore"):
        found = [np.maximum(v[M:], 0.0) * scale for v, scale in zip(values, back, strict=True)]
    return _in_range(found, status)


def _in_range(
    values: Sequence[FloatArray], status: Sequence[Status]
) -> tuple[list[FloatArray], list[Status]]:
    """Put NaN for what failed, and for what undoing the scale took beyond float64."""
    found = [
        Status.NOT_FINITE if s is Status.OK and not np.isfinite(v).all() else s
        for v, s in zip(values, status, strict=True)
    ]
    return [
        v if s is Status.OK else np.full_like(v, np.nan) for v, s in zip(values, found, strict=True)
    ], found


def _scaled(A: Tensor) -> tuple[Tensor, Tensor, list[Status]]:
    """Matrices with a largest entry near one, the factors that undo it, and their status.

    Factors are powers of two; what is not finite becomes zero.
    """
    import torch

    largest = A.abs().amax((-2, -1))
    finite = largest.isfinite()
    # Powers of two are made and undone through exponent bits, which loses nothing.
    exponent = torch.frexp(largest.where(finite, 1.0)).exponent.to(torch.int64).clamp(-1000, 1000)
    shrink, restore = (((1023 + k) << 52).view(torch.float64) for k in (-exponent, exponent))
    status = [Status.OK if ok else Status.NOT_FINITE for ok in finite.tolist()]
    return torch.where(finite[:, None, None], A * shrink[:, None, None], 0.0), restore, status


def _one_block(A: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonals and off-diagonals of a batch, one block for each matrix; `A` is destroyed."""
    count, n = A.shape[0], A.shape[-1]
    d, e = A.new_zeros((count, n)), A.new_zeros((count, n))
    index, stream = devices.current_stream(A.device)
    ops.device_tridiagonalize(
        A=A.data_ptr(),
        count=count,
        n=n,
        d=d.data_ptr(),
        e=e.data_ptr(),
        device=index,
        stream=stream,
    )
    return d, e


def _bisected(d: Tensor, e: Tensor) -> Tensor:
    """Eigenvalues of tridiagonal matrices, shapes (b, n); the last of each `e` goes unread."""
    evals = d.new_empty(d.shape)
    index, stream = devices.current_stream(d.device)
    ops.device_tridiagonal_eigvals(
        d=d.data_ptr(),
        e=e.data_ptr(),
        count=d.shape[0],
        n=d.shape[1],
        evals=evals.data_ptr(),
        device=index,
        stream=stream,
    )
    return evals


def _to_band(A: Tensor, band: int) -> None:
    """Reduce symmetric matrices, shape (b, n, n), to bands in place; upper triangles hold them.

    Panel by panel, ``Q = I - V T V^T`` (`ops.device_panel`): ``X = A V T``, ``W = X - V T^T V^T X /
    2``, ``A -= V W^T + W V^T``. 2 n^3 flops in matrix products, since both triangles are updated.
    """
    import torch

    count, n = A.shape[0], A.shape[-1]
    vectors, T = A.new_empty((count, band, n)), A.new_empty((count, band, band))
    index, stream = devices.current_stream(A.device)
    for start in range(0, n - band - 1, band):
        ops.device_panel(
            A=A.data_ptr(),
            count=count,
            n=n,
            start=start,
            band=band,
            V=vectors.data_ptr(),
            T=T.data_ptr(),
            device=index,
            stream=stream,
        )
        rest = A[:, start + band :, start + band :]
        V = vectors[:, :, : rest.shape[-1]].mT
        X = rest @ V @ T
        W = X - 0.5 * (V @ (T.mT @ (V.mT @ X)))
        rest.baddbmm_(torch.cat((V, W), -1), torch.cat((W, V), -1).mT, alpha=-1.0)


def _two_stage(A: Tensor, band: int = BAND) -> tuple[Tensor, Tensor]:
    """Diagonals and off-diagonals of a batch: full to band, then bulge chasing; destroys `A`."""
    import torch

    count, n = A.shape[0], A.shape[-1]
    _to_band(A, band)
    bands = A.new_zeros((count, n, 2 * band))
    for k in range(min(band + 1, n)):
        bands[:, : n - k, k] = A.diagonal(k, -2, -1)
    progress = torch.zeros((count, n), dtype=torch.int32, device=A.device)
    index, stream = devices.current_stream(A.device)
    ops.device_chase(
        a=bands.data_ptr(),
        count=count,
        n=n,
        band=band,
        progress=progress.data_ptr(),
        device=index,
        stream=stream,
    )
    return bands[:, :, 0].contiguous(), bands[:, :, 1].contiguous()
