"""The numbers of a layer in words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyspectra._support.text import counted
from pyspectra.report.columns import fitted
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import certainty, evidence, problem_of, random_p
from pyspectra.types import Status

__all__ = ["told"]


def told(layer: LayerReport) -> list[str]:
    """Return sentences about a layer: what it is, its tail, what follows, its size."""
    return [*_matrix(layer), *_tail(layer), *_judged(layer), *_structure(layer), *_bulk(layer),
            *_size(layer)]  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.3g}"


def _matrix(layer: LayerReport) -> Iterator[str]:
    esd = layer.esd
    shape = "×".join(map(str, layer.shape))
    if esd.status is not Status.OK:
        yield f"A {layer.kind} layer of shape {shape} has no spectrum: {esd.status.words}."
        return
    pooled = f" of {esd.n_matrices} matrices of {esd.N}×{esd.M}" if esd.n_matrices > 1 else ""
    yield f"A {layer.kind} layer of shape {shape} has {counted(len(esd.evals), 'eigenvalue')}" + (
        f"{pooled}."
    )
    if layer.change is not None:
        yield (
            f"What is shown is its change since the base model, {_number(layer.change.relative)} "
            "of the norm of its weights."
        )


def _tail(layer: LayerReport) -> Iterator[str]:
    fit = layer.fit
    if not fitted(layer):
        if layer.esd.status is Status.OK:
            yield f"No power law could be fitted: {fit.status.words}."
        return
    yield (
        f"The {layer.n_tail} of them from λ = {_number(fit.xmin)} on make the tail: its exponent α "
        f"is {fit.alpha:.2f} ± {fit.alpha_stderr:.2f}, and the law is never further than "
        f"D = {fit.D:.3f} from them."
    )
    if math.isfinite(fit.ci[0]):
        yield f"The bootstrap gives α from {fit.ci[0]:.2f} to {fit.ci[1]:.2f} (95 %)."
    if math.isfinite(fit.p_value):
        holds = fit.p_value > THRESHOLDS.implausible
        said = "so a power law is plausible" if holds else "which rules a power law out"
        yield f"Goodness of fit has p = {fit.p_value:.2f}, {said}."


def _judged(layer: LayerReport) -> Iterator[str]:
    if not fitted(layer):
        return
    problem = problem_of(layer)
    low, high = THRESHOLDS.alpha_low, THRESHOLDS.alpha_high
    if problem is not None:
        does = problem.one.format(threshold=problem.threshold(THRESHOLDS))
        sure = certainty(layer)
        yield f"The layer {does}{', ' + sure if sure else ''}."
    elif evidence(layer).calibrated:
        yield f"Alpha lies between {low:g} and {high:g}, as is typical, {certainty(layer)}."
    else:
        yield "For this exponent no bounds are known, so it is not judged."


def _structure(layer: LayerReport) -> Iterator[str]:
    p = random_p(layer)
    if math.isfinite(p):
        seen = p <= THRESHOLDS.random_level
        yield (
            "The test against random weights finds "
            + ("structure" if seen else "no structure")
            + (f" (p = {p:.2g})." if p >= 1e-12 else " (p < 1e-12).")
        )
    if layer.structures:
        yield f"Recognised in it: {', '.join(layer.structures)}."


def _bulk(layer: LayerReport) -> Iterator[str]:
    mp, randomized = layer.mp, layer.randomized
    if mp is not None and mp.status is Status.OK:
        above = counted(mp.n_spikes, "eigenvalue lies", "eigenvalues lie")
        yield (
            f"The bulk of its spectrum ends where the Marchenko-Pastur law does, at "
            f"λ = {_number(mp.lambda_plus)}; {above} clearly above."
        )
    traps = layer.metrics.get("n_traps")
    if randomized is not None and traps is not None and math.isfinite(traps):
        yield (
            f"With its entries permuted, {counted(int(traps), 'direction')} of single large "
            "entries (traps) would stand out."
        )


def _size(layer: LayerReport) -> Iterator[str]:
    log_norm = float(layer.metrics.get("log_spectral_norm", math.nan))
    rank = float(layer.metrics.get("stable_rank", math.nan))
    if math.isfinite(log_norm) and math.isfinite(rank):
        yield (
            f"The spectral norm is {_number(10**log_norm)}, the stable rank {rank:.1f} "
            f"of at most {layer.esd.M}."
        )
