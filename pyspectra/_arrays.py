"""The one module that knows tensor libraries.

Everything that enters the package as "an array" passes through :func:`as_host`, which hands on a
:class:`HostArray`: numpy memory with any strides plus the name of its floating-point type.
torch is looked up in ``sys.modules`` and never imported on behalf of a caller who only asks
whether an object is a tensor: an object cannot be one before its library is loaded.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra._support.array_problems import ARRAY_PROBLEMS, ArrayProblem
from pyspectra._support.dtypes import FLOAT_DTYPES, FLOAT_STORAGE
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, missing_dependency

__all__ = [
    "ARRAY_PROBLEMS",
    "FLOAT_DTYPES",
    "Allocate",
    "ArrayInfo",
    "ArrayProblem",
    "HostArray",
    "Loader",
    "StoredArray",
    "array_info",
    "as_host",
    "is_torch_module",
    "is_torch_tensor",
    "raw_array",
    "require_torch",
]

Allocate = Callable[[tuple[int, ...], "np.dtype[Any]"], npt.NDArray[Any]]
"""Returns memory for an array of a shape and type, as `numpy.empty` does."""


@dataclass(frozen=True, eq=False)
class HostArray:
    """Floating-point data in host memory.

    Parameters
    ----------
    data : numpy.ndarray
        The elements, any shape and any strides, native byte order. For ``"bfloat16"`` a
        ``uint16`` array of bit patterns; otherwise an array of the type that `dtype` names.
    dtype : str
        One of ``"float16"``, ``"bfloat16"``, ``"float32"``, ``"float64"``.

    Raises
    ------
    TypeError
        If `dtype` is not one of these, or `data` does not hold it.
    """

    data: npt.NDArray[Any]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in FLOAT_DTYPES:
            raise ArgumentTypeError(
                "HostArray", "dtype", f"be one of {', '.join(FLOAT_DTYPES)}", repr(self.dtype)
            )
        storage = FLOAT_STORAGE[self.dtype]
        if self.data.dtype != storage:
            raise ArgumentTypeError(
                "HostArray", "data", f"hold {storage} for dtype {self.dtype}", str(self.data.dtype)
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def nbytes(self) -> int:
        """Bytes of the elements (not of the memory spanned by a strided view)."""
        return self.data.nbytes

    def view(self, index: Any) -> HostArray:
        """Return a part of the array without copying.

        Parameters
        ----------
        index : int, slice, Ellipsis or tuple of these
            A basic numpy index.

        Returns
        -------
        HostArray
            Shares memory with this array.
        """
        return HostArray(np.asarray(self.data[index]), self.dtype)

    def to_float64(self) -> npt.NDArray[np.float64]:
        """Convert exactly to float64 (a copy; meant for small arrays and tests).

        Returns
        -------
        numpy.ndarray
            float64, same shape. Every supported type embeds exactly in float64.
        """
        if self.dtype == "bfloat16":
            # bfloat16 is the upper half of float32, so that shifting restores the value.
            bits = self.data.astype(np.uint32) << np.uint32(16)
            return np.asarray(bits).view(np.float32).astype(np.float64)
        return self.data.astype(np.float64)


class Loader(ABC):
    """Reads one array from where it lies, into memory of the caller if that is given."""

    @abstractmethod
    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read the elements.

        Parameters
        ----------
        allocate : callable, optional
            Provides the memory that the elements are read into; by default `numpy.empty`.

        Returns
        -------
        HostArray
        """


class StoredArray(Loader):
    """An array whose elements are still in a file, and that knows where.

    Attributes
    ----------
    stored_as : object
        How its numbers were quantised, of an array that is computed from others; else None.
    """

    stored_as: Any = None

    @property
    @abstractmethod
    def info(self) -> ArrayInfo:
        """What is known without reading the elements."""


