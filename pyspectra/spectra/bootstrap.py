"""Confidence interval and goodness of fit from refits of replicates.

How replicates are made: ``csrc/powerlaw/bootstrap.hpp``. What is made of them was chosen by
measurement (``benchmarks/calibration.py``) on data with known tails.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pyspectra import ops
from pyspectra._support.arguments import as_integer
from pyspectra.spectra.estimators import Estimator
from pyspectra.types import FloatArray, PowerLawFit, Status

LEVEL = 0.95
MAX_SEED = 2**64
MAX_REPLICATES = 2**24


def check_bootstrap(bootstrap: Any, seed: Any, function: str) -> tuple[int, int | None]:
    """Return both; ValueError or TypeError unless `bootstrap` is a count, `seed` None or 64-bit."""
    count = as_integer(bootstrap)
    if count is None or not 0 <= count <= MAX_REPLICATES:
        raise ValueError(
            f"{function}: 'bootstrap' must be an integer from 0 to {MAX_REPLICATES}, "
            f"got {bootstrap!r}."
        )
    return count, None if seed is None else check_seed(seed, function)


def check_seed(seed: Any, function: str) -> int:
    """Return `seed`; TypeError or ValueError unless it is an unsigned 64-bit integer."""
    number = as_integer(seed)
    if number is None:
        raise TypeError(f"{function}: 'seed' must be an integer, got {seed!r}.")
    if not 0 <= number < MAX_SEED:
        raise ValueError(
            f"{function}: 'seed' must be an integer from 0 to 2**64 - 1, got {seed!r}."
        )
    return number


def check_bootstrap_goes_with(estimator: Estimator, bootstrap: int, function: str) -> None:
    """Raise ValueError if replicates of `estimator` would mean nothing.

    ``"tpl"``: its replicates would need the other law; ``"farms"``: the eigenvalues of windows that
    overlap are far from independent.
    """
    if bootstrap and estimator.name in ("tpl", "farms"):
        raise ValueError(
            f"{function}: 'bootstrap' does not go with estimator {estimator.name!r}, "
            f"got {bootstrap}."
        )


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
    own = fit.D * math.sqrt(fit.n - fit.index)
    farther = int(np.count_nonzero(D * np.sqrt(n_tail) >= own))
    return (1 + farther) / (1 + len(D))


# Spectra, their fits, replicates of each and the keys of their random numbers: tables of refits, as
# `ops.bootstrap_powerlaw` and `_cuda.fits.bootstrap_powerlaw` make them.
Refits = Callable[[list[Any], list[PowerLawFit], int, list[int]], list[FloatArray]]


def on_host(options: Any) -> Refits:
    """Refits by the CPU, with the `options` of the fits as `ops.fit_options` returns them."""
    return lambda spectra, *rest: ops.bootstrap_powerlaw(spectra, options, *rest)


def with_uncertainty(
    spectra: Sequence[Any],
    fits: Sequence[PowerLawFit],
    refits: Refits,
    bootstrap: int,
    seed: int | None,
    names: Sequence[str],
) -> list[PowerLawFit]:
    """Return `fits` with ``ci`` and ``p_value`` from `bootstrap` replicates each.

    Randomness comes from `seed` (None: fresh) and the spectrum's entry in `names`, not from its
    place among the others.
    """
    if seed is None:
        seed = secrets.randbits(64)
    out = list(fits)
    usable = [i for i, fit in enumerate(fits) if fit.status is Status.OK]
    tables = refits(
        [spectra[i] for i in usable],
        [fits[i] for i in usable],
        bootstrap,
        [ops.random_key(seed, names[i]) for i in usable],
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
