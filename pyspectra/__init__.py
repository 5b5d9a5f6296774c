"""pyspectra: a spectral analysis engine for neural networks.

``import pyspectra as ps`` is light: torch, pandas and matplotlib load on first use, and so do the
packages ``ps.optim``, ``ps.finetune`` and ``ps.training``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pyspectra.analysis.analyze import analyze
from pyspectra.analysis.bit_choice import LayerSensitivity
from pyspectra.analysis.compare import compare
from pyspectra.analysis.describe import describe
from pyspectra.analysis.distances import Distances, LayerDistance, distances
from pyspectra.analysis.intruders import intruder_dimensions
from pyspectra.analysis.quantization import quantization_sensitivity
from pyspectra.analysis.quantization_result import QuantizationSensitivity
from pyspectra.config import get_num_threads, set_num_threads, show_config
from pyspectra.edit.allocation import allocate_sparsity
from pyspectra.edit.compress import compress
from pyspectra.edit.edited import EditedCheckpoint
from pyspectra.edit.input_grams import input_grams
from pyspectra.edit.intruders import reduce_intruders
from pyspectra.edit.merge import MergedModel, MergedTensor, merge
from pyspectra.edit.prune import prune
from pyspectra.edit.quantize import quantize
from pyspectra.edit.ranks import allocate_ranks
from pyspectra.edit.smoothing import svd_smoothing
from pyspectra.edit.traps import remove_traps
from pyspectra.errors import (
    ConvergenceError,
    CudaError,
    DeviceError,
    FormatError,
    MissingDependencyError,
    PyspectraError,
)
from pyspectra.ops import build_info as _build_info
from pyspectra.report.compared_layers import LayerComparison
from pyspectra.report.comparison import Comparison
from pyspectra.report.description import Description
from pyspectra.report.layer import LayerReport
from pyspectra.report.report import Report
from pyspectra.report.trajectory import Trajectory
from pyspectra.report.trajectory_data import LayerTrajectory
from pyspectra.report.verdicts import Verdict
from pyspectra.spectra.comparison import DistributionComparison, compare_distributions
from pyspectra.spectra.esd import eigvals, esd
from pyspectra.spectra.farms import farms
from pyspectra.spectra.intruders import Intruders
from pyspectra.spectra.marchenko_pastur import marchenko_pastur
from pyspectra.spectra.powerlaw import fit_powerlaw, fit_powerlaw_batch
from pyspectra.spectra.randomize import find_traps
from pyspectra.spectra.topk import TopK, svd_topk
from pyspectra.types import ESD, MPFit, PowerLawFit, Status
from pyspectra.weights import WeightSource, open_weights

if TYPE_CHECKING:
    from pyspectra import finetune, optim, training
else:

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return importlib.import_module(f"pyspectra.{name}")
        raise AttributeError(f"module 'pyspectra' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


# They need torch, which takes seconds to load.
_LAZY = ("finetune", "optim", "training")

__version__: str = _build_info()["version"]

__all__ = [
    "ESD",
    "Comparison",
    "ConvergenceError",
    "CudaError",
    "Description",
    "DeviceError",
    "Distances",
    "DistributionComparison",
    "EditedCheckpoint",
    "FormatError",
    "Intruders",
    "LayerComparison",
    "LayerDistance",
    "LayerReport",
    "LayerSensitivity",
    "LayerTrajectory",
    "MPFit",
    "MergedModel",
    "MergedTensor",
    "MissingDependencyError",
    "PowerLawFit",
    "PyspectraError",
    "QuantizationSensitivity",
    "Report",
    "Status",
    "TopK",
    "Trajectory",
    "Verdict",
    "WeightSource",
    "allocate_ranks",
    "allocate_sparsity",
    "analyze",
    "compare",
    "compare_distributions",
    "compress",
    "describe",
    "distances",
    "eigvals",
    "esd",
    "farms",
    "find_traps",
    "finetune",
    "fit_powerlaw",
    "fit_powerlaw_batch",
    "get_num_threads",
    "input_grams",
    "intruder_dimensions",
    "marchenko_pastur",
    "merge",
    "open_weights",
    "optim",
    "prune",
    "quantization_sensitivity",
    "quantize",
    "reduce_intruders",
    "remove_traps",
    "set_num_threads",
    "show_config",
    "svd_smoothing",
    "svd_topk",
    "training",
]
