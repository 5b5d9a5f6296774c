"""Rules that treat layers differently by their spectra: learning rates, decay, what is trained.

A table of scores, one number for each weight matrix (`layer_scores`), and rules that read it:
`param_groups` decides once, for any optimizer; ``rule.attach(optimizer, model)`` decides again
while the model trains.
"""

from pyspectra.finetune.layerwise.by_alpha import AlphaDecay, TempBalance
from pyspectra.finetune.layerwise.fine_tuning import HFT, BitFit
from pyspectra.finetune.layerwise.freezing import LISA, FreezeWellTrained, Spectrum
from pyspectra.finetune.layerwise.groups import param_groups
from pyspectra.finetune.layerwise.rule import Decision, LayerRule, LayerwiseScheduler
from pyspectra.finetune.layerwise.scores import LayerScore, layer_scores, snr

__all__ = [
    "HFT",
    "LISA",
    "AlphaDecay",
    "BitFit",
    "Decision",
    "FreezeWellTrained",
    "LayerRule",
    "LayerScore",
    "LayerwiseScheduler",
    "Spectrum",
    "TempBalance",
    "layer_scores",
    "param_groups",
    "snr",
]
