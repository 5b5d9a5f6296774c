"""What has been said already: a finding is made once, and again only after it had gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from pyspectra.report.findings import SEVERITIES, Finding
from pyspectra.training.rules import Thresholds
from pyspectra.training.rules.facts import Curves, Trajectories
from pyspectra.training.rules.registry import Rule, conclusions, judge, rules_of

Key = tuple[str, str | None]

# Facts whose steps are those of the history, which counts them from the beginning of the run.
_OF_HISTORY = (Curves, Trajectories)


class Memory:
    """Judge facts, and tell what is new.

    Parameters
    ----------
    thresholds : Thresholds
    ignore : tuple of str
        Codes that are not looked for.
    patience : int
        Checks without a finding after which it may be made again.
    first_step : int
        Step of the run at which the facts begin to count theirs: more than 0 if it was resumed.

    Attributes
    ----------
    found : list of Finding
        Every finding so far, symptoms of others included.
    """

    def __init__(
        self, thresholds: Thresholds, ignore: tuple[str, ...], patience: int, first_step: int = 0
    ) -> None:
        self.thresholds = thresholds
        self.first_step = first_step
        self.found: list[Finding] = []
        self._ignore, self._patience = ignore, patience
        self._standing: dict[Key, str] = {}
        self._clean: dict[Key, int] = {}

    def judge(self, facts: Iterable[object], epoch: int | None = None) -> list[Finding]:
        """Return findings that are new and follow from no other; the rest is only kept."""
        facts = list(facts)
        made = [self._of_run(r, x) for r, x in judge(facts, self.thresholds, self._ignore)]
        asked = {code for x in facts for r in rules_of(type(x)) for code in r.codes}
        self._count_clean(asked, {(x.code, x.where) for x in made})
        new = []
        for finding in made:
            key = (finding.code, finding.where)
            before = self._standing.get(key)
            graver = before is not None and _rank(finding.severity) < _rank(before)
            if before is None or graver:
                self._standing[key] = finding.severity
                new.append(finding if epoch is None else dataclasses.replace(finding, epoch=epoch))
        self.found += new
        causes = {id(x) for x in conclusions(self.found)}
        return [x for x in new if id(x) in causes]

    def adopt(self, findings: Iterable[Finding]) -> list[Finding]:
        """Take in what others found; return what is not known yet."""
        new = []
        for finding in findings:
            key = (finding.code, finding.where)
            if key not in self._standing:
                self._standing[key] = finding.severity
                new.append(finding)
        self.found += new
        causes = {id(x) for x in conclusions(self.found)}
        return [x for x in new if id(x) in causes]

    def _of_run(self, rule: Rule, finding: Finding) -> Finding:
        """Count the step of a finding from the beginning of the run."""
        if finding.step is None or not self.first_step or rule.needs in _OF_HISTORY:
            return finding
        return dataclasses.replace(finding, step=finding.step + self.first_step)

    def afterwards(self, facts: Iterable[object], epoch: int | None = None) -> list[Finding]:
        """Return what else would be found if the run ended now; nothing of it is kept."""
        made = [self._of_run(*x) for x in judge(facts, self.thresholds, self._ignore)]
        told = {(x.code, x.where) for x in self.found}
        return [
            finding if epoch is None else dataclasses.replace(finding, epoch=epoch)
            for finding in made
            if (finding.code, finding.where) not in told
        ]

    def _count_clean(self, asked: set[str], standing: set[Key]) -> None:
        for key in list(self._standing):
            if key[0] not in asked:
                continue
            self._clean[key] = 0 if key in standing else self._clean.get(key, 0) + 1
            if self._clean[key] >= self._patience:
                del self._standing[key], self._clean[key]


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)
