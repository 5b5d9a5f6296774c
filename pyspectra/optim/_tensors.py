"""Torch tensors as rows of the kernel's table: every address passes a check first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyspectra import ops
from pyspectra._arrays import array_info
from pyspectra.errors import DeviceError

_DTYPES = {getattr(torch, name): code for name, code in ops.DTYPE_CODES.items()}


def check_param(p: Tensor, name: str) -> None:
    """Refuse what the kernel cannot update in place.

    Raises
    ------
    DeviceError
        If the parameter is not in host memory.
    TypeError
        If it is not a dense floating-point tensor.
    ValueError
        If it is not contiguous.
    """
    if not p.is_cpu:
        raise DeviceError(
            f"ChildAdamW: parameter {name!r} must be in host memory, got device {p.device}. "
            "Hint: move the model with .cpu(); there is no step for other devices."
        )
    info = array_info(p)
    if info is None or info.problem is not None:
        raise TypeError(
            f"ChildAdamW: parameter {name!r} must be a dense tensor of "
            f"{', '.join(ops.DTYPE_CODES)}, got {'none' if info is None else info.problem}."
        )
    if not p.is_contiguous():
        raise ValueError(
            f"ChildAdamW: parameter {name!r} must be contiguous, got strides {tuple(p.stride())} "
            f"for shape {tuple(p.shape)}. Hint: p.data = p.data.contiguous()."
        )


def usable_grad(p: Tensor, name: str) -> Tensor:
    """Return the gradient of `p`, contiguous (a copy only where it is not).

    Raises
    ------
    TypeError
        If it is sparse, or of another type or size than the parameter.
    """
    grad = p.grad
    assert grad is not None
    if grad.layout is not torch.strided:
        raise TypeError(
            f"ChildAdamW: the gradient of {name!r} must be dense, got layout {grad.layout}. "
            "Hint: build the embedding with sparse=False."
        )
    if grad.dtype is not p.dtype or grad.numel() != p.numel() or not grad.is_cpu:
        raise TypeError(
            f"ChildAdamW: the gradient of {name!r} must be {p.dtype} of shape {tuple(p.shape)} in "
            f"host memory, got {grad.dtype} of shape {tuple(grad.shape)} on {grad.device}."
        )
    return grad if grad.is_contiguous() and not grad.is_neg() else grad.contiguous().resolve_neg()


def state_dtype(p: Tensor) -> torch.dtype:
    """Type of moments and average: float32, or float64 for float64 parameters."""
    return torch.float64 if p.dtype is torch.float64 else torch.float32


def mask_bytes(size: int) -> int:
    """Length of a packed mask."""
    return (size + 7) // 8


def _address(state: Mapping[str, Any], key: str, name: str, dtype: torch.dtype, size: int) -> int:
    x = state[key]
    if (
        not isinstance(x, Tensor)
        or x.dtype is not dtype
        or x.numel() != size
        or not x.is_cpu
        or not x.is_contiguous()
    ):
        got = f"{x.dtype} {tuple(x.shape)} on {x.device}" if isinstance(x, Tensor) else repr(x)
        raise TypeError(
            f"ChildAdamW: state {key!r} of {name!r} must be a contiguous {dtype} tensor of {size} "
            f"elements in host memory, got {got}. Hint: after changing the type or shape of a "
            "parameter, build a new optimizer."
        )
    return x.data_ptr()


def row(
    p: Tensor,
    grad: Tensor,
    state: Mapping[str, Any],
    name: str,
    *,
    ema: bool,
    masked: bool,
    key: int,
    option: int,
) -> tuple[int, ...]:
    """Return the row of the kernel's table for one parameter (columns: `ops.optim_step`).

    Raises
    ------
    DeviceError, TypeError, ValueError
        If any of the tensors breaks the memory contract.
    """
    code = _DTYPES.get(p.dtype)
    if code is None or not p.is_cpu or p.layout is not torch.strided or not p.is_contiguous():
        check_param(p, name)
    assert code is not None
    size, dtype = p.numel(), state_dtype(p)
    return (
        p.data_ptr(),
        grad.data_ptr(),
        _address(state, "exp_avg", name, dtype, size),
        _address(state, "exp_avg_sq", name, dtype, size),
        _address(state, "ema", name, dtype, size) if ema else 0,
        _address(state, "mask", name, torch.uint8, mask_bytes(size)) if masked else 0,
        size,
        0,
        key,
        code,
        option,
    )


def pack_mask(mask: Any, p: Tensor, name: str) -> Tensor:
    """Pack a boolean mask of the shape of `p` into bits (True = trainable).

    Raises
    ------
    TypeError, ValueError
        If it is not boolean, or of another shape.
    """
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        got = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"ChildAdamW: 'mask' of {name!r} must be a boolean array, got {got}.")
    if mask.shape != tuple(p.shape):
        raise ValueError(
            f"ChildAdamW: 'mask' of {name!r} must have shape {tuple(p.shape)}, got {mask.shape}."
        )
    return torch.from_numpy(np.packbits(mask.reshape(-1), bitorder="little"))


def clip_factor(grads: list[Tensor], max_norm: float | None) -> float:
    """Factor that `torch.nn.utils.clip_grad_norm_` would multiply the gradients with.

    Formed in float64, and nothing is written; 1.0 where `max_norm` is None.
    """
    if max_norm is None or not grads:
        return 1.0
    wide = [torch.float64 if g.dtype is torch.float64 else torch.float32 for g in grads]
    norms = [float(torch.linalg.vector_norm(g, dtype=d)) for g, d in zip(grads, wide, strict=True)]
    total = math.sqrt(sum(norm * norm for norm in norms))
    return 1.0 if max_norm / (total + 1e-6) >= 1.0 else max_norm / (total + 1e-6)
