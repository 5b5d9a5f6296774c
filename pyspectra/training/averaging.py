"""The mean of checkpoints, computed a few elements at a time while it is written."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyspectra._arrays import HostArray, require_torch
from pyspectra._support.dtypes import BY_NAME, DType
from pyspectra._support.files import NewFile
from pyspectra.training.checkpoint_extras import as_bytes
from pyspectra.training.checkpoint_files import Checkpoint, Tensor
from pyspectra.training.torch_files import save_torch

__all__ = ["Job", "round_to"]

F64 = npt.NDArray[np.float64]

# Elements that are in memory at a time, of one checkpoint: a tensor is never there as a whole.
CHUNK: Final = 1 << 18


def round_to(values: F64, dtype: str) -> npt.NDArray[Any]:
    """Round float64 to another type, once, to nearest even.

    Parameters
    ----------
    values : numpy.ndarray
        float64.
    dtype : str
        ``"float64"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Returns
    -------
    numpy.ndarray
        Little-endian, of that type; of ``"bfloat16"`` the bit patterns as uint16.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != "bfloat16":
            return values.astype(_little(BY_NAME[dtype]), copy=False)
        single = values.astype(np.float32)
        wide = single.astype(np.float64)
        bits = single.view(np.uint32)
        # Rounding twice errs where the first step lands on a tie of the second. So the first one
        # rounds to odd: toward zero, with the last bit set where something was cut off.
        bits -= np.abs(wide) > np.abs(values)
        bits |= (wide != values) & ~np.isnan(values)
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16
        # Adding would carry the payload of a NaN into infinity or the sign.
        quiet = (bits >> 16) | np.uint32(0x40)
        return np.where(np.isnan(values), quiet, rounded).astype("<u2")


class Job:
    """One average, computed as it is written."""

    def __init__(
        self, newest: Checkpoint, checkpoints: list[Checkpoint], shares: list[float] | None
    ) -> None:
        self.newest = newest
        self.checkpoints = checkpoints
        self.shares = shares
        self.not_finite: list[str] = []

    def chunks(self, key: str) -> Iterator[npt.NDArray[Any]]:
        """Yield the elements of the result, some at a time."""
        tensor = self.newest.tensors[key]
        item = tensor.dtype.item_bytes
        with contextlib.ExitStack() as stack:
            if not tensor.dtype.is_float:
                sources = [(1.0, stack.enter_context(tensor.open()))]
            else:
                shares = self.shares or [1.0] * len(self.checkpoints)
                sources = [
                    (share, stack.enter_context(checkpoint.tensors[key].open()))
                    for checkpoint, share in zip(self.checkpoints, shares, strict=True)
                    if share > 0
                ]
            finite = True
            for begin in range(0, tensor.nbytes, CHUNK * item):
                end = min(begin + CHUNK * item, tensor.nbytes)
                if not tensor.dtype.is_float:
                    yield sources[0][1](begin, end)
                    continue
                total = self._mean(
                    (share, _to_float64(read(begin, end), tensor.dtype)) for share, read in sources
                )
                finite = finite and bool(np.isfinite(total).all())
                yield round_to(total, tensor.dtype.name)
        if not finite:
            self.not_finite.append(key)

    def _mean(self, weighted: Iterator[tuple[float, F64]]) -> F64:
        """Return the mean; elements that are the same in all files stay as they are, bit by bit."""
        share, first = next(weighted)
        total = first if self.shares is None else first * share
        same, count = np.ones(len(first), dtype=bool), 1
        with np.errstate(over="ignore", invalid="ignore"):
            for share, values in weighted:
                total = total + (values if self.shares is None else values * share)
                same &= values.view(np.uint64) == first.view(np.uint64)
                count += 1
            # A sum rounds, overflows, and may have another sign of zero.
            return np.where(same, first, total / count if self.shares is None else total)

    def write_safetensors(self, file: Path, advance: Callable[[str], None]) -> None:
        """Write a new safetensors file: the header first, then tensor after tensor."""
        # Wide types first, as the reference implementation does: every tensor is then aligned.
        order = sorted(self.newest.tensors.values(), key=lambda t: (-t.dtype.item_bytes, t.key))
        with NewFile(file) as handle:
            handle.write(_header(order, dict(self.newest.metadata) or {"format": "pt"}))
            for tensor in order:
                for chunk in self.chunks(tensor.key):
                    handle.write(np.ascontiguousarray(chunk).view(np.uint8).data)
                advance(tensor.key)

    def write_torch(self, file: Path, suffix: str, advance: Callable[[str], None]) -> None:
        """Write a new torch checkpoint: a state dict, or a ``.ckpt`` of Lightning from such."""
        torch = require_torch("writing a torch checkpoint")
        state: OrderedDict[str, Any] = OrderedDict()
        owners: dict[tuple[Any, ...], str] = {}
        for key, tensor in self.newest.tensors.items():
            # Tied in every checkpoint: tied in the result, and stored once.
            identity = tuple(c.tensors[key].identity for c in self.checkpoints)
            owner = None if None in identity else owners.setdefault(identity, key)
            if owner is not None and owner != key:
                state[key] = state[owner]
            else:
                result = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype.name))
                if tensor.nbytes:
                    flat, done = as_bytes(result), 0
                    for chunk in self.chunks(key):
                        raw = np.ascontiguousarray(chunk).view(np.uint8)
                        flat[done : done + len(raw)] = raw
                        done += len(raw)
                state[key] = result
            advance(key)
        state.update(self.newest.extras)
        state.__dict__.update(self.newest.attributes)
        # Lightning makes a module from what stands beside the state dict.
        lightning = suffix == ".ckpt" and self.newest.container
        value = {**self.newest.container, "state_dict": state} if lightning else state
        save_torch(torch.save, value, file)


def _to_float64(raw: npt.NDArray[np.uint8], dtype: DType) -> F64:
    data = raw.view(_little(dtype)).astype(dtype.numpy, copy=False)
    return HostArray(data, dtype.name).to_float64()


def _little(dtype: DType) -> np.dtype[Any]:
    return dtype.numpy.newbyteorder("<")


def _header(order: list[Tensor], metadata: dict[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for t in order:
        end = position + t.nbytes
        header[t.key] = {"dtype": t.dtype.code, "shape": t.shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw
