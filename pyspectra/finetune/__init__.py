"""Which weights fine-tuning should move: scores of the weights, and masks chosen by them.

Importing this module imports torch; ``import pyspectra`` alone does not.
"""

from pyspectra._arrays import require_torch

require_torch("pyspectra.finetune")

from pyspectra.finetune.blocks import Coverage, coverage  # noqa: E402
from pyspectra.finetune.fisher import fisher_diag  # noqa: E402
from pyspectra.finetune.masks import child_mask  # noqa: E402
from pyspectra.finetune.select import select  # noqa: E402

__all__ = ["Coverage", "child_mask", "coverage", "fisher_diag", "select"]
