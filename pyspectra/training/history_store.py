"""Where the lines of a history are kept: in memory, and behind it in a file.

Scalars on devices wait here, so that no step of a training waits for them.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import as_number, shown
from pyspectra.errors import ArgumentTypeError
from pyspectra.training.history_file import HistoryFile, encode_line

__all__ = ["Store"]


class Store:
    """Lines in memory, of which the last may not be in the file yet.

    Parameters
    ----------
    path : Path or None
        The file, if there is one to write.
    header : dict
        Its first line.
    flush_seconds, flush_records : float, int
        The file is written to when the last time is so long ago, or so many lines are waiting.
    """

    def __init__(
        self, path: Path | None, header: dict[str, Any], flush_seconds: float, flush_records: int
    ) -> None:
        self.header = header
        self.lines: list[dict[str, Any]] = []
        self._file = None if path is None else HistoryFile(path)
        self._written = 0
        self._flush_seconds = flush_seconds
        self._flush_records = flush_records
        self._flushed = time.monotonic()
        # Record, name of the metric, tensor.
        self._waiting: list[tuple[dict[str, Any], str, Any]] = []
        self._said = False

    # --- lines ----------------------------------------------------------------------------------

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; write if that is due."""
        self.lines.append(line)
        unwritten = len(self.lines) - self._written
        if unwritten >= self._flush_records or (
            time.monotonic() - self._flushed >= self._flush_seconds
        ):
            self.flush()

    def resume(self, step: int | None) -> None:
        """Go on behind the lines of the file up to `step`; later ones move to ``path.1``."""
        assert self._file is not None
        found = self._file.resume(step)
        self.header = found.header
        self.replace(found.lines)
        self._written = len(found.lines)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Have other lines in memory."""
        self._waiting.clear()
        self.lines[:] = lines

    @property
    def begun(self) -> bool:
        """Whether there is anything: a line, or an open file."""
        return bool(self.lines) or (self._file is not None and self._file.begun)

    @property
    def has_file(self) -> bool:
        """Whether there is a file that is written to."""
        return self._file is not None

    def flush(self) -> None:
        """Fetch what is on devices, and write what is not in the file yet.

        Raises
        ------
        OSError
            If the file cannot be written to. Nothing is lost: the next call tries again.
        """
        self.fetch()
        self._flushed = time.monotonic()
        if self._file is None or self._written == len(self.lines):
            if self._file is None:
                self._written = len(self.lines)
            return
        if not self._file.begun:
            self._file.begin(self.header)
        self._file.append([encode_line(line) for line in self.lines[self._written :]])
        self._written = len(self.lines)

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    # --- values ---------------------------------------------------------------------------------

    def put(self, record: dict[str, Any], name: str, value: Any) -> None:
        """Store a value in a record as a float: now or, if it is on a device, at `fetch`.

        Raises
        ------
        ArgumentTypeError
            If it is no real number.
        """
        if type(value) is float:
            record[name] = value
            return
        if hasattr(value, "detach"):
            value = self._detached(name, value)
            if value.device.type != "cpu":
                # A copy: what the caller holds may be written over before it is fetched.
                record[name] = None
                self._waiting.append((record, name, value.clone()))
                return
            value = value.item()
        number = as_number(value)
        if number is None:
            raise ArgumentTypeError("History.log", name, "be a real number", shown(value))
        record[name] = number

    def _detached(self, name: str, value: Any) -> Any:
        if value.numel() != 1 or value.is_complex():
            got = f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
            raise ArgumentTypeError("History.log", name, "be a real number", got)
        if value.grad_fn is not None and not self._said:
            self._said = True
            warnings.warn(
                f"History.log: {name!r} holds the graph that it was computed by, and with it the "
                "memory of its step. It is recorded without. Hint: log loss.detach().",
                stacklevel=4,
            )
        return value.detach()

    def fetch(self) -> None:
        """Fetch what is waiting: one transfer, and one wait, for each device."""
        if not self._waiting:
            return
        torch: Any = sys.modules["torch"]  # tensors are waiting, so it is loaded
        waiting, self._waiting = self._waiting, []
        by_device: dict[Any, list[tuple[dict[str, Any], str, Any]]] = {}
        for item in waiting:
            by_device.setdefault(item[2].device, []).append(item)
        for items in by_device.values():
            stacked = torch.stack([value.reshape(()).double() for _, _, value in items])
            for (record, name, _), number in zip(items, stacked.cpu().tolist(), strict=True):
                record[name] = number
