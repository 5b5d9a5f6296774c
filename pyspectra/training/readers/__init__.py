"""Runs that are over, as others wrote them. A reader is one module with one record.

To add one, write a module with a `Reader` called ``READER``, name it here, and test it.
"""

from __future__ import annotations

from pathlib import Path

from pyspectra._support.arguments import check_path
from pyspectra.errors import FormatError, MissingPathError
from pyspectra.training.history_file import Lines
from pyspectra.training.readers import huggingface, keras, pyspectra, tables, tensorboard
from pyspectra.training.readers.keras import lines_of_keras
from pyspectra.training.readers.reader import Reader

__all__ = ["READERS", "Reader", "lines_of_keras", "read_run"]

# The first that knows a path reads it: of a folder that holds several, what says most.
READERS = (
    pyspectra.READER,
    huggingface.READER,
    keras.READER,
    tables.READER,
    tensorboard.READER,
)


def read_run(path: str | Path, *, function: str = "read_run") -> Lines:
    """Read what a training run left behind.

    Parameters
    ----------
    path : str or path
        A file that one of `READERS` knows, or a folder that holds one.
    function : str
        The public function that errors speak of.

    Returns
    -------
    Lines
        A header and records.

    Raises
    ------
    FormatError
        If no reader knows it, it is broken, or it holds no values.
    MissingPathError
        If it does not exist.
    """
    place = check_path(function, "path", path)
    if not place.exists():
        requirement = "be a file or folder that exists"
        raise MissingPathError(function, "path", requirement, repr(str(place)))
    for reader in READERS:
        found = reader.find(place)
        if found is not None:
            return reader.read(found)
    known = ", ".join(reader.files for reader in READERS)
    raise FormatError(f"{str(place)!r} is no record of a training run. Hint: known are {known}.")
