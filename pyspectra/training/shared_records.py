"""What is recorded of a run: by this process alone, or of all processes by the first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pyspectra.report.findings import Finding
from pyspectra.training.history import History
from pyspectra.training.processes import Alone, Record, mean_of, numbers

__all__ = ["SharedRecords"]


class SharedRecords:
    """Write the history of a run.

    Where several processes train together, what each of them has of a step waits until all of them
    `sync`; the first then writes the mean over all samples.

    Parameters
    ----------
    history : History
    processes : Alone or Group
    """

    def __init__(self, history: History, processes: Alone) -> None:
        self._history, self._processes = history, processes
        self._waiting: list[Record] = []
        self._errors: list[Finding] = []

    def add(self, record: Record) -> None:
        """Record a batch of training."""
        if self._processes.sums:
            self._waiting.append(record)
        elif record.values:
            self._log(record)

    def log(self, **values: Any) -> None:
        """Record what the first process knows already."""
        if self._processes.is_first:
            self._history.log(**values)

    def finding(self, finding: Finding) -> None:
        """Record a finding; errors of other processes are told to the first."""
        if self._processes.is_first:
            self._history.log_finding(finding)
        elif finding.severity == "error":
            self._errors.append(finding)

    def sync(self) -> list[Finding]:
        """Put together what all processes have; all of them have to call it.

        Returns
        -------
        list of Finding
            Errors that other processes found, on the first; each says whose it is.
        """
        if not self._processes.sums:
            return []
        waiting, self._waiting = numbers(self._waiting), []
        errors, self._errors = self._errors, []
        every = self._processes.gather((waiting, errors))
        if not self._processes.is_first:
            return []
        for records in zip(*(own for own, _ in every), strict=False):
            self._log(mean_of(records))
        return [
            dataclasses.replace(error, evidence={**error.evidence, "rank": rank})
            for rank, (_, own) in enumerate(every)
            for error in own
        ]

    def close(self) -> None:
        """Write what waits for a `sync` that will not come: of this process alone."""
        waiting, self._waiting = self._waiting, []
        if self._processes.is_first:
            for record in waiting:
                self._log(record)
        self._history.flush()

    def _log(self, record: Record) -> None:
        values: Mapping[str, Any] = record.values
        self._history.log(
            step=record.step, epoch=record.epoch, split="train", n=record.n, **dict(values)
        )


def merged_sums(
    processes: Alone, sums: Mapping[str, float], n: int, confusion: Any
) -> tuple[dict[str, float], int, Any]:
    """Add sums over samples, their number, and counts of classes over all processes."""
    every: Sequence[tuple[Mapping[str, float], int, Any]] = processes.gather((sums, n, confusion))
    added: dict[str, float] = {}
    counts = None
    for own, _, own_counts in every:
        for name, value in own.items():
            added[name] = added.get(name, 0.0) + value
        if own_counts is not None:
            counts = own_counts if counts is None else counts + own_counts
    return added, sum(count for _, count, _ in every), counts
