"""A report as one file: everything comes back, eigenvalues included, and nothing is unpickled.

The file is a zip archive whose members are stored as they are, not compressed: no file grows as it
is read. ``report.json`` holds the values; each array is a member of its own in numpy's format, so
that ``numpy.load(path)["layers/0/esd/evals"]`` works, too. A value that JSON has not is an object
with one key that starts with ``$``: ``{"$float": "nan"}``, ``{"$tuple": [...]}``,
``{"$array": member}``, ``{"$class": [name, fields]}``. Classes are the subclasses of
`pyspectra.types.Value` and those in `_OTHERS`; what a file says of them is checked against the
types of their fields. A field that a class got later has a default, so that older files load.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import struct
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from pyspectra._support.files import write_bytes
from pyspectra.errors import ArgumentTypeError, FormatError
from pyspectra.report.data import ReportData
from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra.eigenvectors import EigenvectorStatistics
from pyspectra.types import ESD, Status, Value
from pyspectra.weights.formats.npz import read_header
from pyspectra.weights.skip import Skip, SkippedLayer

SCHEMA = "pyspectra.saved/1"
MEMBER = "report.json"
_OTHERS = (Skip, SkippedLayer)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same report makes the same file

# What Python's reader of zip archives raises for damaged ones.
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, struct.error)

T = TypeVar("T", bound=ReportData)


def save(report: ReportData, path: Path) -> None:
    """Write a report to a file, whole or not at all.

    Raises
    ------
    TypeError
        If a measurement is of a class that is no `pyspectra.types.Value`.
    OSError
        If the file cannot be written; an existing one is then unchanged.
    """
    arrays: dict[str, np.ndarray] = {}
    # Field by field: the report itself is of the class of the facade, which is not saved.
    values = {
        f.name: _encoded(getattr(report, f.name), f.name, arrays)
        for f in dataclasses.fields(report)
        if f.compare
    }
    text = json.dumps({"schema": SCHEMA, "report": values}, indent=1, allow_nan=False)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER, _EPOCH), text)
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    write_bytes(path, out.getvalue())


def load(cls: type[T], path: Path) -> T:
    """Read a report that `save` wrote.

    Raises
    ------
    FormatError
        If the file is no such report, of a later version, or damaged.
    FileNotFoundError
        If there is no such file.
    """
    if path.exists() and not path.is_file():  # a device never ends
        raise FormatError(f"Report.load: 'path' ({path}) is no saved report: it is not a file.")
    with open(path, "rb") as file:
        try:
            return _read(cls, file)
        except (_RefusedError, RecursionError, *_DAMAGE) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise FormatError(f"Report.load: 'path' ({path}) is no saved report: {reason}.") from (
                error
            )


class _RefusedError(Exception):
    """Why a file is refused: the end of a sentence."""


def _read(cls: type[T], file: io.BufferedReader) -> T:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise _RefusedError(f"member {info.filename!r} is compressed or encrypted")
            if not 0 <= info.header_offset < size:
                raise _RefusedError(f"member {info.filename!r} lies outside of the file")
        if len(members) != len(archive.infolist()):
            raise _RefusedError("two members have one name")
        if sum(info.file_size for info in members.values()) > size:
            raise _RefusedError("its members are larger than the file")
        if MEMBER not in members:
            raise _RefusedError(f"it has no member {MEMBER!r}")
        arrays = {
            name.removesuffix(".npy"): _array(name, archive.read(name))
            for name in members
            if name != MEMBER
        }
        document = _parsed(archive.read(MEMBER))
    values = {name: _decoded(value, arrays) for name, value in document.items()}
    report: T = _made(cls, values)
    return report


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:  # no UTF-8, no JSON, an integer of thousands of digits
        raise _RefusedError(f"{MEMBER!r} is not JSON") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        hint = ""
        if isinstance(schema, str) and schema.startswith(SCHEMA.rpartition("/")[0]):
            hint = "; a later version of pyspectra may have written it"
        raise _RefusedError(f"its schema is {str(schema)[:60]!r}, not {SCHEMA!r}{hint}")
    report = document.get("report")
    if not isinstance(report, dict):
        raise _RefusedError("it holds no report")
    return report


def _no_constant(name: str) -> float:
    raise _RefusedError(f"{name} is not JSON")


def _array(name: str, data: bytes) -> np.ndarray:
    """Return the array of a member, whose header must tell its size truly."""
    member = io.BytesIO(data)
    try:
        shape, fortran, dtype = read_header(member, len(data))
    except ValueError as error:
        raise _RefusedError(f"array {name!r} is damaged: {error}") from error
    if dtype.hasobject or dtype.kind not in "biuf":
        raise _RefusedError(f"array {name!r} holds no numbers")
    flat = np.frombuffer(data, dtype, offset=member.tell())
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))


# --- values to JSON -----------------------------------------------------------------------------


def _encoded(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a value as JSON; its arrays go to `arrays`, by their path."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Status):
        return {"$status": str(value)}
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else {"$float": repr(number)}
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"$array": path}
    if isinstance(value, tuple | list):
        items = [_encoded(item, f"{path}/{i}", arrays) for i, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return {"$map": {str(k): _encoded(v, f"{path}/{k}", arrays) for k, v in value.items()}}
    if isinstance(value, AnalyzeOptions):
        return {"$options": value.to_dict()}
    if type(value).__name__ not in _classes():
        raise ArgumentTypeError(
            "Report.save", path, "be a pyspectra.types.Value", type(value).__name__
        )
    fields = {
        f.name: _encoded(getattr(value, f.name), f"{path}/{f.name}", arrays)
        for f in dataclasses.fields(value)
    }
    return {"$class": [type(value).__name__, fields]}


def _classes() -> dict[str, type]:
    return {cls.__name__: cls for cls in (*_subclasses(Value), *_OTHERS)}


def _subclasses(cls: type[Value]) -> Iterator[type[Value]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


# --- JSON to values -----------------------------------------------------------------------------


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise _RefusedError(f"an object has the keys {sorted(map(str, value))[:4]}, not one tag")
    ((tag, content),) = value.items()
    if tag not in _TAGS:
        raise _RefusedError(f"there is no tag {tag!r}")
    expected, make = _TAGS[tag]
    if not isinstance(content, expected):
        raise _RefusedError(f"{tag!r} holds a {type(content).__name__}")
    return make(content, arrays)


Arrays = Mapping[str, np.ndarray]


def _float(text: str, arrays: Arrays) -> float:
    if text not in ("nan", "inf", "-inf"):
        raise _RefusedError(f"{text!r} is no number")
    return float(text)


def _status(text: str, arrays: Arrays) -> Status:
    known = {str(status): status for status in Status}
    if text not in known:
        raise _RefusedError(f"there is no status {text!r}")
    return known[text]


def _named_array(name: str, arrays: Arrays) -> np.ndarray:
    if name not in arrays:
        raise _RefusedError(f"array {name!r} is missing")
    return arrays[name]


def _options(values: dict[str, Any], arrays: Arrays) -> AnalyzeOptions:
    try:
        return AnalyzeOptions.from_dict(values)
    except (TypeError, ValueError) as error:
        raise _RefusedError(f"its options are wrong ({error})") from error


def _instance(content: list[Any], arrays: Arrays) -> Any:
    if len(content) != 2 or not isinstance(content[0], str) or not isinstance(content[1], dict):
        raise _RefusedError("a class is not a name and fields")
    name, fields = content
    if name not in _classes():
        raise _RefusedError(f"there is no class {name!r}; a later version may have it")
    values = {key: _decoded(value, arrays) for key, value in fields.items()}
    return _made(_classes()[name], values)


_TAGS: Mapping[str, tuple[type, Callable[[Any, Arrays], Any]]] = {
    "$float": (str, _float),
    "$status": (str, _status),
    "$array": (str, _named_array),
    "$tuple": (list, lambda items, arrays: tuple(_decoded(item, arrays) for item in items)),
    "$map": (dict, lambda d, arrays: {k: _decoded(v, arrays) for k, v in d.items()}),
    "$options": (dict, _options),
    "$class": (list, _instance),
}


def _made(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """Return an instance whose fields have the types that the class declares."""
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise _RefusedError(
            f"{cls.__name__} has no field {unknown[0]!r}; a later version may have it"
        )
    for name, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in values:
            if optional:
                continue
            raise _RefusedError(f"{cls.__name__} has no {name!r}")
        if not _is(values[name], hints[name]):
            raise _RefusedError(f"{name!r} of {cls.__name__} is of the wrong kind or shape")
    made = cls(**values)
    if not _consistent(made):
        raise _RefusedError(f"the values of a {cls.__name__} contradict one another")
    return made


def _is(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type that a field declares; arrays are 1-D float64."""
    if hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, one) for one in arguments)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float64
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[1:] == (...,):
            return all(_is(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_is, value, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(_is(item, arguments[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool | Status)
    return isinstance(value, hint)


def _consistent(value: Any) -> bool:
    if isinstance(value, ESD):
        parts = value.matrix_evals
        of_parts = not parts or sum(map(len, parts)) == len(value.evals)
        return of_parts and value.N >= value.M >= 0 and len(parts) in (0, value.n_matrices)
    if isinstance(value, EigenvectorStatistics):
        return len({len(getattr(value, f.name)) for f in dataclasses.fields(value)}) == 1
    if isinstance(value, Skip):
        try:
            return bool(str(value) and value.group)
        except (LookupError, ValueError, TypeError, AttributeError):  # the sentence lacks words
            return False
    return True
