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


def torch_child_tuning(params, p, decay, hyper):
    """Child-Tuning F with an average, from parts of torch: (step, optimizer, averages)."""
    import torch

    grads = [param.grad for param in params]
    opt = torch.optim.AdamW(params, fused=True, **hyper)
    averages = [param.detach().clone() for param in params]
    buffers = [torch.empty_like(param) for param in params]
    count = 0

    @torch.no_grad()
    def step():
        nonlocal count
        for param, grad, buffer in zip(params, grads, buffers, strict=True):
            param.grad = buffer.bernoulli_(p).mul_(grad).div_(p)
        opt.step()
        weight = 1 - min(decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averages, [param.detach() for param in params], weight)
        count += 1

    return step, opt, averages


def powerlaw_fit(evals):
    """Fit by the package powerlaw 2.0: (xmin, alpha, D)."""
    import powerlaw

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        fit = powerlaw.Fit(evals, verbose=False, xmin_distribution="power_law")
        return fit.xmin, fit.alpha, fit.D


def numpy_replicate(evals, fit, rng):
    """One semi-parametric replicate of estimator `ww`, refitted by the numpy scan: (alpha, D)."""
    x = evals[evals > 1e-5]
    k = rng.binomial(len(x), fit.n_tail / len(x))
    tail = fit.xmin * (1.0 - rng.random(k)) ** (-1.0 / (fit.alpha - 1.0))
    body = rng.choice(x[: fit.index], len(x) - k)
    return numpy_ww_fit(np.sort(np.concatenate([body, tail])))[1:]


def numpy_farms(W, window, starts):
    """Pooled eigenvalues of square windows of W at `starts` x `starts`."""
    W = W.astype(np.float64)
    pieces = (W[r : r + window, c : c + window] for r in starts for c in starts)
    return np.sort(np.concatenate([np.linalg.eigvalsh(X.T @ X) for X in pieces]))


def powerlaw_compare(evals, xmin):
    """Likelihood-ratio tests of the package powerlaw: {alternative: (R, p)}."""
    import powerlaw

    names = ("lognormal", "exponential", "stretched_exponential", "truncated_power_law")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        fit = powerlaw.Fit(evals, xmin=xmin, verbose=False)
        return {
            name: fit.distribution_compare("power_law", name, normalized_ratio=False)
            for name in names
        }
