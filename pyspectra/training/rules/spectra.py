"""Spectra of layers over time: tails, ranks, norms and traps that training changes for the worse.

While a model trains, a level says little: a fresh matrix has some alpha, too, and WeightWatcher's
bounds have no null. So a layer is held against itself, as it was when it was first measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pyspectra.report import findings
from pyspectra.report.findings import Finding
from pyspectra.training.rules.facts import LayerSpectrum, Trajectories
from pyspectra.training.rules.registry import rule


@dataclass(frozen=True)
class SpectraThresholds(findings.Thresholds):
    """Thresholds of the rules of spectra; bounds of alpha are those of the analysis of weights.

    Attributes
    ----------
    tail_points, spectrum_points : int
        A layer with a shorter tail, or fewer eigenvalues, is not judged by its alpha: matrices of
        independent Gaussian entries have any alpha from 3.8 to 24.5.
    rank_fall, rank_low : float
        The stable rank fell by more than this share, to no more than this.
    rank_shape : int
        Smallest matrix whose rank is judged.
    norm_doublings : int
        Checks in a row, in each of which the largest eigenvalue was twice that of the check before.
    trap_strength : float
        A new trap is reported if its eigenvalue is so many times what a random matrix reaches. In
        small MLPs that learn well, healthy means of weights reach 6; those of runs with ten times
        the best learning rate are at 10 to 36.
    trap_checks : int
        It is reported if it is found in so many checks in a row.
    """

    tail_points: int = 20
    spectrum_points: int = 50
    rank_fall: float = 0.5
    rank_low: float = 2.0
    rank_shape: int = 32
    norm_doublings: int = 3
    trap_strength: float = 10.0
    trap_checks: int = 2


def _inner_first(facts: Trajectories, found: Iterable[tuple[str, Finding]]) -> Iterator[Finding]:
    """Pass findings on; of first, last and embedding layers only beside those of others."""
    every = list(found)
    if any(name not in facts.outer for name, _ in every):
        yield from (finding for _, finding in every)


def _certain(row: LayerSpectrum, t: SpectraThresholds) -> bool:
    """Tell whether the alpha of a layer says anything: there is a tail, and there is structure."""
    enough = row.n_tail >= t.tail_points and row.n_evals >= t.spectrum_points
    return enough and math.isfinite(row.alpha) and not row.random_p_value > t.random_level


def _left_bounds(
    facts: Trajectories, t: SpectraThresholds, *, above: bool
) -> Iterator[tuple[str, Finding]]:
    limit = t.alpha_high if above else t.alpha_low
    for name, rows in facts.layers.items():
        first, last = rows[0], rows[-1]
        if len(rows) < 2 or last.step <= facts.warmup or not _certain(last, t):
            continue
        beyond = last.alpha_low > limit if above else last.alpha_high < limit
        was_beyond = first.alpha > limit if above else first.alpha < limit
        if beyond and not was_beyond:
            side, code = ("above", "layer_under_trained") if above else (
                "below", "layer_over_trained"
            )  # fmt: skip
            error = 0.5 * (last.alpha_high - last.alpha_low)
            yield name, Finding(
                code=code,
                severity="info",
                where=name,
                step=last.step,
                value=last.alpha,
                threshold=limit,
                message=(
                    f"alpha of {name} is {last.alpha:.2f} ± {error:.2f}, {side} {limit:g}; at step "
                    f"{first.step} it was {first.alpha:.2f}."
                ),
                advice=_UNDER if above else _OVER,
                evidence={"first_alpha": first.alpha, "first_step": first.step,
                          "n_tail": last.n_tail},
            )  # fmt: skip


# Runs that generalise well have such layers, too (benchmarks/truth.md): alpha alone accuses nobody.
_UNDER = (
    "no fault by itself; WeightWatcher calls such a layer under-trained",
    "train longer if validation still improves; else look at its learning rate and weight decay",
)
_OVER = (
    "no fault by itself; WeightWatcher calls such a layer over-trained",
    "compare training with validation, and act only where validation gets worse",
)


@rule("D41", "layer_under_trained", needs=Trajectories, severity="info")
def layer_under_trained(facts: Trajectories, thresholds: SpectraThresholds) -> Iterator[Finding]:
    """The tail of a layer became lighter than that of trained layers."""
    yield from _inner_first(facts, _left_bounds(facts, thresholds, above=True))


@rule("D42", "layer_over_trained", needs=Trajectories, severity="info")
def layer_over_trained(facts: Trajectories, thresholds: SpectraThresholds) -> Iterator[Finding]:
    """The tail of a layer became heavier than that of trained layers."""
    yield from _inner_first(facts, _left_bounds(facts, thresholds, above=False))


@rule("D43", "rank_collapse", needs=Trajectories, severity="warning")
def rank_collapse(facts: Trajectories, thresholds: SpectraThresholds) -> Iterator[Finding]:
    """One direction took over a layer."""
    yield from _inner_first(facts, _collapsed(facts, thresholds))


def _collapsed(facts: Trajectories, t: SpectraThresholds) -> Iterator[tuple[str, Finding]]:
    for name, rows in facts.layers.items():
        first, last = _at_end_of_warmup(rows, facts.warmup), rows[-1]
        if last.step <= facts.warmup or min(last.N, last.M) < t.rank_shape:
            continue
        fell = last.stable_rank < (1 - t.rank_fall) * first.stable_rank
        if fell and last.stable_rank <= t.rank_low:
            yield (
                name,
                Finding(
                    code="rank_collapse",
                    severity="warning",
                    where=name,
                    step=last.step,
                    value=last.stable_rank,
                    threshold=t.rank_low,
                    message=(
                        f"The stable rank of {name} ({last.N} x {last.M}) fell from "
                        f"{first.stable_rank:.3g} at step {first.step} to {last.stable_rank:.3g}."
                    ),
                    advice=(
                        "lower the learning rate of this layer",
                        "normalise its inputs: a common mean makes one direction",
                        "add weight decay",
                    ),
                    evidence={"first_stable_rank": first.stable_rank, "first_step": first.step},
                ),
            )


def _at_end_of_warmup(rows: Sequence[LayerSpectrum], warmup: int) -> LayerSpectrum:
    """Return the last measurement of the warm-up; the first one, if all came later."""
    return next((row for row in reversed(rows) if row.step <= warmup), rows[0])


@rule("D44", "spectral_norm_growth", needs=Trajectories, severity="warning")
def spectral_norm_growth(facts: Trajectories, thresholds: SpectraThresholds) -> Iterator[Finding]:
    """The largest eigenvalue of a layer doubles from check to check."""
    n = thresholds.norm_doublings
    norms = {name: rows[-1].spectral_norm for name, rows in facts.layers.items()}
    for name, rows in facts.layers.items():
        recent = rows[-n - 1 :]
        if len(recent) <= n or recent[0].step < facts.warmup:
            continue
        squares = np.array([row.spectral_norm for row in recent], dtype=np.float64) ** 2
        others = [norm for other, norm in norms.items() if other != name]
        # A layer that began at zero, as LoRA's do, grows fast until it is as large as the others.
        large = not others or norms[name] > float(np.median(others))
        if large and squares[0] > 0 and bool((squares[1:] >= 2 * squares[:-1]).all()):
            yield Finding(
                code="spectral_norm_growth",
                severity="warning",
                where=name,
                step=recent[-1].step,
                value=float(squares[-1] / squares[0]),
                threshold=2.0**n,
                message=(
                    f"The largest eigenvalue of {name} doubled in each of the last {n} checks: "
                    f"{squares[0]:.3g} at step {recent[0].step}, {squares[-1]:.3g} now."
                ),
                advice=(
                    "divide the learning rate by 3 to 10",
                    "warm the learning rate up, or clip gradients",
                    "add weight decay",
                ),
                evidence={"steps": [row.step for row in recent], "lambda_max": squares.tolist()},
            )


@rule("D45", "correlation_trap", needs=Trajectories, severity="info")
def correlation_trap(facts: Trajectories, thresholds: SpectraThresholds) -> Iterator[Finding]:
    """The mean or a few outliers of the entries make a direction, wherever they stand.

    It is a note and no warning: how strong it is depends on the size of a layer, too.
    """
    n = thresholds.trap_checks
    for name, rows in facts.layers.items():
        recent = rows[-n:]
        if name in facts.outer or len(rows) <= n or rows[-1].n_evals < thresholds.spectrum_points:
            continue
        new = all(row.n_traps > rows[0].n_traps for row in recent)
        strong = all(row.trap_strength >= thresholds.trap_strength for row in recent)
        if new and strong and recent[0].step > facts.warmup:
            last = recent[-1]
            yield Finding(
                code="correlation_trap",
                severity="info",
                where=name,
                step=last.step,
                value=last.trap_strength,
                threshold=thresholds.trap_strength,
                message=(
                    f"With its entries in random order, {name} has an eigenvalue "
                    f"{last.trap_strength:.3g} times what a random matrix reaches; at step "
                    f"{rows[0].step} it had none."
                    if rows[0].n_traps == 0
                    else f"With its entries in random order, {name} has {last.n_traps} eigenvalues "
                    f"beyond a random matrix, the largest {last.trap_strength:.3g} times; at step "
                    f"{rows[0].step} it had {rows[0].n_traps}."
                ),
                advice=(
                    "lower the learning rate",
                    "look for outliers in the batches, and clip gradients",
                    "find_traps(W) names the entries; remove_traps takes them away",
                ),
            )
