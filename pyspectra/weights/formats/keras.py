"""Files of Keras: ``.keras``, ``.weights.h5``, and the ``.h5`` of Keras 1 and 2.

The first is a zip archive of a configuration and a ``.weights.h5``; both others are HDF5, the last
with a name for each variable.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyspectra.errors import FormatError
from pyspectra.weights.entries import Contents, TensorEntry
from pyspectra.weights.formats._files import check_head, open_binary, stamp
from pyspectra.weights.formats.hdf5 import Place, read_tree
from pyspectra.weights.formats.keras_names import Variable, equations, variables
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.zips import small_entry, stored_extent
from pyspectra.weights.skip import Skip, SkippedLayer

__all__ = ["FORMAT", "read"]

WEIGHTS: Final = "model.weights.h5"
CONFIG: Final = "config.json"
MAX_CONFIG_BYTES: Final = 1 << 26


def read(path: Path) -> Contents:
    """List the variables of a Keras file; only groups and headers are read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Variables under the names of layers and variables, ``"block1.conv2d_1.kernel"``, which
        `.weights.h5` files only number.

    Raises
    ------
    FormatError
        If the file is corrupt, or a zip archive without weights.
    ModuleNotFoundError
        If h5py is not installed.
    """
    check_head(path, "a Keras file")
    with open_binary(path) as file:
        when = stamp(file)
        is_zip = file.read(4) == b"PK\x03\x04"
        place, config = Place(path, when, 0, when[0]), ""
        if is_zip:
            try:
                with zipfile.ZipFile(file) as archive:
                    begin, size = stored_extent(
                        archive, file, WEIGHTS, when[0], "the entry", "Keras"
                    )
                    if CONFIG in archive.namelist():
                        raw = small_entry(archive, CONFIG, MAX_CONFIG_BYTES, when[0], "Keras")
                        config = raw.decode()
            except Exception as error:  # zip and zlib raise many types on corrupt bytes
                raise FormatError(
                    f"{path}: not a valid .keras archive: {error}. Hint: model.save_weights("
                    "'model.weights.h5') saves what is read in a file of its own."
                ) from error
            place = Place(path, when, begin, size)
    tree = read_tree(place)
    try:
        found = equations(json.loads(config or tree.config or "null"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its configuration is no valid JSON: {error}") from error
    entries, beside = [], []
    for variable in variables(tree, found):
        if variable.of_optimizer:
            skip = Skip("training_state")
            beside.append(SkippedLayer(variable.key, variable.entry.shape, skip))
        else:
            entries.append(_entry(variable))
    return Contents("keras", entries, beside=tuple(beside))


def _entry(variable: Variable) -> TensorEntry:
    entry = replace(variable.entry, key=variable.key, is_weight=variable.is_weight)
    if variable.kind is not None:
        entry = replace(entry, kind=variable.kind)
    if variable.layout is not None and entry.shape is not None:
        entry = entry.laid_out(variable.layout)
    if variable.is_weight is False and entry.problem is None:
        return replace(entry, problem=variable.problem)
    return entry


FORMAT = Format("keras", (".keras", ".h5", ".hdf5"), read, extra="keras", rank=4)
