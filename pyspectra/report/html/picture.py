"""Small pictures inside a page: arrays as PNG, in the address of the picture itself."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from pyspectra.report.html.page import text

__all__ = ["picture", "png"]


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture as PNG.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W) or (H, W, 3)
    """
    height, width = pixels.shape[:2]
    kind = 0 if pixels.ndim == 2 else 2  # grey, or red, green and blue
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)  # each row as it is, without a filter
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def picture(values: Any, caption: str) -> str:
    """Return an array as a picture: its least value black, its largest white.

    Parameters
    ----------
    values : array, shape (H, W), (1, H, W), (3, H, W) or (H, W, 3)
    caption : str
        What it shows, for those who do not see it.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 3 and x.shape[0] in (1, 3):
        x = np.moveaxis(x, 0, -1)
    if x.ndim == 3 and x.shape[-1] == 1:
        x = x[..., 0]
    finite = x[np.isfinite(x)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    scaled = np.nan_to_num((x - low) / (high - low or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    data = base64.b64encode(png(np.clip(255 * scaled, 0, 255).astype(np.uint8))).decode()
    return f'<img class="picture" alt="{text(caption)}" src="data:image/png;base64,{data}">'