@dataclass(frozen=True)
class ArrayInfo:
    """What is known about an array without touching its elements.

    Attributes
    ----------
    shape : tuple of int or None
        None where the library has not decided it (lazily initialised parameters).
    dtype : str
        Name of the element type as its library spells it, e.g. ``"int8"``.
    identity : hashable or None
        Equal for two arrays that are the same view of the same memory; None when unknown.
    problem : ArrayProblem or None
        Why the data cannot be read as floating-point host memory, or None if it can.
    """

    shape: tuple[int, ...] | None
    dtype: str
    identity: Hashable | None = None
    problem: ArrayProblem | None = None


def _loaded_torch() -> Any:
    torch = sys.modules.get("torch")
    # A half-imported torch has no Tensor yet.
    return torch if torch is not None and hasattr(torch, "Tensor") else None


def is_torch_tensor(x: object) -> bool:
    """Tell whether `x` is a torch tensor, without importing torch."""
    torch = _loaded_torch()
    return torch is not None and isinstance(x, torch.Tensor)


def is_torch_module(x: object) -> bool:
    """Tell whether `x` is a ``torch.nn.Module``, without importing torch."""
    torch = _loaded_torch()
    nn = getattr(torch, "nn", None)
    return nn is not None and isinstance(x, nn.Module)


