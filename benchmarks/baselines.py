"""Competitors: the same work by numpy alone, and by the peers that are installed."""

import contextlib
import io
import logging

import numpy as np


def numpy_ww_fit(evals):
    """Estimator `ww` as a plain numpy scan: (index, alpha, D)."""
    x = evals[evals > 1e-5]
    n = len(x)
    logs = np.log(x)
    alphas, distances = np.zeros(n - 1), np.ones(n - 1)
    for i in range(n - 1):
        m = n - i
        alphas[i] = 1 + m / (np.sum(logs[i:]) - m * logs[i])
        if alphas[i] > 1:
            model = 1 - (x[i:] / x[i]) ** (1 - alphas[i])
            distances[i] = np.max(np.abs(model - np.arange(m) / m))
    best = int(np.argmin(distances))
    return best, alphas[best], distances[best]


def numpy_pipeline(weights):
    """The whole diagnosis of 2-D layers by numpy: SVD in float64, fit, the main norms."""
    rows = {}
    for name, W in weights.items():
        if min(W.shape) < 8:
            continue
        sigma = np.linalg.svd(W.astype(np.float64), compute_uv=False)[::-1]
        evals = sigma**2
        index, alpha, D = numpy_ww_fit(evals)
        total, largest = float(np.sum(evals)), float(evals[-1])
        p = evals / total + 1e-10
        rank = np.count_nonzero(sigma > sigma[-1] * max(W.shape) * np.finfo(float).eps)
        rows[name.removesuffix(".weight")] = {
            "alpha": alpha,
            "D": D,
            "xmin": evals[evals > 1e-5][index],
            "log_norm": np.log10(total),
            "alpha_weighted": alpha * np.log10(largest),
            "log_alpha_norm": np.log10(np.sum(evals**alpha)),
            "stable_rank": total / largest,
            "entropy": -np.sum(p * np.log(p)) / np.log(rank + 1e-10),
        }
    return rows


def weightwatcher_analyze(weights, **options):
    """WeightWatcher's DataFrame; it logs and prints, which is not timed against it."""
    logging.disable(logging.CRITICAL)
    import weightwatcher

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return weightwatcher.WeightWatcher(model=weights).analyze(**options)


def powerlaw_fit(evals):
    """Fit by the package powerlaw 2.0: (xmin, alpha, D)."""
    import powerlaw

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        fit = powerlaw.Fit(evals, verbose=False, xmin_distribution="power_law")
        return fit.xmin, fit.alpha, fit.D
