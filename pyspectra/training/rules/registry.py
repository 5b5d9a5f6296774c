"""What a rule of the doctor is: a function from facts to findings, and the record of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pyspectra._support.arguments import check_choice
from pyspectra.report.findings import SEVERITIES, Finding

Check = Callable[[Any, Any], Iterable[Finding]]
F = TypeVar("F", bound=Check)

RULES: list[Rule] = []
"""Every rule, in the order of its detector's number; `rule` adds to it."""


@dataclass(frozen=True)
class Rule:
    """One detector.

    Attributes
    ----------
    id : str
        Its number in the literature of the package: ``"D03"``.
    codes : tuple of str
        Codes of the findings that it makes, `Finding.code`.
    severity : {"error", "warning", "info"}
        The most severe finding that it makes.
    needs : type
        The kind of facts that it reads, one of `pyspectra.training.rules.facts`.
    check : callable
        ``check(facts, thresholds) -> findings``: a pure function of numbers.
    explains : tuple of str
        Codes of the symptoms that follow from what it finds, and are not reported beside it.
    """

    id: str
    codes: tuple[str, ...]
    severity: str
    needs: type
    check: Check
    explains: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """First line of the function's documentation."""
        return (self.check.__doc__ or "").strip().split("\n", maxsplit=1)[0]


def rule(
    number: str,
    *codes: str,
    needs: type,
    severity: str = "error",
    explains: Iterable[str] = (),
) -> Callable[[F], F]:
    """Register a function as a rule.

    Parameters
    ----------
    number : str
        Number of the detector, ``"D03"``.
    *codes : str
        Codes of the findings that it makes.
    needs : type
        Kind of facts that it takes as its first argument; the second are the thresholds.
    severity : {"error", "warning", "info"}
        The most severe finding that it makes: an error is exact, a warning statistical.
    explains : iterable of str
        Codes of the symptoms that follow from it.
    """
    check_choice("rule", "severity", severity, SEVERITIES)

    def register(function: F) -> F:
        RULES.append(Rule(number, codes, severity, needs, function, tuple(explains)))
        return function

    return register


def rules_of(kind: type) -> list[Rule]:
    """Return the rules that read facts of this kind."""
    return [r for r in RULES if r.needs is kind]


def known_codes() -> tuple[str, ...]:
    """Return the codes of all findings that rules make."""
    return tuple(dict.fromkeys(code for r in RULES for code in r.codes))


def judge(
    facts: Iterable[object], thresholds: Any, ignore: Collection[str] = ()
) -> list[tuple[Rule, Finding]]:
    """Apply every rule to the facts that it needs.

    Parameters
    ----------
    facts : iterable of objects
        Records of `pyspectra.training.rules.facts`, of any kinds.
    thresholds : Thresholds
    ignore : collection of str
        Codes that are not looked for.

    Returns
    -------
    list of (Rule, Finding)
        What was found, in the order of the facts and of the rules.
    """
    return [
        (r, finding)
        for fact in facts
        for r in rules_of(type(fact))
        if not set(r.codes) <= set(ignore)
        for finding in r.check(fact, thresholds)
        if finding.code not in ignore
    ]


def conclusions(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with causes first, without the symptoms that a cause explains.

    What came first explains what came later, not the other way round; of two that came at once the
    graver, then the one of the detector with the lower number. A symptom that is explained explains
    nothing itself. The result has errors before warnings and notes, and what came first before what
    came later.
    """
    explained: dict[str, Finding] = {}
    kept: list[Finding] = []
    every = list(findings)
    for finding in sorted(every, key=lambda x: (_step(x), _follows(x, every), *_key(x))):
        if finding.code in explained:
            continue
        graver = [k for k in kept if k.code == finding.code and k.where == finding.where]
        if graver and _key(graver[0]) <= _key(finding):
            continue
        kept = [k for k in kept if k not in graver] + [finding]
        if finding.severity != "info":
            for symptom in _symptoms_of(finding.code):
                if symptom != finding.code:
                    explained.setdefault(symptom, finding)
    return sorted(kept, key=lambda x: (SEVERITIES.index(x.severity), _step(x), *_key(x)))


def _follows(finding: Finding, findings: list[Finding]) -> bool:
    """Tell whether another finding of the same step explains this one."""
    return any(
        finding.code in _symptoms_of(x.code)
        for x in findings
        if x.code != finding.code and _step(x) == _step(finding) and x.severity != "info"
    )


def _step(finding: Finding) -> float:
    return -1.0 if finding.step is None else finding.step


def _key(finding: Finding) -> tuple[int, int, float]:
    rank = next(i for i, r in enumerate(sorted_rules()) if finding.code in r.codes)
    return SEVERITIES.index(finding.severity), rank, _step(finding)


def sorted_rules() -> list[Rule]:
    """Return the rules by their numbers."""
    return sorted(RULES, key=lambda r: (int(r.id[1:3]), r.id))


def _symptoms_of(code: str) -> set[str]:
    """Return what follows from a finding, by all rules that make it."""
    return {symptom for r in RULES if code in r.codes for symptom in r.explains}


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return names as part of a sentence, the first few of many."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def number(value: Any) -> float | None:
    """Return a number as JSON has it: None for one that is not finite."""
    out = float(value)
    return out if math.isfinite(out) else None


Evidence = Mapping[str, Any]
