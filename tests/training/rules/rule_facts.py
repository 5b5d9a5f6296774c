"""Facts with numbers written by hand, shared by the tests of rules."""

from __future__ import annotations

import itertools

import numpy as np

from pyspectra.training.rules import Thresholds, judge
from pyspectra.training.rules import facts as f
from pyspectra.types import StepStatistics

T = Thresholds()
RNG = np.random.default_rng(0)


def codes(*facts, thresholds=T):
    """What rules find: (code, severity)."""
    return [(x.code, x.severity) for _, x in judge(facts, thresholds)]


def said(*facts, thresholds=T):
    """What rules find, without notes."""
    return [code for code, severity in codes(*facts, thresholds=thresholds) if severity != "info"]


def found(*facts):
    """The only finding that rules make."""
    [(_, finding)] = judge(facts, T)
    return finding


def tensor(name="w", grad=1.0, update=1e-3, shape=(4, 4), lr=0.1, dtype="float32", weights=1.0,
           lost=0, zero=0, non_finite=0, **more):  # fmt: skip
    """One step of a parameter of 16 elements."""
    s = StepStatistics(
        n=16, grad_norm=grad, grad_max=grad, param_norm=weights, update_norm=update,
        grad_dot_update=-1.0, n_zero=zero, n_non_finite=non_finite, n_rounded_away=lost,
    )  # fmt: skip
    return f.TensorStep(name, shape, dtype, lr, s, **more)


def steps(*rows, n=8, **more):
    """The same step, several times over."""
    return f.RecentSteps(n, [list(rows)] * n, **more)


def losses(*levels, each=60, noise=0.0, seed=0, **more):
    """A curve of losses that goes straight from level to level."""
    values = np.concatenate([np.linspace(a, b, each) for a, b in itertools.pairwise(levels)])
    return f.LossCurve(values + noise * np.random.default_rng(seed).standard_normal(len(values)),
                       **more)  # fmt: skip


def curves(train, val=None, **more):
    """Curves of epochs of 50 steps each."""
    n = len(train)
    values = {"train_loss": np.asarray(train, float)}
    if val is not None:
        values["val_loss"] = np.asarray(val, float)
    named = [k for k in more if k.startswith(("val_", "train_"))]
    values |= {k: np.asarray(more.pop(k), float) for k in named}
    return f.Curves(np.arange(1.0, n + 1), values, steps=list(range(50, 50 * n + 1, 50)), **more)
