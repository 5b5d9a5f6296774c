"""What the doctor says of a run: its findings, causes first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pyspectra._support.arguments import check_choice, check_path
from pyspectra._support.files import write_text
from pyspectra.errors import PyspectraError
from pyspectra.report.findings import SEVERITIES, Finding
from pyspectra.training.history_file import jsonable
from pyspectra.training.history_store import Store
from pyspectra.training.recorded_run import RecordedRun
from pyspectra.training.rules.registry import conclusions

RUN_SCHEMA = "pyspectra.run_report/1"


class RunError(PyspectraError, RuntimeError):
    """A run has a finding that its caller wanted to stop at.

    Attributes
    ----------
    findings : tuple of Finding
    """

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__(findings)
        self.findings = findings

    def __str__(self) -> str:
        return "\n".join(sentence(f) for f in self.findings)


class TrainingWarning(UserWarning):
    """Something is wrong with a training run, or seems to be."""


def sentence(finding: Finding) -> str:
    """Return a finding as title, measured remark and what to do."""
    advice = "".join(f"\n    - {a}" for a in finding.advice)
    at = "" if finding.step is None else f" (step {finding.step})"
    return f"{finding.severity}: {finding.code}{at}: {finding.message}{advice}"


@dataclass(frozen=True, eq=False)
class RunReport:
    """Findings of a run.

    Attributes
    ----------
    all_findings : tuple of Finding
        Every finding in the order in which they were made, symptoms of others included.
    n_steps, n_epochs : int
        How long the run was.
    history : History or None
        What was recorded of it.

    Examples
    --------
    >>> from pyspectra.training import History, diagnose
    >>> print(diagnose(History()))
    Nothing was found in 0 steps.
    """

    all_findings: tuple[Finding, ...]
    n_steps: int = 0
    n_epochs: int = 0
    history: RecordedRun | None = field(default=None, repr=False)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Causes first, without the symptoms that they explain."""
        return tuple(conclusions(self.all_findings))

    @property
    def worst(self) -> str | None:
        """Severity of the first finding; None if there is none."""
        found = self.findings
        return found[0].severity if found else None

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        found = self.findings
        steps = f"{self.n_steps} {'step' if self.n_steps == 1 else 'steps'}"
        if not found:
            return f"Nothing was found in {steps}."
        hidden = len(self.all_findings) - len(found)
        more = f"\n({hidden} more that follow from these are in all_findings.)" if hidden else ""
        return "\n".join(map(sentence, found)) + more

    def to_records(self) -> list[dict[str, Any]]:
        """Return the findings as dicts, causes first."""
        return [{f.name: jsonable(getattr(x, f.name)) for f in fields(x)} for x in self.findings]

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the report as JSON, and write it to `path` if one is given."""
        text = json.dumps(
            {
                "schema": RUN_SCHEMA,
                "steps": self.n_steps,
                "epochs": self.n_epochs,
                "findings": self.to_records(),
            },
            indent=2,
        )
        if path is not None:
            write_text(check_path("RunReport.to_json", "path", path), text + "\n")
        return text

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the run as one page, and write it to `path` if one is given.

        It holds findings, what the curves say, curves, spectra and settings, and needs nothing but
        itself: no script, no network.

        Parameters
        ----------
        path : str or path, optional
            Written whole or not at all.

        Returns
        -------
        str
            HTML.

        Raises
        ------
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> from pyspectra.training import History, diagnose
        >>> history = History()
        >>> history.log(epoch=1, train_loss=0.6, val_loss=0.7)
        >>> "Nothing was found." in diagnose(history).to_html()
        True
        """
        from pyspectra.training.run_page import run_page

        history = RecordedRun(Store(None, {}, 1.0, 100)) if self.history is None else self.history
        page = run_page(
            history, self.findings, n_steps=self.n_steps, n_epochs=self.n_epochs, name=history.name
        )
        if path is not None:
            write_text(check_path("RunReport.to_html", "path", path), page)
        return page

    def raise_on(self, severity: str = "error") -> RunReport:
        """Raise if there is a finding that is so severe, or more.

        Parameters
        ----------
        severity : {"error", "warning", "info"}

        Returns
        -------
        RunReport
            This one.

        Raises
        ------
        RunError
            If there is such a finding.
        """
        least = SEVERITIES.index(
            check_choice("RunReport.raise_on", "severity", severity, SEVERITIES)
        )
        grave = tuple(f for f in self.findings if SEVERITIES.index(f.severity) <= least)
        if grave:
            raise RunError(grave)
        return self
