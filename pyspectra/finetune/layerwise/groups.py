"""Parameter groups for any optimizer, as a rule would have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pyspectra._support.arguments import check_flag, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError, called_as
from pyspectra.finetune.layerwise.rule import LayerRule, check_rule
from pyspectra.finetune.layerwise.scores import LayerScore, layer_scores
from pyspectra.finetune.layerwise.units import joined, units
from pyspectra.report.report import Report

__all__ = ["param_groups"]


def param_groups(
    model: nn.Module,
    report: Report | Mapping[str, float] | None,
    rule: LayerRule,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    named: bool = False,
) -> list[dict[str, Any]]:
    """Return parameter groups, in which every parameter of a model has what a rule gives it.

    Parameters
    ----------
    model : torch.nn.Module
    report : Report, mapping of str to float, or None
        What the rule judges by: a report on the model, made with any estimator; scores by parameter
        name; or None, to measure the model now. Of a rule without scores it is not looked at.
    rule : LayerRule
        `TempBalance`, `AlphaDecay`, `Spectrum`, `FreezeWellTrained` or `LISA`.
    lr, weight_decay : float, optional
        What the rule multiplies. The groups have what is given here, and the optimizer's own value
        where it is not.
    named : bool
        ``"params"`` are pairs of name and parameter, as optimizers take them for masks by name.

    Returns
    -------
    list of dict
        For the constructor of an optimizer. Every parameter is in exactly one group; those that are
        treated alike share one. The first group has the parameters that the rule leaves alone, if
        there are any.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, the option that the rule multiplies is not given, or
        the report is of another model.

    Notes
    -----
    This decides once. `LayerRule.attach` decides again while the model trains, and needs no groups
    of this function. A rule that freezes layers sets ``requires_grad`` of their parameters to False
    and of the others leaves it: their group takes no steps, since they get no gradients.

    A bias follows the weight of its layer. The score of a layer that the report skipped is unknown,
    and it keeps what the optimizer has.

    Examples
    --------
    >>> import torch, pyspectra as ps
    >>> from pyspectra.finetune import TempBalance, param_groups
    >>> model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)])
    >>> groups = param_groups(model, ps.analyze(model), TempBalance(), lr=1e-3)
    >>> optimizer = torch.optim.AdamW(groups)
    >>> [len(group["params"]) for group in groups]  # first and last layer, one slow, one fast
    [4, 2, 2]
    """
    if not isinstance(model, nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("param_groups", "model", "be a torch.nn.Module", got)
    rule = check_rule("param_groups", rule)
    named = check_flag("param_groups", "named", named)
    values: dict[str, float] = {}
    for option, value in (("lr", lr), ("weight_decay", weight_decay)):
        if value is not None:
            values[option] = check_number("param_groups", option, value, least=0.0)
        elif option in rule.options:
            requirement = f"be given: {type(rule).__name__} multiplies it"
            raise ArgumentValueError("param_groups", option, requirement, "None")
    found = units(model, rule.follows_norms)
    scores: tuple[LayerScore, ...] = ()
    if rule.score is not None:
        with called_as("param_groups", source="report"):
            scores = layer_scores(model if report is None else report, rule.score)
    decision = rule.decide(found, joined("param_groups", model, found, scores), 0)
    params = dict(model.named_parameters())
    groups: dict[Any, dict[str, Any]] = {}
    rows = [
        (n, unit.key in decision.factors or n in decision.frozen, unit.key)
        for unit in found
        for n in unit.names
    ]
    for name, _, key in sorted(rows, key=lambda row: row[1]):  # stable: the others keep their order
        factors = decision.factors.get(key, {})
        frozen = name in decision.frozen
        own = {option: value * factors.get(option, 1.0) for option, value in values.items()}
        group = groups.setdefault((frozen, *own.values()), {"params": [], **own})
        if frozen:
            params[name].requires_grad_(False)
        group["params"].append((name, params[name]) if named else params[name])
    return list(groups.values())
