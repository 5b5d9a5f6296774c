"""What a torch checkpoint pickles: tensors as addresses, and everything else by its name.

The pickle refers to a storage by its key and makes tensors of it by calling a few functions of
torch. These are known here by their names; of what is not known, a harmless object becomes
`Foreign`, and whatever would run code is an error. Nothing is imported or called.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pyspectra._arrays import Allocate, ArrayInfo, ArrayProblem, HostArray, StoredArray
from pyspectra._support.dtypes import BY_NAME, BY_TORCH_STORAGE, DType
from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import Stamp
from pyspectra.weights.formats.harmless import class_made
from pyspectra.weights.formats.pickle_budget import Budget
from pyspectra.weights.formats.pickle_values import Foreign, Global, PickleError
from pyspectra.weights.formats.stored import StoredTensor, row_major
from pyspectra.weights.formats.torchao import torchao_tensor

__all__ = ["TorchObjects"]

MAX_RANK: Final = 32  # numpy's limit, before version 2
MAX_STORAGE_KEY: Final = 256  # torch counts them, or uses addresses
# A view may repeat the elements of its storage: a few bytes of a file that claim to be more than
# this are listed, and not read.
MAX_REPEATED_BYTES: Final = 1 << 24


_PLAIN_TENSORS: Final = frozenset((
    "torch.Tensor", "torch._tensor.Tensor", "torch.nn.Buffer", "torch.nn.Parameter",
    "torch.nn.parameter.Buffer", "torch.nn.parameter.Parameter",
))  # fmt: skip


@dataclass(frozen=True)
class _Storage:
    """The bytes that tensors share: None for a type that only the tensor knows."""

    key: str
    dtype: DType | None
    offset: int
    nbytes: int


@dataclass(frozen=True)
class _Unread(StoredArray):
    """A tensor that is listed, and cannot be read."""

    shape: tuple[int, ...] | None
    dtype: str
    problem: ArrayProblem

    @property
    def info(self) -> ArrayInfo:
        return ArrayInfo(self.shape, self.dtype, None, self.problem)

    def load(self, allocate: Allocate | None = None) -> HostArray:
        raise FormatError(f"cannot be read: {self.problem}")


class TorchObjects:
    """What a torch pickle refers to, calls and builds.

    Parameters
    ----------
    path : Path
        The file.
    when : Stamp
        What it was like when it was opened.
    find_storage : callable
        Key of a storage -> its first byte in the file and its length in bytes.
    big_endian : bool
        Byte order of the storages.
    item_bytes : dict, optional
        Gets the bytes of an element for each key of a storage that is referred to.
    """

    def __init__(
        self,
        path: Path,
        when: Stamp,
        find_storage: Callable[[str], tuple[int, int]],
        big_endian: bool = False,
        item_bytes: dict[str, int] | None = None,
    ) -> None:
        self._path = path
        self._stamp = when
        self._find_storage = find_storage
        self._big_endian = big_endian
        self._item_bytes = {} if item_bytes is None else item_bytes
        self._copying: dict[str, Callable[[tuple[Any, ...], Budget], Any]] = {
            "collections.OrderedDict": _ordered_dict,
            "collections.Counter": _counter,
            "builtins.set": lambda a, budget: set(_elements(a, budget)),
            "builtins.frozenset": lambda a, budget: frozenset(_elements(a, budget)),
            "builtins.bytearray": lambda a, budget: bytearray(_encoded(a, budget) if a else b""),
            "builtins.getattr": _attribute,
            "_codecs.encode": _encoded,
        }
        self._known: dict[str, Callable[[tuple[Any, ...]], Any]] = {
            "collections.defaultdict": lambda _: {},
            "numpy.dtype": _numpy_dtype,
            "numpy.core.multiarray.scalar": _numpy_scalar,
            "numpy._core.multiarray.scalar": _numpy_scalar,
            "numpy.core.numeric._frombuffer": lambda _: Foreign("numpy.ndarray"),
            "numpy._core.numeric._frombuffer": lambda _: Foreign("numpy.ndarray"),
            "torch.Size": lambda a: _sizes(a[0]),
            "torch.serialization._get_layout": _layout,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": lambda a: self._tensor(a[:4], metadata=a[6:7]),
            "torch._utils._rebuild_tensor_v3": lambda a: self._tensor(
                a[:4], _named_dtype(a[6]), a[7:8]
            ),
            "torch._utils._rebuild_parameter": lambda a: a[0],
            "torch._utils._rebuild_parameter_with_state": lambda a: a[0],
            "torch._utils._rebuild_qtensor": self._quantised,
            "torch._utils._rebuild_sparse_tensor": _sparse,
            "torch._utils._rebuild_nested_tensor": lambda a: _Unread(
                None, a[0].info.dtype, ArrayProblem("nested")
            ),
            "torch._utils._rebuild_meta_tensor_no_storage": lambda a: _Unread(
                _sizes(a[1]), _named_dtype(a[0]), ArrayProblem("meta")
            ),
            "torch._utils._rebuild_wrapper_subclass": _wrapper,
            "torch._tensor._rebuild_from_type": self._from_type,
            "torch._tensor._rebuild_from_type_v2": self._from_type,
            "torch.nn.parameter.UninitializedParameter": lambda _: _LAZY,
            "torch.nn.parameter.UninitializedBuffer": lambda _: _LAZY,
        }

    def persistent(self, reference: Any) -> _Storage | Global:
        """Answer a reference to what lies outside of the pickle: a storage.

        The old layout also writes the class of a module in this way, with its source code.
        """
        if not isinstance(reference, tuple):
            raise PickleError("a reference that is no tuple")
        if len(reference) > 1 and reference[0] == "module" and isinstance(reference[1], Global):
            return reference[1]
        if len(reference) < 5 or reference[0] != "storage":
            raise PickleError("a reference to what is no storage")
        kind, key, _, count = reference[1:5]
        if not isinstance(kind, Global) or not isinstance(key, str) or not _is_count(count):
            raise PickleError("an invalid reference to a storage")
        if len(key) > MAX_STORAGE_KEY:
            raise PickleError(f"a storage whose key has {len(key)} characters")
        if kind.name == "UntypedStorage":
            dtype, nbytes = None, count
        else:
            dtype = BY_TORCH_STORAGE.get(kind.name)
            if dtype is None:
                raise PickleError(f"a storage of unknown type {kind.path}")
            nbytes = count * dtype.item_bytes
        if len(reference) > 5 and reference[5] is not None:
            raise PickleError("a storage that is a view of another, which torch wrote before 1.0")
        if self._item_bytes.setdefault(key, nbytes // max(count, 1)) != nbytes // max(count, 1):
            raise PickleError(f"storage {key!r} has elements of two sizes")
        offset, present = self._find_storage(key)
        if nbytes > present:
            raise PickleError(f"storage {key!r} has {present} bytes instead of {nbytes}")
        return _Storage(key, dtype, offset, nbytes)

    def call(
        self, function: Global, arguments: tuple[Any, ...], is_class: bool, budget: Budget
    ) -> Any:
        """Answer what would be called: a value if it is known, `Foreign` if it is harmless.

        Raises
        ------
        CodeRefusedError
            If it would run code.
        PickleError
            If its arguments make no sense, or it copies too much.
        """
        try:
            if (known := self._known.get(function.path)) is not None:
                return known(arguments)
            if (copying := self._copying.get(function.path)) is not None:
                return copying(arguments, budget)
        except PickleError:
            raise
        except (IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PickleError(f"{function.path} has invalid arguments") from error
        return Foreign(class_made(function, arguments, is_class))

    # --- tensors ------------------------------------------------------------

    def _tensor(
        self, arguments: tuple[Any, ...], dtype_name: str = "", metadata: tuple[Any, ...] = ()
    ) -> StoredArray:
        storage, first, size, stride = arguments
        shape, strides = _sizes(size), _sizes(stride)
        if not isinstance(storage, _Storage) or not _is_count(first):
            raise PickleError("a tensor without a storage")
        if len(shape) != len(strides):
            raise PickleError(f"a tensor with {len(shape)} axes and {len(strides)} strides")
        dtype = BY_NAME.get(dtype_name) if dtype_name else storage.dtype
        if dtype is None:
            unknown = ArrayProblem("dtype", {"dtype": dtype_name})
            return _Unread(shape, dtype_name or "unknown", unknown)
        stored = storage.nbytes // dtype.item_bytes
        count = math.prod(shape)
        last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if count and last >= stored:
            raise PickleError(f"a tensor of shape {shape} lies outside of its storage")
        problem: ArrayProblem | None = None
        if metadata and isinstance(metadata[0], dict) and metadata[0].get("neg"):
            problem = ArrayProblem("negated")
        elif count > stored and count * dtype.item_bytes > MAX_REPEATED_BYTES:
            problem = ArrayProblem("repeated", {"count": str(count), "stored": str(stored)})
        return StoredTensor(
            self._path,
            self._stamp,
            f"of storage {storage.key}",
            dtype.name,
            shape,
            storage.offset + first * dtype.item_bytes,
            None if row_major(shape, strides) else strides,
            self._big_endian,
            identity=(self._path, storage.offset, first, shape, strides, dtype.name)
            if count
            else None,
            problem=problem,
        )

    def _quantised(self, arguments: tuple[Any, ...]) -> StoredArray:
        storage, _, size = arguments[:3]
        dtype = storage.dtype.name
        return _Unread(_sizes(size), dtype, ArrayProblem("quantised", {"dtype": dtype}))

    def _from_type(self, arguments: tuple[Any, ...]) -> Any:
        function, of_type, inner = arguments[:3]
        if not isinstance(function, Global) or not isinstance(inner, tuple):
            raise PickleError("a tensor of a type without its arguments")
        rebuild = self._known.get(function.path)
        if rebuild is None or rebuild == self._from_type:
            raise PickleError("a tensor of a type, made by what makes no tensor")
        made = rebuild(inner)
        path = of_type.path if isinstance(of_type, Global) else "unknown"
        if path.startswith("torchao.") and isinstance(made, StoredArray) and made.info.shape:
            state = arguments[3] if len(arguments) > 3 else None
            name = path.rpartition(".")[2]
            return torchao_tensor(name, made.info.shape, state) or made
        if path in _PLAIN_TENSORS or not isinstance(made, StoredArray):
            return made
        return _subclass(path, made.info.shape, made.info.dtype)


_LAZY: Final = _Unread(None, "unknown", ArrayProblem("lazy"))

_NUMPY_NAMES: Final = {
    t.str[1:]: t.name
    for t in map(np.dtype, ("?", *np.typecodes["AllInteger"], *np.typecodes["AllFloat"]))
}


def _is_count(x: object) -> bool:
    return type(x) is int and 0 <= x < 1 << 63


def _sizes(x: Any) -> tuple[int, ...]:
    if isinstance(x, tuple | list) and len(x) > MAX_RANK:
        raise PickleError(f"a tensor with {len(x)} axes")
    if not isinstance(x, tuple | list) or not all(map(_is_count, x)):
        raise PickleError("lengths or strides that are no counts")
    return tuple(x)


def _named_dtype(x: Any) -> str:
    if not isinstance(x, Global) or x.module != "torch":
        raise PickleError("an element type that is none of torch's")
    return x.name


def _subclass(path: str, shape: tuple[int, ...] | None, dtype: str) -> _Unread:
    name = path.rpartition(".")[2]
    if name == "DTensor":
        return _Unread(shape, dtype, ArrayProblem("dtensor"))
    return _Unread(shape, dtype, ArrayProblem("subclass", {"type": name}))


def _wrapper(arguments: tuple[Any, ...]) -> _Unread:
    of_type, dtype, size = arguments[:3]
    return _subclass(of_type.path, _sizes(size), _named_dtype(dtype))


def _sparse(arguments: tuple[Any, ...]) -> _Unread:
    layout, data = arguments[:2]
    name = layout.detail.rpartition(".")[2]
    # Indices and values, or compressed and plain indices and values; then the shape.
    values, size = (data[1], data[2]) if name == "sparse_coo" else (data[2], data[3])
    return _Unread(_sizes(size), values.info.dtype, ArrayProblem("sparse", {"layout": name}))


def _ordered_dict(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    pairs = arguments[0] if arguments else ()
    if not isinstance(pairs, list | tuple):
        raise PickleError("a dictionary is made of what is no list of pairs")
    budget.copied_items(len(pairs))
    made: OrderedDict[Any, Any] = OrderedDict()
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise PickleError("a dictionary is made of what is no list of pairs")
        made[budget.key(pair[0])] = pair[1]
    return made


def _counter(arguments: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    counts = arguments[0] if arguments else {}
    if not isinstance(counts, dict):
        raise PickleError("a counter is made of what is no dictionary")
    budget.copied_items(len(counts))
    return dict(counts)


def _elements(arguments: tuple[Any, ...], budget: Budget) -> Iterator[Any]:
    elements = arguments[0] if arguments else ()
    if not isinstance(elements, list | tuple | set | frozenset):
        raise PickleError("a set is made of what is no list")
    budget.copied_items(len(elements))
    return map(budget.key, elements)


def _encoded(arguments: tuple[Any, ...], budget: Budget) -> bytes:
    """Bytes, as the older pickles write them."""
    value = arguments[0]
    encoding = arguments[1] if len(arguments) > 1 else "latin1"
    if not isinstance(value, str | bytes) or encoding not in ("latin1", "latin-1"):
        raise PickleError("bytes that are no bytes")
    budget.copied_bytes(len(value))
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _attribute(arguments: tuple[Any, ...], budget: Budget) -> Global | Foreign:
    """A class inside of a class, as the older pickles write it; not its value, but its name."""
    owner, name = arguments
    if isinstance(owner, Global) and isinstance(name, str):
        budget.copied_bytes(len(owner.name) + len(name))
        return Global(owner.module, f"{owner.name}.{name}")
    return Foreign("builtins.getattr")


def _layout(arguments: tuple[Any, ...]) -> Foreign:
    (name,) = arguments
    if not isinstance(name, str):
        raise PickleError("a layout without a name")
    return Foreign("torch.layout", name[:80])


def _numpy_dtype(arguments: tuple[Any, ...]) -> Foreign:
    code = arguments[0]
    known = isinstance(code, str) and len(code) < 8
    return Foreign(
        "numpy.dtype", _NUMPY_NAMES.get(code.lstrip("<>=|"), "void") if known else "void"
    )


def _numpy_scalar(arguments: tuple[Any, ...]) -> Foreign:
    return Foreign(f"numpy.{arguments[0].detail}")
