"""Confidence interval and goodness of fit from refits of replicates.

How replicates are made: ``csrc/powerlaw/bootstrap.hpp``. What is made of them was chosen by
measurement (``benchmarks/calibration.py``) on data with known tails.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._support.arguments import check_count, check_seed
from pyspectra._support.random import Purpose, random_key
from pyspectra.errors import ArgumentValueError
from pyspectra.spectra.estimators import Estimator
from pyspectra.types import FloatArray, PowerLawFit, Status

LEVEL = 0.95
MAX_REPLICATES = 2**24

# Points of all replicates of one call of the kernel: a fraction of a second of work.
POINTS_A_CALL = 1 << 22
# Replicates of one call, at least: a few for each thread.
REPLICATES_A_THREAD = 64


# Without an interval, replicates are made in rounds until it is known on which side of 0.1 the
# p-value lies (Besag, Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 1991). Hits are
# replicates that lie at least as far from their law as the data from theirs. A round is the last
# one if a p-value of exactly 0.1 gives so many hits, or so few, at most once in twenty times. A
# true p-value of 0.05 comes out above 0.1 in about 11 % of all cases, one of 0.2 below in 1 %; one
# in fifty did no better with a quarter more replicates.
ROUNDS = (8, 8, 8, 8, 16, 16)
DECIDES = 0.1
KNOWN = 0.05


def check_bootstrap(bootstrap: Any, seed: Any, function: str) -> tuple[int, int | None]:
    """Return both, `bootstrap` as a count and `seed` as None or an integer in [0, 2^64).

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If either is anything else; the error names `function`.
    """
    count = check_count(function, "bootstrap", bootstrap, least=0, most=MAX_REPLICATES)
    return count, None if seed is None else check_seed(function, "seed", seed)


def check_bootstrap_goes_with(estimator: Estimator, bootstrap: int, function: str) -> None:
    """Raise ArgumentValueError if replicates of `estimator` would mean nothing.

    ``"tpl"``: its replicates would need the other law; ``"farms"``: the eigenvalues of windows that
    overlap are far from independent.
    """
    if bootstrap and estimator.name in ("tpl", "farms"):
        requirement = f"be 0 with estimator {estimator.name!r}"
        raise ArgumentValueError(function, "bootstrap", requirement, str(bootstrap))


def confidence_interval(fit: PowerLawFit, alpha: FloatArray) -> tuple[float, float]:
    """95 % interval of alpha from the alphas of replicates.

    The basic bootstrap interval of ln(alpha - 1): with q_low, q_high the 2.5 % and 97.5 % quantiles
    of ``(alpha* - 1) / (alpha - 1)``, it is ``1 + (alpha - 1) / q_high`` to ``1 + (alpha - 1) /
    q_low``. For points from a power law that ratio has the same distribution whatever alpha is,
    which the difference alpha* - alpha (or the quantiles of alpha* themselves) has not.
    """
    tail = 0.5 * (1.0 - LEVEL)
    low, high = np.quantile((alpha - 1.0) / (fit.alpha - 1.0), [tail, 1.0 - tail])
    return 1.0 + (fit.alpha - 1.0) / float(high), 1.0 + (fit.alpha - 1.0) / float(low)


def goodness_of_fit(fit: PowerLawFit, D: FloatArray, n_tail: FloatArray) -> float:
    """Share of replicates that lie at least as far from their law as the data from theirs.

    Clauset, Shalizi and Newman compare D; replicates choose tails of other lengths, and D falls
    with the length, so that their p-value is not uniform where the power law is true. Here
    ``sqrt(n_tail) D`` is compared, and it is. The data count as one more replicate.
    """
    farther = int(np.count_nonzero(D * np.sqrt(n_tail) >= _distance(fit)))
    return (1 + farther) / (1 + len(D))


def _distance(fit: PowerLawFit) -> float:
    """How far the data lie from their law: `goodness_of_fit` says in which units."""
    return fit.D * math.sqrt(fit.n - fit.index)


# Called with how many replicates have just been made.
Advance = Callable[[int], object]

# Spectra, their fits, replicates of each, the keys of their random numbers, and what to call while
# the work goes on: tables of refits, as `on_host` and `_cuda.fits.bootstrap_powerlaw` make them.
Refits = Callable[[list[Any], list[PowerLawFit], int, list[int], Advance], list[FloatArray]]


def on_host(options: Any) -> Refits:
    """Refits by the CPU, with the `options` of the fits as `ops.fit_options` returns them."""

    def refits(
        spectra: list[Any], fits: list[PowerLawFit], count: int, keys: list[int], advance: Advance
    ) -> list[FloatArray]:
        tables = [np.empty((count, 3)) for _ in fits]
        step = _replicates_a_call([fit.n for fit in fits])
        # The interpreter handles signals between the calls: Ctrl-C need not wait for the last one.
        for first in range(0, count, step):
            n = min(step, count - first)
            part = ops.bootstrap_powerlaw(spectra, options, fits, n, keys, first=first)
            for table, rows in zip(tables, part, strict=True):
                table[first : first + n] = rows
            advance(n)
        return tables

    return refits


def _replicates_a_call(lengths: Sequence[int]) -> int:
    """How many replicates of each spectrum are made at a time: enough to keep every thread busy."""
    busy = -(-REPLICATES_A_THREAD * ops.get_num_threads() // max(1, len(lengths)))
    return max(busy, POINTS_A_CALL // max(1, sum(lengths)))


def with_uncertainty(
    spectra: Sequence[Any],
    fits: Sequence[PowerLawFit],
    refits: Refits,
    bootstrap: int,
    seed: int | None,
    names: Sequence[str],
    advance: Advance = lambda _made: None,
) -> list[PowerLawFit]:
    """Return `fits` with ``ci`` and ``p_value`` from `bootstrap` replicates each.

    Randomness comes from `seed` (None: fresh) and the spectrum's entry in `names`, not from its
    place among the others. `advance` hears how many replicates of each have been made.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(8), "little")
    out = list(fits)
    usable = [i for i, fit in enumerate(fits) if fit.status is Status.OK]
    tables = refits(
        [spectra[i] for i in usable],
        [fits[i] for i in usable],
        bootstrap,
        [random_key(Purpose.BOOTSTRAP, seed, names[i]) for i in usable],
        advance,
    )
    for i, table in zip(usable, tables, strict=True):
        good = table[np.isfinite(table[:, 0])]
        if 2 * len(good) < bootstrap:
            continue  # most replicates have no tail: nothing can be said
        out[i] = replace(
            fits[i],
            ci=confidence_interval(fits[i], good[:, 0]),
            p_value=goodness_of_fit(fits[i], good[:, 1], good[:, 2]),
        )
    return out


