"""Devices: which there are, how much room they have, how tensors get there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from pyspectra import ops
from pyspectra._arrays import HostArray, array_info, is_torch_tensor, require_torch
from pyspectra.errors import ArgumentValueError, DeviceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def on_device(x: object) -> TypeGuard[Tensor]:
    """Tell whether `x` is a tensor that the kernels of this package take."""
    if not is_torch_tensor(x) or not ops.cuda_built() or not getattr(x, "is_cuda", False):
        return False
    info = array_info(x)
    return info is not None and info.problem is None


def resolve_device(device: Any, function: str) -> torch.device | None:
    """Return the CUDA device that an argument `device` names, or None for the CPU.

    Raises ValueError where it names neither, DeviceError where there is no such device.
    """
    wanted = "cpu" if device is None else str(device)
    kind, _, index = wanted.partition(":")
    numbered = ":" not in wanted or (index.isascii() and index.isdigit())
    # "auto": no GPU has yet told us when it wins.
    if wanted == "auto" or (kind == "cpu" and numbered):
        return None
    if kind != "cuda" or not numbered:
        raise ArgumentValueError(
            function, "device", "be 'auto', 'cpu', 'cuda' or 'cuda:N'", repr(device)
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
            # A tensor to be read may still be in the making on the stream of the creator.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which any thread reads tensors as the creator left them."""
        import torch

        return torch.cuda.stream(self._stream)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return host memory that is sent without a copy: pinned, where there is enough."""
        import torch

        if self._stream is not None:
            # If no more memory can be pinned, a plain array serves: it is sent more slowly.
            with contextlib.suppress(RuntimeError):
                size = math.prod(shape) * dtype.itemsize
                block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
                return block.numpy().view(dtype).reshape(shape)
        return np.empty(shape, dtype)

    def send(self, X: HostArray) -> Callable[[Any], Tensor]:
        """Start to send a contiguous array; what comes back takes an index and gives the tensor.

        It is called in the thread and on the stream that use the tensor. Raises MemoryError.
        """
        import torch

        data = X.data if X.data.flags.writeable else X.data.copy()
        if X.dtype == "bfloat16":
            given = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)
        else:
            given = torch.from_numpy(data)
        if self._stream is None:
            return given.__getitem__
        stream, pinned = self._stream, given
        with memory_errors(self._device), torch.cuda.stream(stream):
            with contextlib.suppress(RuntimeError):  # as in `empty`
                pinned = given if given.is_pinned() else given.pin_memory()
            sent = pinned.to(self._device, non_blocking=True)
            done = stream.record_event()
        if pinned is given:
            # torch knows a pinned block that is under way by its start only. A part of a fused
            # weight begins elsewhere: the block could be read into before it has been sent.
            done.synchronize()

        def arrived(index: Any) -> Tensor:
            user = torch.cuda.current_stream(sent.device)
            user.wait_event(done)
            sent.record_stream(user)
            return sent[index]

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
