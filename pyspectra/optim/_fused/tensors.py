"""What the kernel can take: parameters, gradients, packed masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._arrays import array_info
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, DeviceError
from pyspectra.optim._fused import sharded

NARROW = (torch.float16, torch.bfloat16)
"""Types of parameters that can have a float32 master."""

DTYPE_CODES = {getattr(torch, name): code for name, code in ops.DTYPE_CODES.items()}


def check_param(owner: str, p: Tensor, name: str) -> None:
    """Refuse what the kernel cannot update in place; of a DTensor the local part counts.

    Raises
    ------
    DeviceError
        If the parameter is neither in host memory nor on a CUDA device.
    TypeError
        If it is not a dense floating-point tensor.
    ValueError
        If its elements leave gaps in memory, or a shard is not contiguous.
    """
    whole = not sharded.is_sharded(p)
    p = sharded.local(p)
    if not (p.is_cpu or p.is_cuda):
        raise DeviceError(
            f"{owner}: parameter {name!r} must be in host memory or on a CUDA device, got device "
            f"{p.device}. Hint: move the model with .cpu(); there is no step for other devices."
        )
    if p.is_cuda and not ops.cuda_built():
        raise DeviceError(
            f"{owner}: parameter {name!r} must be in host memory, got device {p.device}: this "
            "package was built without CUDA. Hint: move the model with .cpu(), or build where nvcc "
            "is found."
        )
    info = array_info(p)
    if info is None or info.problem is not None:
        raise TypeError(
            f"{owner}: parameter {name!r} must be a dense tensor of "
            f"{', '.join(ops.DTYPE_CODES)}, got {'none' if info is None else info.problem}."
        )
    if not (p.is_contiguous() or (whole and is_dense(p))):
        raise ValueError(
            f"{owner}: parameter {name!r} must be contiguous, or a permutation of the axes of such "
            f"a tensor, got strides {tuple(p.stride())} for shape {tuple(p.shape)}. Hint: p.data = "
            "p.data.contiguous()."
        )


def in_memory(p: Tensor) -> list[int]:
    """Return the axes of a dense tensor in the order in which they lie in memory."""
    strides = p.stride()
    return sorted(range(p.ndim), key=lambda axis: -strides[axis])


def is_dense(p: Tensor) -> bool:
    """Tell whether the elements of `p` fill their memory once, in whatever order of the axes."""
    return p.permute(in_memory(p)).is_contiguous()


def same_layout(x: Tensor, p: Tensor) -> bool:
    """Tell whether element i in the memory of `x` is element i in that of a dense `p`."""
    if p.is_contiguous():
        return x.is_contiguous()
    return x.shape == p.shape and x.permute(in_memory(p)).is_contiguous()


def like_memory(value: Tensor, p: Tensor) -> Tensor:
    """Return `value` laid out in memory as a dense `p` of its shape is; a copy only if need be."""
    if same_layout(value, p):
        return value
    out = torch.empty_like(p, dtype=value.dtype, device=value.device, requires_grad=False)
    return out.copy_(value)


def mask_in_memory(mask: Tensor, p: Tensor) -> Tensor:
    """Return a packed mask with its bits in the order in which the elements of `p` lie."""
    if p.is_contiguous():
        return mask
    bits = mask_bits(mask, p.numel()).reshape(p.shape)
    return packed(bits.permute(in_memory(p)).contiguous())


def usable_grad(owner: str, p: Tensor, name: str) -> Tensor:
    """Return the gradient of `p` (the local part), laid out as that (a copy only if need be).

    Raises
    ------
    TypeError
        If it is sparse, or of another type or shape than the parameter.
    """
    assert p.grad is not None
    grad = sharded.local(sharded.laid_out(p.grad, p))
    p = sharded.local(p)
    if grad.layout is not torch.strided:
        raise TypeError(
            f"{owner}: the gradient of {name!r} must be dense, got layout {grad.layout}. "
            "Hint: build the embedding with sparse=False."
        )
    if grad.dtype is not p.dtype or grad.shape != p.shape or grad.device != p.device:
        raise TypeError(
            f"{owner}: the gradient of {name!r} must be {p.dtype} of shape {tuple(p.shape)} on "
            f"{p.device}, got {grad.dtype} of shape {tuple(grad.shape)} on {grad.device}."
        )
    return like_memory(grad.resolve_neg(), p)


def state_dtype(p: Tensor) -> torch.dtype:
    """Type of moments and average: float32, or float64 for float64 parameters."""
    return torch.float64 if p.dtype is torch.float64 else torch.float32


def mask_bytes(size: int) -> int:
    """Length of a packed mask."""
    return (size + 7) // 8


def packed(bits: Tensor) -> Tensor:
    """Pack a boolean tensor, eight elements a byte, on its device."""
    bytes_ = np.packbits(bits.cpu().numpy().reshape(-1), bitorder="little")
    return torch.from_numpy(bytes_).to(bits.device)


def count_ones(mask: Tensor) -> int:
    """Elements of the child network in a packed mask."""
    return int(np.count_nonzero(np.unpackbits(mask.cpu().numpy())))


def mask_bits(mask: Tensor, size: int) -> Tensor:
    """Boolean elements of a packed mask, on its device."""
    bits = np.unpackbits(mask.cpu().numpy(), count=size, bitorder="little")
    return torch.from_numpy(bits.view(bool)).to(mask.device)


def pack_mask(owner: str, mask: Any, p: Tensor, name: str) -> Tensor:
    """Pack a boolean mask of the shape of `p` into bits (True = trainable), the local part.

    Raises
    ------
    TypeError, ValueError
        If it is not boolean, or of another shape.
    """
    if isinstance(mask, Tensor):
        mask = sharded.whole(mask).detach().cpu().numpy()
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        got = str(getattr(mask, "dtype", type(mask).__name__))
        raise ArgumentTypeError(owner, "mask", f"hold a boolean array for {name!r}", got)
    if mask.shape != tuple(p.shape):
        requirement = f"hold an array of shape {tuple(p.shape)} for {name!r}"
        raise ArgumentValueError(owner, "mask", requirement, str(mask.shape))
    # torch takes no memory that is read-only or runs backwards.
    part = np.require(sharded.part(mask, p), requirements=["C", "W"])
    return packed(torch.from_numpy(part)).to(sharded.local(p).device)