def with_goodness(
    spectra: Sequence[FloatArray],
    fits: Sequence[PowerLawFit],
    options: Any,
    seed: int,
    names: Sequence[str],
) -> list[PowerLawFit]:
    """Return `fits` with a ``p_value`` from as few replicates as tell it from 0.1, 64 at most.

    Each spectrum stops by itself, so that its p-value does not depend on the others. The
    replicates are the first of those of `with_uncertainty`.
    """
    waiting = [i for i, fit in enumerate(fits) if fit.status is Status.OK]
    keys = {i: random_key(Purpose.BOOTSTRAP, seed, names[i]) for i in waiting}
    own = {i: _distance(fits[i]) for i in waiting}
    hits, made = dict.fromkeys(waiting, 0), dict.fromkeys(waiting, 0)
    p_values: dict[int, float] = {}
    first = 0
    for count in ROUNDS:
        if not waiting:
            break
        tables = ops.bootstrap_powerlaw(
            [spectra[i][: fits[i].n] for i in waiting],
            options,
            [fits[i] for i in waiting],
            count,
            [keys[i] for i in waiting],
            first=first,
        )
        first += count
        alpha, D, n_tail = np.moveaxis(np.array(tables), -1, 0)  # a row for each spectrum
        good = np.isfinite(alpha)
        farther = good & (D * np.sqrt(n_tail) >= np.array([[own[i]] for i in waiting]))
        new_hits, new_made = farther.sum(1).tolist(), good.sum(1).tolist()
        for i, hit, fitted in zip(waiting, new_hits, new_made, strict=True):
            made[i] += fitted
            hits[i] += hit
            if 2 * made[i] >= first:  # else most replicates have no tail
                p_values[i] = (1 + hits[i]) / (1 + made[i])
        waiting = [i for i in waiting if not _is_known(hits[i], made[i])]
    return [
        replace(fit, p_value=p_values[i]) if i in p_values else fit for i, fit in enumerate(fits)
    ]


@functools.cache
def _is_known(hits: int, made: int) -> bool:
    """Tell whether the hits among the replicates tell the p-value from `DECIDES`."""
    law = [math.comb(made, k) * DECIDES**k * (1.0 - DECIDES) ** (made - k) for k in range(made + 1)]
    return min(sum(law[hits:]), sum(law[: hits + 1])) <= KNOWN
