"""Spectral kernels on a CUDA device: tensors that are there in, host arrays out.

Memory comes from torch, kernels run on its current stream, and the only wait is for the results.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from pyspectra import ops
from pyspectra._arrays import HostArray, array_info, is_torch_tensor, require_torch
from pyspectra.errors import DeviceError
from pyspectra.types import FloatArray, PowerLawFit, Status

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Up to this order matrices are reduced by our one-block kernel; above it a batch goes through two
# stages, since the library takes its matrices one after the other, and a single matrix to the
# library. No GPU has measured it yet; benchmarks/gpu does.
ONE_BLOCK_ORDER = 256

# Width of the band between the two stages of our reduction of large matrices.
BAND = 32

# Points of all replicates that are on the device at a time; each takes 24 bytes.
BOOTSTRAP_POINTS = 1 << 25

# Rows of a matrix that are in float64 at a time hold about this many elements.
GRAM_BLOCK = 1 << 24


def on_device(x: object) -> TypeGuard[Tensor]:
    """Tell whether `x` is a tensor that the kernels of this module take."""
    if not is_torch_tensor(x) or not ops.cuda_built() or not getattr(x, "is_cuda", False):
        return False
    info = array_info(x)
    return info is not None and info.problem is None


def resolve_device(device: Any, function: str) -> torch.device | None:
    """Return the CUDA device that an argument `device` names, or None for the CPU.

    Raises ValueError where it names neither, DeviceError where there is no such device.
    """
    # No GPU has yet told us when it wins.
    if device is None or str(device) in ("auto", "cpu"):
        return None
    wanted = str(device)
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (":" in wanted and not (index.isascii() and index.isdigit())):
        raise ValueError(
            f"{function}: 'device' must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}."
        )
    if not ops.cuda_built():
        raise DeviceError(
            f"{function}: 'device' must be 'auto' or 'cpu', for this package was built without "
            f"CUDA; got {wanted!r}."
        )
    require_torch(f"device {wanted!r}")
    import torch

    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise DeviceError(
            f"{function}: 'device' must be one of the {count} CUDA devices that torch "
            f"{torch.__version__} sees, got {wanted!r}."
        )
    return torch.device("cuda", int(index or torch.cuda.current_device()))


def free_bytes(device: torch.device) -> int:
    """Return how much memory is left on a device."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


class Uploads:
    """Sends tensors to a device on a stream of its own, from pinned memory."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            # What the creator has yet to compute there may be what is read.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Return where any thread finds tensors of the device as the creator left them."""
        import torch

        return torch.cuda.stream(self._stream)

    def send(self, X: HostArray) -> Callable[[Any], Tensor]:
        """Start to send a contiguous array; what comes back takes an index and gives the tensor.

        It is called in the thread and on the stream that use the tensor. Raises MemoryError.
        """
        import torch

        data = X.data if X.data.flags.writeable else X.data.copy()
        if X.dtype == "bfloat16":
            here = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
        else:
            here = torch.from_numpy(data)
        if self._stream is None:
            return here.__getitem__
        stream = self._stream
        with memory_errors(self._device), torch.cuda.stream(stream):
            with contextlib.suppress(RuntimeError):  # too much is locked: slower without
                here = here.pin_memory()
            there = here.to(self._device, non_blocking=True)
            done = stream.record_event()

        def arrived(index: Any) -> Tensor:
            user = torch.cuda.current_stream(there.device)
            user.wait_event(done)
            there.record_stream(user)
            return there[index]

        return arrived


@contextlib.contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn torch's error into MemoryError."""
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MemoryError(f"not enough memory on {device}") from error


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
    x = torch.cat([s.detach().to(device, torch.float64).sort().values for s in spectra])
    work = torch.empty((3, max(len(x), 1)), dtype=torch.float64, device=device)
    return _fit(x, _starts(lengths, device), max(lengths), work, threshold=threshold, xmax=xmax)


def _starts(lengths: Sequence[int], device: torch.device) -> Tensor:
    import torch

    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int64, device=device)


