"""Optuna's trials, ended by what `Watch` finds, or by the values that it sees."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pyspectra._support.arguments import as_number, check_choice, shown
from pyspectra.errors import ArgumentTypeError, missing_dependency
from pyspectra.report.findings import SEVERITIES, Finding
from pyspectra.training.search.space import Choice, Range, Searched, as_space, label_of

__all__ = ["OptunaFindings", "suggest"]


def suggest(trial: Any, space: Searched) -> dict[str, Any]:
    """Ask a trial of Optuna for a value of each key.

    Parameters
    ----------
    trial : optuna.trial.Trial
    space : Space or mapping of str to Range or Choice

    Returns
    -------
    dict
        Value of each key, as `grid` and `random` give them. Choices that are lists, or equal to
        one before them, have their JSON for their name in the study.

    Raises
    ------
    ArgumentTypeError
        If an argument is of another kind.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> from pyspectra.training import search
    >>> space = {"lr": search.Range(1e-4, 1e-1, log=True), "act": search.Choice(["relu", "gelu"])}
    >>> search.suggest(FixedTrial({"lr": 0.01, "act": "gelu"}), space)
    {'lr': 0.01, 'act': 'gelu'}
    """
    _check_trial("suggest", trial)
    return {key: _suggested(trial, key, one) for key, one in as_space("suggest", space).items()}


def _suggested(trial: Any, key: str, one: Range | Choice) -> Any:
    if isinstance(one, Range):
        if one.integer:
            return trial.suggest_int(key, int(one.low), int(one.high), log=one.log)
        return trial.suggest_float(key, one.low, one.high, log=one.log)
    names: dict[Any, Any] = {}
    for c in one.choices:
        # 1, 1.0 and true are three choices, but one key of a dict.
        plain = (c is None or isinstance(c, str | int | float)) and c not in names
        names[c if plain else label_of("suggest", key, c)] = c
    return names[trial.suggest_categorical(key, list(names))]


class OptunaFindings:
    """End a trial of Optuna when `Watch` finds an error, and report a value to its pruner.

    Give it to `Watch` as `on`; the callbacks for Hugging Face and Lightning hand it on.

    Parameters
    ----------
    trial : optuna.trial.Trial
    monitor : str, optional
        Metric of evaluations that is reported to the study, whose own pruner may end the trial by
        it: ``"val_loss"``.
    severity : {"error", "warning", "info"}, optional
        Findings that are so severe, or more, end the trial; none does if None.
    codes : collection of str, optional
        Only findings with these codes end it.

    Attributes
    ----------
    findings : list of Finding
        All findings so far. They are an attribute of the trial, too: ``trial.user_attrs``, under
        ``"findings"``.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is of another kind, or a code or severity is unknown.
    MissingDependencyError
        If Optuna is not installed (extra ``optuna``).

    Notes
    -----
    A run that is pruned by a finding has often reported nothing yet; the samplers of Optuna take
    such trials for worse than those that got further.

    Examples
    --------
    >>> import torch, optuna
    >>> from pyspectra.training import Watch, search
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(4, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> trial = optuna.trial.FixedTrial({})
    >>> watch = Watch(model, optimizer, on=search.OptunaFindings(trial))
    >>> try:
    ...     for _ in range(100):  # zero_grad() is forgotten
    ...         loss = model(torch.randn(8, 4)).pow(2).mean()
    ...         loss.backward()
    ...         optimizer.step()
    ...         found = watch.step(loss)
    ... except optuna.TrialPruned as pruned:
    ...     print(trial.user_attrs["findings"][0]["code"], trial.user_attrs["findings"][0]["step"])
    stale_gradient 2
    """

    def __init__(
        self,
        trial: Any,
        *,
        monitor: str | None = None,
        severity: str | None = "error",
        codes: Collection[str] | None = None,
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise missing_dependency("optuna", "OptunaFindings", extra="optuna") from error
        name = "OptunaFindings"
        _check_trial(name, trial)
        if monitor is not None and not isinstance(monitor, str):
            raise ArgumentTypeError(name, "monitor", "be a name", shown(monitor))
        if severity is not None:
            check_choice(name, "severity", severity, SEVERITIES)
        if isinstance(codes, str):
            raise ArgumentTypeError(name, "codes", "be a list", shown(codes))
        if codes:
            from pyspectra.training.rules import known_codes

            for code in codes:
                check_choice(name, "codes", code, known_codes())
        self.findings: list[Finding] = []
        self._trial, self._monitor, self._pruned = trial, monitor, optuna.TrialPruned
        self._grave = () if severity is None else SEVERITIES[: SEVERITIES.index(severity) + 1]
        self._codes = None if codes is None else frozenset(codes)

    def found(self, findings: Iterable[Finding]) -> None:
        """Keep findings, of `Watch` or of `sanity.check`, and end the trial if one is so severe.

        Raises
        ------
        optuna.TrialPruned
            If one is of a severity and code that end the trial.
        """
        new = list(findings)
        if not new:
            return
        self.findings += new
        self._trial.set_user_attr("findings", [_attributes(x) for x in self.findings])
        for finding in new:
            named = self._codes is None or finding.code in self._codes
            if named and finding.severity in self._grave:
                raise self._pruned(f"{finding.code}: {finding.message}")

    def evaluated(self, step: int, values: Mapping[str, Any]) -> None:
        """Report the monitored value, if it is among these, and end the trial if the study says so.

        Parameters
        ----------
        step : int
            Step of the run.
        values : mapping
            Metrics by name.

        Raises
        ------
        optuna.TrialPruned
            If the study's pruner ends the trial.
        """
        if self._monitor is None or self._monitor not in values:
            return
        number = as_number(values[self._monitor])
        if number is None:
            got = shown(values[self._monitor])
            raise ArgumentTypeError("OptunaFindings", self._monitor, "be a number", got)
        self._trial.report(number, step)
        if self._trial.should_prune():
            raise self._pruned(f"{self._monitor} is {number:.4g} after {step} steps")


def _check_trial(function: str, trial: Any) -> None:
    if not (hasattr(trial, "suggest_float") and hasattr(trial, "should_prune")):
        raise ArgumentTypeError(function, "trial", "be a trial of Optuna", shown(trial))


def _attributes(finding: Finding) -> dict[str, Any]:
    """Return what a study keeps of a finding: JSON, and short."""
    return {"code": finding.code, "severity": finding.severity, "step": finding.step,
            "where": finding.where, "message": finding.message}  # fmt: skip
