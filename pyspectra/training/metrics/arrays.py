"""What the metrics take: arrays or tensors, of any float or integer type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyspectra._arrays import is_torch_tensor
from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError

__all__ = ["as_array"]


def as_array(function: str, argument: str, value: Any) -> NDArray[Any]:
    """Return an array or tensor as numpy's: floats as float64, integers and truth values as int64.

    Raises
    ------
    ArgumentTypeError
        If it holds no real numbers.
    """
    if is_torch_tensor(value):
        # Not all of torch's types are numpy's: bfloat16 is not.
        value = value.detach()
        value = (value.double() if value.is_floating_point() else value).cpu().numpy()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = np.asarray(None)
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    if array.dtype.kind in "iub":
        return array.astype(np.int64, copy=False)
    raise ArgumentTypeError(function, argument, "be an array of real numbers", shown(value))