def _fit(
    x: Tensor | None, starts: Tensor, longest: int, work: Tensor, *, threshold: float, xmax: float
) -> list[PowerLawFit]:
    """Fit the spectra in `x`, or those whose logarithms `work[0]` holds; `starts` has their ends.

    `work`: three rows of float64, as long as all spectra together.
    """
    import torch

    device, count = starts.device, len(starts) - 1
    best = torch.empty(count, dtype=torch.int64, device=device)
    fits = torch.empty(count * ops.FIT_BYTES, dtype=torch.uint8, device=device)
    index, stream = current_stream(device)
    ops.device_fit(
        count=count,
        longest=longest,
        threshold=threshold,
        xmax=xmax,
        x=0 if x is None else x.data_ptr(),
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


def bootstrap_powerlaw(
    spectra: Sequence[Tensor],
    fits: Sequence[PowerLawFit],
    count: int,
    keys: Sequence[int],
    *,
    threshold: float,
    xmax: float,
) -> list[FloatArray]:
    """`ops.bootstrap_powerlaw` of fits that `fit_powerlaw` made of these spectra; the same bits."""
    import torch

    if not fits:
        return []
    device = spectra[0].device
    x = [s.detach().to(device, torch.float64).sort().values for s in spectra]
    x = [s[(s > threshold) & (s <= xmax)] for s in x]
    lengths = [fit.n for fit in fits]
    rows = zip(
        [0, *accumulate(lengths)],
        lengths,
        [fit.index for fit in fits],
        [fit.xmin for fit in fits],
        [fit.alpha for fit in fits],
        keys,
        strict=False,  # there is one place more than spectra: the end
    )
    table = np.array(list(rows), dtype=ops.DEVICE_SOURCE).view(np.uint8)
    sources, points = torch.from_numpy(table).to(device), torch.cat(x)
    index, stream = current_stream(device)
    out = np.full((len(fits), count, 3), np.nan)
    per = min(count, max(1, BOOTSTRAP_POINTS // sum(lengths)))
    for first in range(0, count, per):
        now = min(per, count - first)
        starts = _starts([n for n in lengths for _ in range(now)], device)
        work = torch.empty((3, now * sum(lengths)), dtype=torch.float64, device=device)
        ops.device_draw(
            count=len(fits),
            per=now,
            first=first,
            sources=sources.data_ptr(),
            x=points.data_ptr(),
            starts=starts.data_ptr(),
            log_x=work[0].data_ptr(),
            scratch=work[2].data_ptr(),
            device=index,
            stream=stream,
        )
        again = _fit(None, starts, max(lengths), work, threshold=0.0, xmax=math.inf)
        out[:, first : first + now] = np.array(
            [(fit.alpha, fit.D, fit.n_tail or math.nan) for fit in again]
        ).reshape(len(fits), now, 3)
    return list(out)


def gram(W: Tensor) -> Tensor:
    """Gram matrix of the shorter side of a matrix, float64; a block of rows at a time."""
    with memory_errors(W.device):
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

    with memory_errors(grams[0].device):
        return eigvals(torch.stack(list(grams)))


def eigvals(A: Tensor, *, method: str | None = None) -> tuple[list[FloatArray], list[Status]]:
    """Ascending eigenvalues of symmetric matrices, shape (b, n, n); the lower triangles are read.

    `method`: ``"one_block"`` and ``"two_stage"`` are reductions of ours, ``"library"`` is torch's
    (cuSOLVER); by order and number where None.
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
    if method is None:
        large = "two_stage" if count > 1 else "library"
        method = "one_block" if n <= ONE_BLOCK_ORDER else large
    if method == "library":
        values = torch.linalg.eigvalsh(A)
    else:
        values = _bisected(*(_one_block(A) if method == "one_block" else _two_stage(A)))
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
    """Reduce symmetric matrices, shape (b, n, n), to bands in place; upper triangles hold them.

    Panel by panel, ``Q = I - V T V^T`` (`ops.device_panel`): ``X = A V T``, ``W = X - V T^T V^T X /
    2``, ``A -= V W^T + W V^T``. 2 n^3 flops in matrix products, since both triangles are updated.
    """
    import torch

    count, n = A.shape[0], A.shape[-1]
    vectors, T = A.new_empty((count, band, n)), A.new_empty((count, band, band))
    index, stream = current_stream(A.device)
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
    index, stream = current_stream(A.device)
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
