"""Reading ahead: a thread brings tensors of files into the page cache before they are loaded.

It reads into a small buffer that it throws away. What is in memory twice for that is the system's
cache, which gives way to whoever needs room; so no more tensors belong to this process than without
a thread. Of a model that is large beside the memory, what has been analysed leaves the
cache again, unless it was there before: other files and programs would have to make room for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pyspectra._support.extents import Extent
from pyspectra.weights.layer import Layer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ReadAhead"]

# Bytes that may lie ready in the cache, before they are needed.
WINDOW = 256 * 2**20

# Bytes of one reading.
PIECE = 4 * 2**20

# How long the thread waits before it looks again whether there is room in the window.
PAUSE_SECONDS = 0.002

# A model is large if it is this share of the memory of the machine.
LARGE_SHARE = 1 / 8


class ReadAhead:
    """Reads the files of some layers ahead of whoever loads them, one after the other.

    Parameters
    ----------
    layers : sequence of Layer
        In the order in which they are loaded. Those that are in memory, or computed from several
        tensors, are loaded as without this.
    memory : int, optional
        Bytes of memory that the machine has.

    Notes
    -----
    A context manager. Errors of reading are met again, and reported, where the layer is loaded.
    """

    def __init__(self, layers: Sequence[Layer], memory: int | None = None) -> None:
        self._extents = [layer.extents for layer in layers]
        self._uses = Counter(extent for extents in self._extents for extent in extents)
        total = sum(extent.end - extent.begin for extent in self._uses)
        self._is_large = total > (_memory() if memory is None else memory) * LARGE_SHARE
        self._was_cached: set[tuple[Path, int]] = set()  # pieces, by their first byte
        # Of layers; written by one thread and read by the other, without a lock that a fork could
        # leave taken.
        self._loaded = 0
        self._dropped = 0
        self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._uses and hasattr(os, "posix_fadvise"):
            self._thread = threading.Thread(target=self._run, name="pyspectra-read", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if self._thread is not None:
            self._thread.join()
        self.done()

    def loaded(self) -> None:
        """Say that one more layer has been loaded, or could not be."""
        self._loaded += 1

    def done(self) -> None:
        """Say that no layer that was loaded will be loaded again."""
        if self._thread is None or not self._is_large:
            return
        for extents in self._extents[self._dropped : self._loaded]:
            for extent in extents:
                self._uses[extent] -= 1
                if not self._uses[extent]:
                    self._drop(extent)
        self._dropped = self._loaded

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        seen: set[Extent] = set()
        before = 0  # bytes of all layers before the one in turn
        starts = [0]
        for extents in self._extents:
            starts.append(starts[-1] + sum(x.end - x.begin for x in extents))
        buffer = memoryview(bytearray(PIECE))
        for k, extents in enumerate(self._extents):
            before = starts[k]
            for extent in extents:
                fresh = extent not in seen
                seen.add(extent)
                # What cannot be read is reported where it is loaded.
                with contextlib.suppress(OSError):
                    if fresh and not self._bring(k, extent, before, starts, buffer):
                        return
                before += extent.end - extent.begin

    def _bring(
        self, k: int, extent: Extent, before: int, starts: Sequence[int], buffer: memoryview
    ) -> bool:
        """Read an extent of layer `k` as far as it is not loaded already; False at the end."""
        with open(extent.path, "rb", buffering=0) as file:
            for begin, end in _pieces(extent):
                place = before + begin - extent.begin
                while not self._ended and place > starts[self._loaded] + WINDOW:
                    time.sleep(PAUSE_SECONDS)
                if self._ended:
                    return False
                if self._loaded > k:
                    return True
                if _is_cached(file.fileno(), begin):
                    self._was_cached.add((extent.path, begin))
                else:
                    os.preadv(file.fileno(), [buffer[: end - begin]], begin)
        return True

    def _drop(self, extent: Extent) -> None:
        """Let the system forget what an extent holds, but for pieces that it had before."""
        with contextlib.suppress(OSError), open(extent.path, "rb", buffering=0) as file:
            for begin, end in _pieces(extent):
                if (extent.path, begin) not in self._was_cached:
                    os.posix_fadvise(file.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)


def _pieces(extent: Extent) -> Iterator[tuple[int, int]]:
    for begin in range(extent.begin, extent.end, PIECE):
        yield begin, min(begin + PIECE, extent.end)


def _is_cached(file: int, place: int) -> bool:
    """Tell whether a byte of an open file is in the page cache: if it can be had without waiting.

    False where the system cannot tell.
    """
    try:
        return os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT) == 1
    except (OSError, AttributeError):
        return False


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
