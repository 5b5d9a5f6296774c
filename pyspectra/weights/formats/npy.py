"""numpy ``.npy`` files: a model of one array, which goes by the name of the file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents, TensorEntry
from pyspectra.weights.formats._files import check_head, open_binary, stamp
from pyspectra.weights.formats.npz import read_header
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.stored import StoredTensor, stored_entry
from pyspectra.weights.skip import Skip

__all__ = ["FORMAT", "read"]


def read(path: Path) -> Contents:
    """List the array of a ``.npy`` file; only its header is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        One array, named like the file without its suffix.

    Raises
    ------
    FormatError
        If the header is corrupt, or does not fit the file.
    """
    check_head(path, "a numpy .npy file")
    with open_binary(path) as file:
        when = stamp(file)
        try:
            shape, by_columns, dtype = read_header(file, when[0])
        except (ValueError, EOFError, OSError) as error:
            raise FormatError(f"{path}: not a valid .npy file: {error}") from error
        begin = file.tell()
    key = path.stem
    if dtype.hasobject:
        entry = TensorEntry(key, shape, "object", None, problem=Skip("object_array"))
    elif dtype.name not in BY_NAME:
        entry = TensorEntry(key, shape, dtype.name, None)
    else:
        strides = _column_strides(shape) if by_columns and np.prod(shape) > 0 else None
        big_endian = dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big")
        entry = stored_entry(
            key, StoredTensor(path, when, key, dtype.name, shape, begin, strides, big_endian)
        )
    return Contents("npy", [entry])


def _column_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in shape:
        strides.append(step)
        step *= n
    return tuple(strides)


FORMAT = Format("npy", (".npy",), read, rank=3)
