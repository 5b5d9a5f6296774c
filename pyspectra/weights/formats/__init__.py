"""Where weights come from: a module for each file format, for models, state dicts and folders."""

from pyspectra.weights.formats.registry import (
    Folder,
    Format,
    folder_of,
    format_of,
    formats,
    read_file,
    suffixes,
)

__all__ = [
    "Folder",
    "Format",
    "folder_of",
    "format_of",
    "formats",
    "read_file",
    "suffixes",
]
