"""Norms of a layer. Logarithms are base 10.

References
----------
Martin, Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021).
"""

from __future__ import annotations

import numpy as np

from pyspectra.metrics.registry import Spectrum, metric


@metric("norm")
def norm(s: Spectrum) -> float:
    """Squared Frobenius norm, the sum of the eigenvalues."""
    return s.norm


@metric("log_norm")
def log_norm(s: Spectrum) -> float:
    """log10 of the squared Frobenius norm."""
    return float(np.log10(s.norm))


@metric("lambda_max")
def lambda_max(s: Spectrum) -> float:
    """Largest eigenvalue."""
    return s.lambda_max


@metric("spectral_norm")
def spectral_norm(s: Spectrum) -> float:
    """Largest singular value, the root of lambda_max (WeightWatcher's column is lambda_max)."""
    return float(np.sqrt(s.lambda_max))


@metric("log_spectral_norm")
def log_spectral_norm(s: Spectrum) -> float:
    """log10 of the largest singular value (WeightWatcher's column is log10 of lambda_max)."""
    return float(np.log10(np.sqrt(s.lambda_max)))


@metric("sv_max")
def sv_max(s: Spectrum) -> float:
    """Largest singular value over all matrices of the layer."""
    return float(np.sqrt(s.lambda_max))


@metric("sv_min", small_end=True)
def sv_min(s: Spectrum) -> float:
    """Largest, over the matrices of the layer, of their smallest singular values."""
    return float(np.sqrt(max(e[0] for e in s.esd.matrix_evals)))
