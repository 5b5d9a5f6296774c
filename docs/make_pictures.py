"""Make the picture of the README from a real model: ``python docs/make_pictures.py FOLDER``.

FOLDER holds all-MiniLM-L6-v2, a sentence transformer, which ``make demo`` installs.
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure

import pyspectra as ps

PICTURES = Path(__file__).parent / "pictures"


def spectrum_and_depth(report: ps.Report) -> Figure:
    """Draw the spectrum of one layer beside the exponents of all layers."""
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    report.plot("esd", layer="encoder.layer.0.output.dense", ax=left)
    left.set_ylim(top=300.0)  # the legend stands above the bars
    report.plot("depth", ax=right)
    right.set_title("all-MiniLM-L6-v2, all layers\nin the order of the model", fontsize="medium")
    right.set_xticks([])  # 39 names would need more room than the points
    right.set_xlabel("layers")
    return figure


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    report = ps.analyze(sys.argv[1])
    spectrum_and_depth(report).savefig(PICTURES / "minilm.png", dpi=100)
