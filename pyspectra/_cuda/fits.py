"""Power-law fits and their bootstrap on a CUDA device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from pyspectra import ops
from pyspectra._cuda import devices
from pyspectra.types import FloatArray, PowerLawFit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Points of all replicates that are on the device at a time; each takes 24 bytes.
BOOTSTRAP_POINTS = 1 << 25


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
    index, stream = devices.current_stream(device)
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
    advance: Callable[[int], object] = lambda _made: None,
    *,
    threshold: float,
    xmax: float,
) -> list[FloatArray]:
    """`ops.bootstrap_powerlaw` of fits that `fit_powerlaw` made of these spectra; the same bits.

    `advance` is called with the number of replicates (of each spectrum) that have just been made.
    """
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
    index, stream = devices.current_stream(device)
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
        advance(now)
    return list(out)
