"""torch checkpoints: nothing that they pickle is executed or imported, and torch is not needed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspectra._arrays import StoredArray
from pyspectra.errors import FormatError
from pyspectra.weights.catalogue import Contents
from pyspectra.weights.formats import state_dict
from pyspectra.weights.formats._files import check_head, open_binary, stamp
from pyspectra.weights.formats.harmless import CodeRefusedError
from pyspectra.weights.formats.pickle_values import PickleError
from pyspectra.weights.formats.registry import Format
from pyspectra.weights.formats.torch_layouts import NoCheckpointError, read_archive, read_stream
from pyspectra.weights.formats.wrappers import type_name

__all__ = ["FORMAT", "read", "stored"]

_NEVER = "Pickled code is never executed."


def stored(path: Path) -> Mapping[Any, Any]:
    """Read the mapping that a checkpoint holds, with tensors as addresses.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Mapping
        The mapping as it was saved, wrappers and all: nested plain containers, in which a tensor is
        a `StoredArray` and an object of any other class a `Foreign`.

    Raises
    ------
    FormatError
        If the file is corrupt, would run code, or holds no mapping.
    """
    check_head(path, "a torch checkpoint")
    with open_binary(path) as file:
        when = stamp(file)
        is_zip = file.read(4) == b"PK\x03\x04"
        try:
            content = (read_archive if is_zip else read_stream)(path, file, when)
        except FormatError:
            raise
        except CodeRefusedError as error:
            raise FormatError(
                f"{path}: refused: it pickles a call of {error}. {_NEVER} Hint: convert it to "
                "safetensors, or save only the state_dict()."
            ) from error
        except NoCheckpointError as error:
            raise FormatError(
                f"{path}: refused: a pickle, not a torch checkpoint. {_NEVER} Hint: convert it to "
                "safetensors, or save it with torch.save."
            ) from error
        except (PickleError, zipfile.BadZipFile, zlib.error) as error:
            raise _broken(path, error, is_zip) from error
        except (ValueError, OSError, NotImplementedError, RuntimeError, EOFError) as error:
            # What zipfile raises for archives that are broken in other ways.
            raise _broken(path, error, is_zip) from error
    if not isinstance(content, Mapping):
        tensor = isinstance(content, StoredArray)
        what = "an object of type Tensor" if tensor else f"an object of type {type_name(content)}"
        raise FormatError(
            f"{path}: holds {what}, not a state dict. Hint: save the module's state_dict()."
        )
    return content


def _broken(path: Path, error: Exception, is_zip: bool) -> FormatError:
    if is_zip:
        return FormatError(f"{path}: the checkpoint is corrupt or truncated ({error}).")
    return FormatError(
        f"{path}: the checkpoint is corrupt, truncated or not a torch checkpoint ({error}). "
        f"{_NEVER}"
    )


def read(path: Path, *, key: str | None = None) -> Contents:
    """List the tensors of a torch checkpoint for analysis.

    Parameters
    ----------
    path : Path
        The file.
    key : str, optional
        Which of several models in it.

    Returns
    -------
    Contents
        Tensors in the order of the state dict inside.

    Raises
    ------
    FormatError
        If the file is corrupt, would run code, or holds no state dict.
    ArgumentTypeError, ArgumentValueError
        If `key` names no part that holds tensors.
    """
    return state_dict.read(stored(path), format="torch", name=str(path), key=key)


FORMAT = Format("torch", (".pt", ".pth", ".bin", ".ckpt"), read, keyed=True, rank=1)
