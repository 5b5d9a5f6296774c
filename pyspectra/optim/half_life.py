"""Decays of averages from their half-lives."""

from __future__ import annotations

from pyspectra._support.arguments import check_number

__all__ = ["decay_from_half_life"]


def decay_from_half_life(half_life: float, *, every: float = 1) -> float:
    """Decay of the average whose weights of the past halve every `half_life`.

    Parameters
    ----------
    half_life : float
        Half-life in optimizer steps (or samples, or tokens: the unit of `every`).
    every : float
        Units between two updates of the average: 1, or ``ema_every``, or the batch size where the
        half-life counts samples.

    Returns
    -------
    float
        ``2^(-every / half_life)``, for ``decay`` of `EMA` and ``ema_decay`` of the optimizers.

    Raises
    ------
    ValueError, TypeError
        If an argument is not a positive number.

    References
    ----------
    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", CVPR 2024,
    arXiv 2312.02696, section 3.

    Examples
    --------
    >>> from pyspectra.optim import decay_from_half_life
    >>> decay_from_half_life(1)
    0.5
    >>> round(decay_from_half_life(1000), 5)
    0.99931
    """
    half_life = check_number("decay_from_half_life", "half_life", half_life, above=0.0)
    every = check_number("decay_from_half_life", "every", every, above=0.0)
    return float(2.0 ** (-every / half_life))
