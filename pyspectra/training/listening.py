"""What a finding does besides being recorded: a warning, an exception, or what a listener does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pyspectra._support.arguments import check_choice
from pyspectra.report.findings import Finding
from pyspectra.training.run_report import RunError, TrainingWarning, sentence

__all__ = ["Listener", "Silent", "listener_of"]


@runtime_checkable
class Listener(Protocol):
    """What `Watch` tells of a run as it goes; what its methods raise ends the run."""

    def found(self, findings: Sequence[Finding]) -> None:
        """Take new findings, one at least."""

    def evaluated(self, step: int, values: Mapping[str, Any]) -> None:
        """Take the metrics of an evaluation, or of an epoch: ``val_loss`` after `step` steps."""


class Silent:
    """Do nothing: findings are collected."""

    def found(self, findings: Sequence[Finding]) -> None:
        """Do nothing."""

    def evaluated(self, step: int, values: Mapping[str, Any]) -> None:
        """Do nothing."""


class _Warning(Silent):
    def found(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.severity != "info":
                # This function, two of `Watch` and its method that the user called.
                warnings.warn(sentence(finding), TrainingWarning, stacklevel=5)


class _Raising(Silent):
    def found(self, findings: Sequence[Finding]) -> None:
        errors = tuple(x for x in findings if x.severity == "error")
        if errors:
            raise RunError(errors)


def listener_of(on: Any, is_first: bool) -> Listener:
    """Return who hears of findings; of several processes only the first one warns."""
    if isinstance(on, Listener):
        return on
    kinds = {"warn": _Warning if is_first else Silent, "raise": _Raising, "collect": Silent}
    return kinds[check_choice("Watch", "on", on, tuple(kinds))]()
