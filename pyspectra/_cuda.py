"""Spectral kernels on a CUDA device: tensors that are there in, host arrays out.

Memory comes from torch, kernels run on its current stream, and the only wait is for the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from pyspectra import ops
from pyspectra._arrays import array_info, is_torch_tensor
from pyspectra.types import FloatArray, PowerLawFit, Status

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Up to this order a matrix is reduced by our one-block kernel, above it by the library. No GPU has
# measured it yet; benchmarks/gpu does.
ONE_BLOCK_ORDER = 256

# Width of the band between the two stages of our reduction of large matrices.
BAND = 32

# Rows of a matrix that are in float64 at a time hold about this many elements.
GRAM_BLOCK = 1 << 24


def on_device(x: object) -> TypeGuard[Tensor]:
    """Tell whether `x` is a tensor that the kernels of this module take."""
    if not is_torch_tensor(x) or not ops.cuda_built() or not getattr(x, "is_cuda", False):
        return False
    info = array_info(x)
    return info is not None and info.problem is None


def current_stream(device: torch.device) -> tuple[int, int]:
    """Index of the device, and torch's current stream there, as the kernels want them."""
    import torch

    stream = torch.cuda.current_stream(device)
    return stream.device_index, stream.cuda_stream


def fit_powerlaw(spectra: Sequence[Tensor], *, threshold: float, xmax: float) -> list[PowerLawFit]:
    """Fit 1-D spectra (any order) by estimator ``"ww"``; the bits of `ops.fit_powerlaw`."""
    import torch

    device = spectra[0].device
    lengths = [len(s) for s in spectra]
    count, total = len(lengths), sum(lengths)
    x = torch.cat([s.detach().to(device, torch.float64).sort().values for s in spectra])
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int64, device=device)
    work = torch.empty((3, max(total, 1)), dtype=torch.float64, device=device)
    best = torch.empty(count, dtype=torch.int64, device=device)
    fits = torch.empty(count * ops.FIT_BYTES, dtype=torch.uint8, device=device)
    index, stream = current_stream(device)
    ops.device_fit(
        count=count,
        longest=max(lengths),
        threshold=threshold,
        xmax=xmax,
        x=x.data_ptr(),
        starts=starts.data_ptr(),
        log_x=work[0].data_ptr(),
        tail_sum=work[1].data_ptr(),
        D=work[2].data_ptr(),
        best=best.data_ptr(),
        fits=fits.data_ptr(),
        device=index,
        stream=stream,
    )
    return ops.powerlaw_fits(fits.cpu().numpy())


def gram(W: Tensor) -> Tensor:
    """Gram matrix of the shorter side of a matrix, float64; a block of rows at a time."""
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
    largest = A.abs().amax((-2, -1))
    finite = largest.isfinite()
    # Powers of two, exactly, by their exponent bits.
    exponent = torch.frexp(largest.where(finite, 1.0)).exponent.to(torch.int64).clamp(-1000, 1000)
    shrink, restore = (((1023 + k) << 52).view(torch.float64) for k in (-exponent, exponent))
    A = torch.where(finite[:, None, None], A * shrink[:, None, None], 0.0)
    method = method or ("one_block" if n <= ONE_BLOCK_ORDER else "library")
    if method == "library":
        values = torch.linalg.eigvalsh(A)
    elif method == "one_block":
        values = _bisected(*_one_block(A))
    else:
        parts = zip(*map(_two_stage, A), strict=True)
        values = _bisected(*map(torch.stack, parts))
    host = (values * restore[:, None]).cpu().numpy()
    status = [Status.OK if ok else Status.NOT_FINITE for ok in finite.tolist()]
    return [
        np.sort(row) if s is Status.OK else np.full(n, np.nan)
        for row, s in zip(host, status, strict=True)
    ], status


def _one_block(A: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonals and off-diagonals of a batch, a block a matrix; `A` is destroyed."""
    count, n = A.shape[0], A.shape[-1]
    d, e = A.new_zeros((count, n)), A.new_zeros((count, n))
    index, stream = current_stream(A.device)
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
    index, stream = current_stream(d.device)
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
    """Reduce one symmetric matrix to a band in place, panel by panel, by matrix products.

    Per panel, in compact WY form: Householder QR, Q = I - V T V^T; X = A V T; W = X - V T^T V^T X /
    2; A -= V W^T + W V^T. 4/3 n^3 flops.
    """
    import torch

    n = A.shape[-1]
    for j in range(0, n - band - 1, band):
        panel = A[j + band :, j : j + band]
        factors, tau = torch.geqrf(panel)
        V = factors.tril(-1)[:, : len(tau)]
        V.diagonal().fill_(1.0)
        # T^-1: 1 / tau on the diagonal, above it V^T V. Where tau is zero, T has (almost) nothing.
        inverse = (V.mT @ V).triu(1)
        inverse.diagonal().copy_(1.0 / tau.where(tau != 0, 1e-300))
        rest = A[j + band :, j + band :]
        X = torch.linalg.solve_triangular(inverse, rest @ V, upper=True, left=False)
        S = torch.linalg.solve_triangular(inverse.mT, V.mT @ X, upper=False)
        W = X - 0.5 * (V @ S)
        rest.addmm_(V, W.mT, alpha=-1.0)
        rest.addmm_(W, V.mT, alpha=-1.0)
        panel.copy_(factors.triu())


def _two_stage(A: Tensor, band: int = BAND) -> tuple[Tensor, Tensor]:
    """Diagonal and off-diagonal of one matrix: full to band, then bulge chasing."""
    import torch

    n = A.shape[-1]
    A = A.clone()
    _to_band(A, band)
    lower = A.new_zeros((n, 2 * band))
    for k in range(min(band + 1, n)):
        lower[: n - k, k] = A.diagonal(-k)
    progress = torch.zeros(n, dtype=torch.int32, device=A.device)
    index, stream = current_stream(A.device)
    ops.device_chase(
        a=lower.data_ptr(),
        n=n,
        band=band,
        progress=progress.data_ptr(),
        device=index,
        stream=stream,
    )
    return lower[:, 0].contiguous(), lower[:, 1].contiguous()
