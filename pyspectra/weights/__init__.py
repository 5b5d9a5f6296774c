"""Weights: from a model, a state dict or a file to layers that load on demand."""

from pyspectra.weights.layer import Layer
from pyspectra.weights.skip import Skip, SkippedLayer, reasons_for_none
from pyspectra.weights.source import WeightSource, find_model, open_weights

__all__ = [
    "Layer",
    "Skip",
    "SkippedLayer",
    "WeightSource",
    "find_model",
    "open_weights",
    "reasons_for_none",
]