def require_torch(purpose: str) -> Any:
    """Import torch.

    Parameters
    ----------
    purpose : str
        What needs it, for the message.

    Returns
    -------
    module
        torch.

    Raises
    ------
    MissingDependencyError
        If torch is missing.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise missing_dependency("torch", purpose) from error


def _dtype_problem(name: str) -> ArrayProblem | None:
    return None if name in FLOAT_DTYPES else ArrayProblem("dtype", {"dtype": name})


def _torch_info(x: Any, identify: bool = True) -> ArrayInfo:
    torch = _loaded_torch()
    dtype = str(x.dtype).removeprefix("torch.")
    kind = type(x)
    names = {c.__name__ for c in kind.__mro__} if kind is not torch.nn.Parameter else ()
    if "UninitializedTensorMixin" in names:
        return ArrayInfo(None, dtype, problem=ArrayProblem("lazy"))
    if x.is_nested:
        return ArrayInfo(None, dtype, problem=ArrayProblem("nested"))
    shape = tuple(map(int, x.shape))
    problem = None
    if "DTensor" in names:
        problem = ArrayProblem("dtensor")
    elif "FakeTensor" in names or x.device.type == "meta":
        problem = ArrayProblem("meta")
    elif x.is_quantized:
        problem = ArrayProblem("quantised", {"dtype": dtype})
    elif x.layout != torch.strided:
        problem = ArrayProblem("sparse", {"layout": str(x.layout).removeprefix("torch.")})
    elif hasattr(x, "__tensor_flatten__"):
        problem = ArrayProblem("subclass", {"type": type(x).__name__})
    if problem is not None:
        return ArrayInfo(shape, dtype, problem=problem)
    identity = None
    if identify and x.numel() > 0:
        # state_dict() wraps parameters in fresh objects: the memory is what tied names share.
        identity = (str(x.device), x.data_ptr(), shape, tuple(x.stride()), dtype)
    return ArrayInfo(shape, dtype, identity, _dtype_problem(dtype))


def _numpy_info(x: npt.NDArray[Any]) -> ArrayInfo:
    dtype = x.dtype.name
    masked = isinstance(x, np.ma.MaskedArray)
    problem = ArrayProblem("masked") if masked else _dtype_problem(dtype)
    identity = None
    if x.size > 0:
        identity = ("numpy", x.__array_interface__["data"][0], x.shape, x.strides, dtype)
    return ArrayInfo(x.shape, dtype, identity, problem)


def array_info(x: object) -> ArrayInfo | None:
    """Describe an array without reading it.

    Parameters
    ----------
    x : object
        Anything.

    Returns
    -------
    ArrayInfo or None
        None if `x` is neither a torch tensor, a numpy array nor a stored array.
    """
    if isinstance(x, StoredArray):
        return x.info
    if is_torch_tensor(x):
        return _torch_info(x)
    if isinstance(x, np.ndarray):
        return _numpy_info(x)
    return None


def _reject(function: str, argument: str, problem: ArrayProblem) -> ArgumentTypeError:
    return ArgumentTypeError(
        function, argument, "be a floating-point array", str(problem), problem.hint
    )


def _no_array(x: object) -> ArrayProblem:
    return ArrayProblem("no_array", {"type": type(x).__name__})


def _host_from_torch(x: Any, dtype: str) -> HostArray:
    x = x.detach().cpu().resolve_neg()
    if dtype == "bfloat16":
        # Both views keep the strides: source and target have the same item size.
        return HostArray(x.view(sys.modules["torch"].int16).numpy().view(np.uint16), dtype)
    return HostArray(x.numpy(), dtype)


def _host_from_numpy(x: npt.NDArray[Any], dtype: str) -> HostArray:
    x = np.asarray(x)  # drops subclasses such as np.matrix, whose indexing differs
    if dtype == "bfloat16":
        bits = x.view(np.uint16)
        return HostArray(bits if bits.flags.aligned else bits.copy(), dtype)
    storage = FLOAT_STORAGE[dtype]
    if x.dtype != storage or not x.flags.aligned:
        x = x.astype(storage)  # foreign byte order or unaligned memory
    return HostArray(x, dtype)


def as_host(x: object, *, function: str, argument: str) -> HostArray:
    """Take any floating-point array as host memory, without a copy where possible.

    Parameters
    ----------
    x : array_like
        numpy array (an ``ml_dtypes`` bfloat16 one too), torch tensor on any device, an object
        with ``__array__``, or numbers in (nested) lists, which become float64.
    function, argument : str
        The public function and its argument, for messages.

    Returns
    -------
    HostArray
        Any strides; shares memory with `x` unless a device, byte order or alignment forbids it.

    Raises
    ------
    TypeError
        If `x` is no array, or not a dense floating-point one.
    ValueError
        If `x` is a ragged list.
    """
    if type(x) is np.ndarray and x.dtype == np.float64 and x.flags.aligned:
        return HostArray(x, "float64")  # a description takes as long as a small matrix
    if (info := _torch_info(x, identify=False) if is_torch_tensor(x) else array_info(x)) is None:
        x = _array_from_like(x, function, argument)
        info = _numpy_info(x)
    if info.problem is not None:
        raise _reject(function, argument, info.problem)
    if isinstance(x, StoredArray):
        return x.load()
    if isinstance(x, np.ndarray):
        return _host_from_numpy(x, info.dtype)
    return _host_from_torch(x, info.dtype)


def raw_array(x: Any) -> npt.NDArray[Any]:
    """Return the elements of a dense array as they are in memory.

    Parameters
    ----------
    x : numpy.ndarray or torch.Tensor
        Of integers, or of floats of any size.

    Returns
    -------
    numpy.ndarray
        Integers, and floats that numpy has, are what they are; others are unsigned integers with
        the same bits.
    """
    if isinstance(x, np.ndarray):
        known = x.dtype.kind in "biuf"
        return np.asarray(x) if known else np.asarray(x).view(f"u{x.dtype.itemsize}")
    torch = _loaded_torch()
    x = x.detach().cpu()
    try:
        return np.asarray(x.numpy())
    except TypeError:  # a type that numpy has not
        return np.asarray(x.view(getattr(torch, f"uint{8 * x.element_size()}")).numpy())


def _array_from_like(x: object, function: str, argument: str) -> npt.NDArray[Any]:
    if x is None or isinstance(x, (str, bytes, dict, set)):
        raise _reject(function, argument, _no_array(x))
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ArgumentValueError(
            function,
            argument,
            "be a rectangular array",
            "nested lists of unequal length",
            "pass one array per matrix",
        ) from error
    except (TypeError, RuntimeError) as error:
        raise _reject(function, argument, _no_array(x)) from error
    if array.dtype == object:
        raise _reject(function, argument, _no_array(x))
    # Written-out numbers carry no element type of their own, so that integers are welcome here.
    if isinstance(x, (list, tuple, int, float)) and array.dtype.kind in "iu":
        return array.astype(np.float64)
    return array
