"""Which weights and layers training should move: scores, and masks and rules that go by them.

Importing this module imports torch; ``import pyspectra`` alone does not.
"""

from pyspectra._arrays import require_torch

require_torch("pyspectra.finetune")

from pyspectra.finetune.blocks import Coverage, coverage  # noqa: E402
from pyspectra.finetune.children import (  # noqa: E402
    FISH,
    GMT,
    LIFT,
    LT_SFT,
    SIFT,
    ChildNetwork,
    MaskScheduler,
)
from pyspectra.finetune.distillation import (  # noqa: E402
    Distillation,
    DistillationMixin,
    FeatureMatching,
    FeatureRecorder,
    distillation_loss,
    feature_loss,
)
from pyspectra.finetune.ensembles import (  # noqa: E402
    Disagreement,
    EnsemblePrediction,
    disagreement,
    ensemble_predict,
)
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
from pyspectra.finetune.lora_start import LoraStart, init_lora, olora, pissa  # noqa: E402
from pyspectra.finetune.lottery import LotteryTicket, PruningRound  # noqa: E402
from pyspectra.finetune.low_rank import LowRankLinear, factorize, load_low_rank  # noqa: E402
from pyspectra.finetune.masks import child_mask  # noqa: E402
from pyspectra.finetune.select import select  # noqa: E402
from pyspectra.finetune.weight_scores import (  # noqa: E402
    change_scores,
    gradient_scores,
    low_rank_scores,
    magnitude_scores,
)

__all__ = [
    "FISH",
    "GMT",
    "HFT",
    "LIFT",
    "LISA",
    "LT_SFT",
    "SIFT",
    "AlphaDecay",
    "BitFit",
    "ChildNetwork",
    "Coverage",
    "Decision",
    "Disagreement",
    "Distillation",
    "DistillationMixin",
    "EnsemblePrediction",
    "FeatureMatching",
    "FeatureRecorder",
    "FreezeWellTrained",
    "LayerRule",
    "LayerScore",
    "LayerwiseScheduler",
    "LoraStart",
    "LotteryTicket",
    "LowRankLinear",
    "MaskScheduler",
    "PruningRound",
    "Spectrum",
    "TempBalance",
    "change_scores",
    "child_mask",
    "coverage",
    "disagreement",
    "distillation_loss",
    "ensemble_predict",
    "factorize",
    "feature_loss",
    "fisher_diag",
    "gradient_scores",
    "init_lora",
    "layer_scores",
    "load_low_rank",
    "low_rank_scores",
    "magnitude_scores",
    "olora",
    "param_groups",
    "pissa",
    "select",
    "snr",
]
