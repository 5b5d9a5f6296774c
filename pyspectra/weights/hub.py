"""Names of models on the Hugging Face hub: the local cache, and how to get what is not in it.

Nothing is downloaded. A name is looked up where the hub's own tools keep what they downloaded.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyspectra._support.text import nearest
from pyspectra.weights.formats.registry import format_of

__all__ = ["cached", "is_url", "where_to_get"]

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?")
_URL: Final = re.compile(r"(?:https?|hf|s3|gs|file|ftp)://", re.IGNORECASE)
_OF_THE_HUB: Final = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?P<name>[\w.-]+/[\w.-]+)"
    r"(?:/(?:resolve|blob)/(?P<revision>[^/?#]+)/(?P<file>[^?#]+))?",
    re.IGNORECASE,
)
_REVISION: Final = re.compile(r"[\w.-]{1,128}")
_SIBLINGS: Final = 1000
# The variables of huggingface_hub, and where the cache lies below them.
_VARIABLES: Final = (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"))


def is_url(text: str) -> bool:
    """Tell whether a text is an address on the network."""
    return _URL.match(text) is not None


def cached(name: str) -> Path | None:
    """Find a model of the hub in the local cache.

    Parameters
    ----------
    name : str
        As on the hub: ``"org/model"``, or ``"model"`` for the oldest.

    Returns
    -------
    Path or None
        The folder of the revision that ``main`` stood for when it was last downloaded, or of the
        only one; None if there is none.

    Notes
    -----
    The cache is where ``HF_HUB_CACHE`` says, or ``HF_HOME``, or in ``~/.cache/huggingface/hub``.
    """
    if _NAME.fullmatch(name) is None:
        return None
    folder = _cache() / f"models--{name.replace('/', '--')}"
    snapshots = folder / "snapshots"
    try:
        if not snapshots.is_dir():
            return None
        main = folder / "refs" / "main"
        revision = main.read_text("utf-8").strip() if main.is_file() else ""
        if _REVISION.fullmatch(revision) and (snapshots / revision).is_dir():
            return snapshots / revision
        found = [path for path in snapshots.iterdir() if path.is_dir()]
    except (OSError, UnicodeDecodeError):  # a cache that cannot be read holds nothing for us
        return None
    return found[0] if len(found) == 1 else None


def _cache() -> Path:
    for variable, below in _VARIABLES:
        value = os.environ.get(variable)
        if value:
            return Path(value).expanduser() / below
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "huggingface" / "hub"


def where_to_get(text: str, path: Path) -> str:
    """Say what to do about a path that does not exist, as a sentence without its full stop.

    Parameters
    ----------
    text : str
        As it was given.
    path : Path
        The path that it stands for.
    """
    address = _OF_THE_HUB.match(text)
    if address is not None:
        name, file = address["name"], address["file"]
        command = f"hf download {name}" + (f" {file}" if file else "")
        return f"nothing is downloaded; `{command}` does, and prints the path to pass"
    if is_url(text):
        return "nothing is downloaded; `curl -LO URL` does, and the file's path is what to pass"
    near = _sibling(path)
    if near is not None:
        return f"did you mean {str(near)!r}?"
    hint = f"paths are relative to {Path.cwd()}"
    if _NAME.fullmatch(text) and "/" in text and format_of(path) is None:
        hint += (
            f"; if {text!r} is a model on the Hugging Face hub, `hf download {text}` (formerly "
            "huggingface-cli) fetches it, and the same name is then read from the cache"
        )
    return hint


def _sibling(path: Path) -> Path | None:
    """Return the file or folder beside it that was probably meant."""
    try:
        names = [p.name for p in itertools.islice(_inside(path.parent), _SIBLINGS)]
    except OSError:
        return None
    near = nearest(path.name, names, 0.8)
    return None if near is None else path.parent / near


def _inside(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
