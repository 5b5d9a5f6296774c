"""All pictures of a report, a comparison or a trajectory, as files of one folder."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import check_path
from pyspectra._support.files import same_file, write_bytes
from pyspectra._support.progress import progress_bar
from pyspectra.errors import MissingDependencyError
from pyspectra.report.plot import kinds_of, plot

LONGEST_NAME = 80  # of a layer in the name of a file


@dataclass(frozen=True)
class SavedPlots:
    """What was written to a folder.

    Attributes
    ----------
    paths : tuple of Path
        The pictures, in the order of their names.
    failed : tuple of (str, str)
        What could not be drawn or written, and why: one bad picture does not lose the others.
    """

    paths: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Picture:
    name: str
    kind: str
    layer: str | None


def save_plots(value: Any, folder: Path, *, progress: bool | str = "auto") -> SavedPlots:
    """Draw every kind of picture of a value, those of a layer for each layer, as PNG files.

    Parameters
    ----------
    value : Report, Comparison or Trajectory
        No file that it was read from is overwritten.
    folder : Path
        Where they are written; it is made if it is missing.
    progress : bool or "auto"
        As for `pyspectra.analyze`.

    Returns
    -------
    SavedPlots

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    OSError
        If the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(_pictures(value))
    paths, failed = [], []
    with progress_bar(len(wanted), "drawing", progress) as advance:
        for picture in wanted:
            target = folder / f"{picture.name}.png"
            try:
                if same_file(target, value.files) is not None:
                    raise FileExistsError("it is a file of the model")
                write_bytes(target, _png(value, picture))
                paths.append(target)
            except MissingDependencyError:
                raise
            except Exception as error:  # any of many libraries: it costs this picture alone
                failed.append((picture.name, str(error) or type(error).__name__))
            advance(picture.name)
    return SavedPlots(tuple(paths), tuple(failed))


def _pictures(value: Any) -> Iterator[_Picture]:
    """Yield what is drawn, in the order of the names: the whole first, then layer by layer."""
    known = kinds_of(type(value))
    for number, record in enumerate((each for each in known if not each.of_layer), 1):
        yield _Picture(f"{number:02d}-{record.kind}", record.kind, None)
    rows = list(value) if any(record.of_layer for record in known) else []
    digits = max(3, len(str(len(rows))))
    for place, row in enumerate(rows, 1):
        label = row.label if hasattr(row, "label") else row.a.label
        for record in known:
            if record.drawable is not None and record.drawable(row):
                name = f"layer-{place:0{digits}d}-{safe_name(label)}-{record.kind}"
                yield _Picture(name, record.kind, label)


def safe_name(label: str) -> str:
    """Return the name of a layer as a part of a file's name, on any system."""
    plain = re.sub(r"[^A-Za-z0-9._\-]+", "_", label).strip("._")
    if len(plain) > LONGEST_NAME:  # the end tells layers apart
        plain = plain[-LONGEST_NAME:].lstrip("._")
    return plain or "unnamed"


def _png(value: Any, picture: _Picture) -> bytes:
    axes = plot(value, picture.kind, picture.layer)
    out = io.BytesIO()
    figure: Any = axes.figure
    figure.savefig(out, format="png")
    return out.getvalue()


class SavesPlots:
    """Base of values that can be drawn; `files` is what they were read from."""

    def save_plots(
        self, folder: str | PathLike[str], *, progress: bool | str = "auto"
    ) -> SavedPlots:
        """Draw every kind of picture, those of a layer for each layer, as PNG files.

        Parameters
        ----------
        folder : str or path
            Where they are written; it is made if it is missing. Their names sort: those of the
            whole first, then layer by layer.
        progress : bool or "auto"
            Whether to show a progress bar on standard error; "auto" shows one if that is a
            terminal and the work takes over 2 s.

        Returns
        -------
        SavedPlots
            ``.paths``, and ``.failed``: what could not be drawn, and why.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        OSError
            If the folder cannot be made.
        """
        path = check_path(f"{type(self).__name__}.save_plots", "folder", folder)
        return save_plots(self, path, progress=progress)
