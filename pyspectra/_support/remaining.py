"""How long work of several kinds will still take, from how long its parts have taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

__all__ = ["RemainingTime"]


class RemainingTime:
    """Learns the rate of each kind of work, and tells the time that the rest will take.

    Parameters
    ----------
    totals : mapping of str to float
        All work there is, an amount for each kind: bytes, operations.
    guesses : mapping of str to float
        Seconds that one of each kind takes on a usual machine. Only their ratios count, for a kind
        of which nothing has been done, and for the share that is done.
    apart : str
        A kind whose rate says nothing of the others: a disk is not slow because cores are.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        totals: Mapping[str, float],
        guesses: Mapping[str, float],
        apart: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._totals = dict(totals)
        self._guesses = guesses
        self._apart = apart
        self._clock = clock
        self._last = clock()
        self.amounts = dict.fromkeys(totals, 0.0)
        self._seconds = dict.fromkeys(totals, 0.0)

    def spent(self, work: Mapping[str, float]) -> None:
        """Say that the time since the last call went into some work.

        Time of several kinds at once is divided among them as it was guessed.
        """
        now = self._clock()
        seconds, self._last = now - self._last, now
        whole = self._guessed(work)
        for kind, amount in work.items():
            part = amount * self._guesses[kind] / whole if whole > 0.0 else 1.0 / len(work)
            self._seconds[kind] += seconds * part
            self.amounts[kind] += amount

    def share(self) -> float:
        """Share of the work that is done, between 0 and 1."""
        whole = self._guessed(self._totals)
        return min(self._guessed(self.amounts) / whole, 1.0) if whole > 0.0 else 1.0

    def seconds(self) -> float | None:
        """Seconds that the rest will take; None as long as nothing has been done.

        Each kind goes on at its own rate. A kind that is still to come takes its guess times what
        the others took over theirs.
        """
        told = {k: x for k, x in self.amounts.items() if x > 0.0 and k != self._apart}
        if not told:
            return None
        usual = sum(self._seconds[kind] for kind in told) / self._guessed(told)
        rest = 0.0
        for kind, total in self._totals.items():
            done = self.amounts[kind]
            each = self._seconds[kind] / done if done > 0.0 else self._guesses[kind] * usual
            rest += max(total - done, 0.0) * each
        return rest

    def _guessed(self, amounts: Mapping[str, float]) -> float:
        return sum(amount * self._guesses[kind] for kind, amount in amounts.items())
