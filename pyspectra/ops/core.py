"""What all doors share: the compiled core is the right one, element types, threads, versions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pyspectra import _core
from pyspectra._arrays import FLOAT_DTYPES, HostArray
from pyspectra.types import Status

__all__ = [
    "DTYPE_CODES",
    "available_isas",
    "build_info",
    "cuda_built",
    "get_isa",
    "get_num_threads",
    "one_thread",
    "set_isa",
    "set_num_threads",
]

if _core.__file__ is None:  # only the stubs, which Python takes for a package without a module
    raise ImportError(
        f"pyspectra: {os.path.dirname(os.path.abspath(__file__))} holds no compiled core. It is a "
        "source tree, which Python finds before the installed package in the folder that holds it. "
        "Hint: run Python from another folder; if nothing is installed, pip install that folder."
    )
if _core.status_names() != {status.name.lower(): status.value for status in Status}:
    raise ImportError(
        "pyspectra: the compiled core is of another version than the Python modules. "
        "Hint: install the package again."
    )

DTYPE_CODES = {name: code for code, name in enumerate(FLOAT_DTYPES)}

cuda_built = _core.cuda.built
get_num_threads = _core.num_threads
set_num_threads = _core.set_num_threads
get_isa = _core.isa
set_isa = _core.set_isa


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let kernels that the calling thread calls in a ``with`` block run in that thread alone."""
    before = _core.is_alone()
    try:
        _core.set_alone(True)
        yield
    finally:
        _core.set_alone(before)


def build_info() -> dict[str, Any]:
    """Return compiler, version and CUDA facts of the compiled core."""
    return {
        **_core.build_info(),
        "cuda_built": _core.cuda.built(),
        "cuda_available": _core.cuda.available(),
        "cuda_devices": _core.cuda.device_names(),
    }


def available_isas() -> tuple[str, ...]:
    """Return the instruction-set levels that this build and this machine both have."""
    return tuple(_core.available_isas())


def readable(a: np.ndarray) -> np.ndarray:
    # A field of a structured array can have strides that are no multiple of the item size, and a
    # tensor over a buffer (torch.frombuffer) can begin at any byte.
    if a.flags.aligned:
        size = a.itemsize
        for stride in a.strides:
            if stride % size:
                break
        else:
            return a
    return a.copy()


def matrices(X: Sequence[HostArray]) -> tuple[list[np.ndarray], int]:
    dtypes = {x.dtype for x in X}
    if len(dtypes) > 1:
        raise TypeError(f"ops: matrices of one call must share a dtype, got {sorted(dtypes)}.")
    return [readable(x.data) for x in X], DTYPE_CODES[dtypes.pop()] if dtypes else 3
