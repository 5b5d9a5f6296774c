"""The one table of element types: how each is called, how it is stored, what can be done with it.

A type is a record in the list below; whoever needs a name, a size or a spacing derives it from
here. A name that is in no record is a type that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["BY_CODE", "BY_NAME", "BY_TORCH_STORAGE", "DTYPES", "FLOAT_DTYPES", "DType", "find"]


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes
    ----------
    name : str
        What numpy and torch call it, e.g. ``"float32"``.
    family : str
        ``"float"`` (what the kernels read), ``"low_precision"``, ``"integer"``, ``"boolean"`` or
        ``"complex"``.
    bits : int
        Bits of one element.
    code : str or None
        What safetensors calls it, e.g. ``"F32"``; None if that format has no such type.
    storage : str or None
        The numpy type of the same size whose elements hold the bits: numpy has no bfloat16, whose
        bit patterns travel as uint16. None where nothing here copies or reads the type.
    torch_storage : str or None
        Name of torch's storage class in checkpoints; None if the type has none of its own.
    fraction_bits : int
        Bits of a float's significand after the leading one.
    quantised : bool
        True for torch's types that mean something only with a scale that is stored beside them.
    """

    name: str
    family: str
    bits: int
    code: str | None = None
    storage: str | None = None
    torch_storage: str | None = None
    fraction_bits: int = 0
    quantised: bool = False

    @property
    def is_float(self) -> bool:
        """True for the types that kernels read, and that can be averaged."""
        return self.family == "float"

    @property
    def is_copied(self) -> bool:
        """True for the types whose elements this package can at least copy."""
        return self.storage is not None

    @property
    def item_bytes(self) -> int:
        """Bytes of one element; of types that share bytes, what one element takes at most."""
        return (self.bits + 7) // 8

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type that holds the bits, in the byte order of this machine."""
        return np.dtype(self.storage)

    @property
    def pattern(self) -> np.dtype[Any]:
        """The numpy type that holds the bits of any type of whole bytes, unsigned if need be."""
        return np.dtype(self.storage or f"u{self.item_bytes}")

    @property
    def spacing(self) -> float:
        """Distance of the numbers of a float from one another, relative to a power of two."""
        return float(2.0**-self.fraction_bits)


DTYPES: Final = (
    # What the kernels read, in the order of the codes by which they know it.
    DType("float16", "float", 16, "F16", "f2", "HalfStorage", 10),
    DType("bfloat16", "float", 16, "BF16", "u2", "BFloat16Storage", 7),
    DType("float32", "float", 32, "F32", "f4", "FloatStorage", 23),
    DType("float64", "float", 64, "F64", "f8", "DoubleStorage", 52),
    DType("float8_e4m3fn", "low_precision", 8, "F8_E4M3"),
    DType("float8_e5m2", "low_precision", 8, "F8_E5M2"),
    DType("float8_e8m0fnu", "low_precision", 8, "F8_E8M0"),
    DType("float8_e4m3fnuz", "low_precision", 8, "F8_E4M3FNUZ"),
    DType("float8_e5m2fnuz", "low_precision", 8, "F8_E5M2FNUZ"),
    DType("float6_e2m3", "low_precision", 6, "F6_E2M3"),
    DType("float6_e3m2", "low_precision", 6, "F6_E3M2"),
    # torch packs two of them in a byte, and counts the bytes.
    DType("float4_e2m1fn_x2", "low_precision", 8),
    DType("float4_e2m1", "low_precision", 4, "F4"),
    DType("int64", "integer", 64, "I64", "i8", "LongStorage"),
    DType("int32", "integer", 32, "I32", "i4", "IntStorage"),
    DType("int16", "integer", 16, "I16", "i2", "ShortStorage"),
    DType("int8", "integer", 8, "I8", "i1", "CharStorage"),
    DType("uint64", "integer", 64, "U64", "u8"),
    DType("uint32", "integer", 32, "U32", "u4"),
    DType("uint16", "integer", 16, "U16", "u2"),
    DType("uint8", "integer", 8, "U8", "u1", "ByteStorage"),
    *(DType(f"{sign}int{bits}", "integer", bits) for bits in range(1, 8) for sign in ("", "u")),
    DType("bool", "boolean", 8, "BOOL", "?", "BoolStorage"),
    DType("complex256", "complex", 256),
    DType("complex128", "complex", 128, None, None, "ComplexDoubleStorage"),
    DType("complex64", "complex", 64, "C64", None, "ComplexFloatStorage"),
    DType("complex32", "complex", 32),
    DType("qint32", "integer", 32, None, None, "QInt32Storage", quantised=True),
    DType("qint8", "integer", 8, None, None, "QInt8Storage", quantised=True),
    DType("quint8", "integer", 8, None, None, "QUInt8Storage", quantised=True),
    DType("quint4x2", "integer", 8, None, None, "QUInt4x2Storage", quantised=True),
    DType("quint2x4", "integer", 8, None, None, "QUInt2x4Storage", quantised=True),
)

BY_NAME: Final[Mapping[str, DType]] = {t.name: t for t in DTYPES}
"""numpy's and torch's name -> the record."""

BY_CODE: Final[Mapping[str, DType]] = {t.code: t for t in DTYPES if t.code is not None}
"""safetensors' name -> the record."""

BY_TORCH_STORAGE: Final[Mapping[str, DType]] = {
    t.torch_storage: t for t in DTYPES if t.torch_storage is not None
}
"""Class of the storage in a torch checkpoint -> the record."""

FLOAT_DTYPES: Final = tuple(t.name for t in DTYPES if t.is_float)
"""Names of the element types that kernels read, in the order of their codes there."""

FLOAT_STORAGE: Final[Mapping[str, np.dtype[Any]]] = {t.name: t.numpy for t in DTYPES if t.is_float}
"""Name of such a type -> the numpy type that holds the bits."""


def find(spelling: str) -> DType | None:
    """Return the record of a type that goes by numpy's, torch's or safetensors' name, or None."""
    return BY_NAME.get(spelling) or BY_CODE.get(spelling)
