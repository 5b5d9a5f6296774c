"""Which weights and layers training should move: scores, and masks and rules that go by them.

Importing this module imports torch; ``import pyspectra`` alone does not.
"""

from pyspectra._arrays import require_torch

require_torch("pyspectra.finetune")

from pyspectra.finetune.blocks import Coverage, coverage  # noqa: E402
from pyspectra.finetune.fisher import fisher_diag  # noqa: E402
from pyspectra.finetune.layerwise import (  # noqa: E402
    HFT,
    LISA,
    AlphaDecay,
    BitFit,
    Decision,
    FreezeWellTrained,
    LayerRule,
    LayerScore,
    LayerwiseScheduler,
    Spectrum,
    TempBalance,
    layer_scores,
    param_groups,
    snr,
)
from pyspectra.finetune.masks import child_mask  # noqa: E402
from pyspectra.finetune.select import select  # noqa: E402

__all__ = [
    "HFT",
    "LISA",
    "AlphaDecay",
    "BitFit",
    "Coverage",
    "Decision",
    "FreezeWellTrained",
    "LayerRule",
    "LayerScore",
    "LayerwiseScheduler",
    "Spectrum",
    "TempBalance",
    "child_mask",
    "coverage",
    "fisher_diag",
    "layer_scores",
    "param_groups",
    "select",
    "snr",
]
