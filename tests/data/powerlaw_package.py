"""Writes tests/data/powerlaw_package.json: what the package powerlaw 2.0 says of some samples.

    python tests/data/powerlaw_package.py

Only samples whose maximum lies within the ranges that powerlaw allows its parameters.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import powerlaw
from scipy.stats import norm

NAMES = {
    "lognormal": "lognormal",
    "exponential": "exponential",
    "stretched": "stretched_exponential",
    "tpl": "truncated_power_law",
}


def samples() -> dict[str, np.ndarray]:
    """Uneven quantiles of some laws: no generator whose stream could change."""
    i = np.arange(240)
    p = (i + 0.5 + 0.45 * np.sin(7.0 * i)) / 240
    pareto = (1.0 - p) ** (-1.0 / 1.5)
    return {
        "lognormal": np.exp(0.5 + 0.8 * norm.ppf(p)),
        "exponential": 1.0 - 2.0 * np.log1p(-p),
        "weibull": 0.2 + (-np.log1p(-p)) ** (1.0 / 0.6),
        "cut off pareto": 1.0 / (1.0 / pareto + 1.0 / 20.0),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    out = {}
    for name, sample in samples().items():
        x = np.array([float(f"{v:.6g}") for v in np.sort(sample)])
        xmin = float(x[30])
        fit = powerlaw.Fit(x, xmin=xmin, verbose=False)
        rows = {}
        for ours, theirs in NAMES.items():
            R, p = fit.distribution_compare("power_law", theirs, normalized_ratio=False)
            normalized, _ = fit.distribution_compare("power_law", theirs, normalized_ratio=True)
            rows[ours] = {"R": float(R), "R_normalized": float(normalized), "p": float(p)}
        law = fit.truncated_power_law
        tail = x[x >= xmin]
        rows["tpl"] |= {
            "alpha": float(law.alpha),
            "Lambda": float(law.Lambda),
            "loglikelihood": float(np.sum(law.loglikelihoods(tail))),
            "ks": float(np.max(np.abs(law.cdf(tail) - np.arange(len(tail)) / len(tail)))),
        }
        assert all(math.isfinite(v) for row in rows.values() for v in row.values())
        out[name] = {"x": x.tolist(), "xmin": xmin, "comparisons": rows}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(out), encoding="utf-8")


if __name__ == "__main__":
    main()
