"""The two layouts of torch checkpoints, read without torch.

The archive: a zip file in which ``NAME/data.pkl`` pickles the object, ``NAME/data/KEY`` holds the
bytes of a storage, uncompressed, and ``NAME/byteorder`` says how. The old layout, before torch
1.6: five pickles one after the other (a magic number, the version, the machine, the object, the
keys of the storages), then the storages, each behind its number of elements.

References
----------
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Final

from pyspectra.errors import FormatError
from pyspectra.weights.formats._files import Stamp
from pyspectra.weights.formats.pickle_values import PickleError, TruncatedError
from pyspectra.weights.formats.pickles import read_pickle
from pyspectra.weights.formats.torch_objects import TorchObjects
from pyspectra.weights.formats.zips import small_entry, stored_extent

__all__ = ["NoCheckpointError", "read_archive", "read_stream"]

MAX_PICKLE_BYTES: Final = 1 << 28
FIRST_BYTES: Final = 1 << 16
MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
VERSION: Final = 1001


class NoCheckpointError(PickleError):
    """A pickle that torch has not written."""


def read_archive(path: Path, file: BinaryIO, when: Stamp) -> Any:
    """Read the object that a checkpoint holds, with tensors as addresses.

    Parameters
    ----------
    path : Path
        The file, for messages and addresses.
    file : file
        The same, open.
    when : Stamp
        What the file was like when it was opened.

    Returns
    -------
    object
        Plain containers; tensors are `StoredArray`, other objects `Foreign`.

    Raises
    ------
    PickleError, zipfile.BadZipFile, ValueError, OSError, NotImplementedError
        If the archive is broken.
    CodeRefusedError
        If its pickle would run code.
    FormatError
        If it is TorchScript.
    """
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise FormatError(
                f"{path}: a TorchScript archive: it holds code, which is never executed. Hint: "
                "save the module's state_dict()."
            )
        folder = names[0].partition("/")[0] if names else ""
        if f"{folder}/data.pkl" not in names:
            raise PickleError("an archive without a pickled object (data.pkl)")
        raw = small_entry(archive, f"{folder}/data.pkl", MAX_PICKLE_BYTES, when[0], "torch.save")
        order = b"little"
        if f"{folder}/byteorder" in names:
            order = small_entry(archive, f"{folder}/byteorder", 16, when[0], "torch.save")
        if order not in (b"little", b"big"):
            raise PickleError("an unknown byte order")

        found: dict[str, tuple[int, int]] = {}

        def find_storage(key: str) -> tuple[int, int]:
            if key not in found:
                found[key] = stored_extent(
                    archive, file, f"{folder}/data/{key}", when[0], "the storage", "torch.save"
                )
            return found[key]

        objects = TorchObjects(path, when, find_storage, order == b"big")
        value, _ = read_pickle(raw, objects.call, objects.persistent)
        return value


# --- the old layout -----------------------------------------------------------------------------


def read_stream(path: Path, file: BinaryIO, when: Stamp) -> Any:
    """Read the object of a checkpoint in the old layout, with tensors as addresses.

    Parameters
    ----------
    path, file, when
        As for `read_archive`.

    Returns
    -------
    object
        As `read_archive` returns it.

    Raises
    ------
    NoCheckpointError
        If the file begins with another pickle.
    CodeRefusedError
        If a pickle would run code.
    PickleError
        If the file is broken.
    """
    size = FIRST_BYTES
    while True:
        file.seek(0)
        raw = file.read(min(size, MAX_PICKLE_BYTES))
        try:
            return _read_stream(path, file, when, raw)
        except TruncatedError:
            if size >= min(when[0], MAX_PICKLE_BYTES):
                raise
        size *= 8


def _read_stream(path: Path, file: BinaryIO, when: Stamp, raw: bytes) -> Any:
    # The places of the storages come after the pickle that refers to them. Read it once to learn
    # the sizes of their elements and where it ends, and once more with the places.
    item_bytes: dict[str, int] = {}
    first = TorchObjects(path, when, lambda key: (0, 1 << 62), item_bytes=item_bytes)
    magic, position = read_pickle(raw, first.call, first.persistent)
    if magic != MAGIC_NUMBER:
        raise NoCheckpointError("a pickle without torch's magic number")
    version, position = read_pickle(raw, first.call, first.persistent, position)
    machine, begin = read_pickle(raw, first.call, first.persistent, position)
    _, position = read_pickle(raw, first.call, first.persistent, begin)
    keys, position = read_pickle(raw, first.call, first.persistent, position)
    if version != VERSION or not isinstance(machine, dict) or not isinstance(keys, list):
        raise PickleError("an unknown version of the layout")
    big_endian = machine.get("little_endian") is False
    places = {}
    for key in keys:
        if not isinstance(key, str) or key not in item_bytes:
            raise PickleError("a storage that nothing refers to")
        file.seek(position)
        head = file.read(8)
        count = int.from_bytes(head, "big" if big_endian else "little")
        nbytes = count * item_bytes[key]
        position += 8
        if len(head) != 8 or position + nbytes > when[0]:
            raise TruncatedError(f"storage {key!r} is truncated")
        places[key] = (position, nbytes)
        position += nbytes

    def find_storage(key: str) -> tuple[int, int]:
        if key not in places:
            raise PickleError(f"storage {key!r} is missing")
        return places[key]

    objects = TorchObjects(path, when, find_storage, big_endian)
    value, _ = read_pickle(raw, objects.call, objects.persistent, begin)
    return value
