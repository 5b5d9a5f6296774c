"""``.pt2`` archives of ``torch.export``: weights as they are, beside a list of what they mean.

A zip file; ``NAME/data/weights/model_weights_config.json`` lists for each weight its entry, element
type, shape and strides, and the entry holds the bytes. The program beside them is not looked at.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Final

from pyspectra._arrays import ArrayProblem
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents, TensorEntry
from pyspectra.weights.formats._files import Stamp, check_head, open_binary, stamp
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.stored import StoredTensor, row_major, stored_entry
from pyspectra.weights.formats.zips import small_entry, stored_extent
from pyspectra.weights.skip import Skip

__all__ = ["FORMAT", "read"]

_LISTS: Final = ("weights/model_weights_config.json", "constants/model_constants_config.json")
MAX_LIST_BYTES: Final = 1 << 26
MAX_RANK: Final = 32
# Numbers of element types in the schema of torch.export.
_TYPES: Final = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2",
}  # fmt: skip


def read(path: Path) -> Contents:
    """List the weights of an exported program; no elements are read, and nothing is executed.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Parameters, and other tensors, which are no weights.

    Raises
    ------
    FormatError
        If the file is corrupt, or of a version of torch that pickled the weights.
    """
    check_head(path, "a .pt2 archive")
    with open_binary(path) as file:
        when = stamp(file)
        try:
            with zipfile.ZipFile(file) as archive:
                return Contents("export", _entries(path, archive, file, when))
        except FormatError:
            raise
        except Exception as error:  # zip and zlib raise many types on corrupt bytes
            raise FormatError(f"{path}: not a valid .pt2 archive: {error}") from error


def _entries(
    path: Path, archive: zipfile.ZipFile, file: BinaryIO, when: Stamp
) -> list[TensorEntry]:
    lists = [name for name in archive.namelist() if name.endswith(_LISTS)]
    if not any(name.endswith(_LISTS[0]) for name in lists):
        raise FormatError(
            f"{path}: a .pt2 archive of an older torch, which pickled the weights. Hint: "
            "torch.save(torch.export.load(path).state_dict, 'model.pt') saves what is read."
        )
    entries: dict[str, TensorEntry] = {}
    for name in sorted(lists, key=lambda n: n.endswith(_LISTS[1])):
        raw = small_entry(archive, name, MAX_LIST_BYTES, when[0], "torch.export")
        folder = name.rpartition("/")[0]
        for key, described in json.loads(raw)["config"].items():
            place = f"{folder}/{described['path_name']}"
            if described.get("tensor_meta") is None or described.get("use_pickle"):
                skip = Skip("unreadable")
                entries.setdefault(key, TensorEntry(key, None, "none", None, problem=skip))
                continue
            begin, size = stored_extent(archive, file, place, when[0], "the entry", "torch.export")
            entry = _entry(path, when, key, described["tensor_meta"], begin, size)
            if not described.get("is_param", False):
                entry = TensorEntry(key, entry.shape, entry.dtype, None, problem=Skip("buffer"))
            entries.setdefault(key, entry)
    return list(entries.values())


def _entry(
    path: Path, when: Stamp, key: str, meta: dict[str, Any], begin: int, size: int
) -> TensorEntry:
    shape, strides = _numbers(meta["sizes"]), _numbers(meta["strides"])
    (first,) = _numbers([meta["storage_offset"]])
    code = meta["dtype"]
    dtype = _TYPES.get(code) if type(code) is int else None
    if dtype is None:
        return TensorEntry(key, shape, f"type {code}", None)
    if len(shape) != len(strides):
        raise ValueError(f"tensor {key!r} has {len(shape)} axes and {len(strides)} strides")
    item = BY_NAME[dtype].item_bytes
    last = first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and (last + 1) * item > size:
        raise ValueError(f"tensor {key!r} of shape {shape} does not fit in its {size} bytes")
    problem = None
    if count * item > size:  # a view that repeats elements
        sizes = {"count": str(count), "stored": str(size // item)}
        problem = ArrayProblem("repeated", sizes)
    dense = row_major(shape, strides)
    tensor = StoredTensor(
        path, when, key, dtype, shape, begin + first * item, None if dense else strides,
        identity=(str(path), begin, first, shape, strides), problem=problem,
    )  # fmt: skip
    return stored_entry(key, tensor)


def _numbers(values: Any) -> tuple[int, ...]:
    found = tuple(v["as_int"] if isinstance(v, dict) else v for v in values)
    if len(found) > MAX_RANK or any(type(n) is not int or not 0 <= n < 1 << 62 for n in found):
        raise ValueError("lengths or strides that are no counts")
    return found


FORMAT = Format("export", (".pt2",), read, rank=7)
