"""torch checkpoints: always ``weights_only=True``, so that no pickled code is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pyspectra._arrays import is_torch_module, require_torch
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats import state_dict
from pyspectra.weights.formats._files import check_head, open_binary

__all__ = ["read"]

# Older versions execute code even so (CVE-2025-32434).
MINIMUM_TORCH: Final = (2, 6)
_OLD_PROTOCOL: Final = b"\x02"  # what torch.save writes in the old layout, and by default


def _check_archive(path: Path) -> None:
    """Refuse TorchScript, which torch would warn about, and broken archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise FormatError(f"{path}: the checkpoint is corrupt or truncated ({error}).") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise FormatError(
            f"{path}: a TorchScript archive: it holds code, which is never executed. Hint: save "
            "the module's state_dict()."
        )


def _load(path: Path) -> Any:
    torch = require_torch(f"reading {path.name}", minimum=MINIMUM_TORCH)
    check_head(path, "a torch checkpoint")
    with open_binary(path) as file:
        magic = file.read(4)
    is_zip = magic == b"PK\x03\x04"
    if is_zip:
        _check_archive(path)
    elif magic[:1] == b"\x80" and magic[1:2] > _OLD_PROTOCOL:
        # torch would warn, then fail on most of these.
        raise FormatError(
            f"{path}: refused: a pickle, not a torch checkpoint. Pickled code is never executed. "
            "Hint: convert it to safetensors, or save it with torch.save."
        )
    try:
        # Mapping the file keeps tensors on disk until they are read; the old layout, a plain
        # pickle, cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path}: refused: the file is corrupt, or pickles more than tensors and plain "
            "containers. Pickled code is never executed. Hint: convert it to safetensors, or save "
            "only the state_dict()."
        ) from error
    except Warning:  # somebody turned warnings into errors: theirs to handle
        raise
    except Exception as error:  # bytes of unknown origin: torch may raise anything
        raise FormatError(
            f"{path}: the checkpoint is corrupt, truncated or not a torch checkpoint "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error


def _first_line(error: BaseException) -> str:
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()[:200]
    return type(error).__name__


def read(path: Path) -> Contents:
    """List the tensors of a torch checkpoint (``.pt``, ``.pth``, ``.bin``, ``.ckpt``).

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        Tensors in the order of the state dict inside.

    Raises
    ------
    FormatError
        If the file is corrupt, holds code, or holds no state dict.
    MissingDependencyError
        If torch is missing or too old to read checkpoints safely.
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        what = "a module" if is_torch_module(content) else f"an object of type {_name(content)}"
        raise FormatError(
            f"{path}: holds {what}, not a state dict. Hint: save the module's state_dict()."
        )
    return state_dict.read(content, format="torch")


def _name(x: object) -> str:
    return type(x).__name__
