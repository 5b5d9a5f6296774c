"""Optimizers for torch whose step is one fused pass: rule, gradient mask and moving average.

Importing this module imports torch; ``import pyspectra`` alone does not.
"""

from pyspectra._arrays import require_torch

require_torch("pyspectra.optim")

from pyspectra.optim.adam_sgd import SGD, Adam  # noqa: E402
from pyspectra.optim.adamw import AdamW  # noqa: E402
from pyspectra.optim.child_adamw import ChildAdamW  # noqa: E402
from pyspectra.optim.ema import EMA, decay_from_half_life  # noqa: E402
from pyspectra.optim.posthoc_ema import PowerFunctionEMA, reconstruct_ema  # noqa: E402
from pyspectra.optim.schedules import (  # noqa: E402
    CosineWarmupLR,
    InvSqrtLR,
    NoamLR,
    RNMTPlusLR,
    RsqrtLR,
    ScheduleWrapper,
    get_cosine_schedule_with_warmup,
    get_inv_sqrt_schedule,
    get_noam_schedule,
    get_rnmtplus_schedule,
    get_rsqrt_schedule,
)

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "AdamW",
    "ChildAdamW",
    "CosineWarmupLR",
    "InvSqrtLR",
    "NoamLR",
    "PowerFunctionEMA",
    "RNMTPlusLR",
    "RsqrtLR",
    "ScheduleWrapper",
    "decay_from_half_life",
    "get_cosine_schedule_with_warmup",
    "get_inv_sqrt_schedule",
    "get_noam_schedule",
    "get_rnmtplus_schedule",
    "get_rsqrt_schedule",
    "reconstruct_ema",
]
