"""Files of ``torch.save``, whose writing fails with the error of the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspectra._support.files import NewFile

__all__ = ["save_torch"]


def save_torch(save: Callable[[Any, Any], None], value: Any, path: Path) -> None:
    """Write a new file.

    Parameters
    ----------
    save : callable
        ``torch.save``.
    value : object
        What it saves.
    path : Path
        A file that does not exist.

    Raises
    ------
    OSError
        If the file cannot be written, because the disk is full for example; it names the file.
    """
    with NewFile(path) as file:
        try:
            save(value, file)
        except BaseException:
            if file.error is not None:  # torch makes a RuntimeError of it
                raise file.error from None
            raise
