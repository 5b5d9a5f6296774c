"""Optimizers for torch whose step is one fused pass: rule, gradient mask and moving average.

Importing this module imports torch; ``import pyspectra`` alone does not. The public names are those
that each module lists.
"""

# ruff: noqa: E402, F403

from pyspectra._arrays import require_torch

require_torch("pyspectra.optim")

from pyspectra.optim import (
    adam,
    adamw,
    child_adamw,
    ema,
    half_life,
    posthoc_ema,
    schedule_wrapper,
    schedules,
    sgd,
)
from pyspectra.optim.adam import *
from pyspectra.optim.adamw import *
from pyspectra.optim.child_adamw import *
from pyspectra.optim.ema import *
from pyspectra.optim.half_life import *
from pyspectra.optim.posthoc_ema import *
from pyspectra.optim.schedule_wrapper import *
from pyspectra.optim.schedules import *
from pyspectra.optim.sgd import *

__all__: list[str] = []
__all__ += adam.__all__
__all__ += adamw.__all__
__all__ += child_adamw.__all__
__all__ += ema.__all__
__all__ += half_life.__all__
__all__ += posthoc_ema.__all__
__all__ += schedule_wrapper.__all__
__all__ += schedules.__all__
__all__ += sgd.__all__
