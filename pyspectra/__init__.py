"""pyspectra: a spectral analysis engine for neural networks.

``import pyspectra as ps`` is light: torch, pandas, matplotlib and SciPy load on first use, and so
do the rooms of this package, each name from its home.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pyspectra.ops import build_info as _build_info

if TYPE_CHECKING:
    from pyspectra import finetune, optim, training
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

# The names that are at home in each module, as the imports above tell type checkers. They are
# loaded when they are asked for: a script that only analyses needs half of the package.
_NAMES = {
    "pyspectra.analysis.analyze": "analyze",
    "pyspectra.analysis.bit_choice": "LayerSensitivity",
    "pyspectra.analysis.compare": "compare",
    "pyspectra.analysis.describe": "describe",
    "pyspectra.analysis.distances": "Distances LayerDistance distances",
    "pyspectra.analysis.intruders": "intruder_dimensions",
    "pyspectra.analysis.quantization": "quantization_sensitivity",
    "pyspectra.analysis.quantization_result": "QuantizationSensitivity",
    "pyspectra.config": "get_num_threads set_num_threads show_config",
    "pyspectra.edit.allocation": "allocate_sparsity",
    "pyspectra.edit.compress": "compress",
    "pyspectra.edit.edited": "EditedCheckpoint",
    "pyspectra.edit.input_grams": "input_grams",
    "pyspectra.edit.intruders": "reduce_intruders",
    "pyspectra.edit.merge": "MergedModel MergedTensor merge",
    "pyspectra.edit.prune": "prune",
    "pyspectra.edit.quantize": "quantize",
    "pyspectra.edit.ranks": "allocate_ranks",
    "pyspectra.edit.smoothing": "svd_smoothing",
    "pyspectra.edit.traps": "remove_traps",
    "pyspectra.errors": "ConvergenceError CudaError DeviceError FormatError "
    "MissingDependencyError PyspectraError",
    "pyspectra.report.compared_layers": "LayerComparison",
    "pyspectra.report.comparison": "Comparison",
    "pyspectra.report.description": "Description",
    "pyspectra.report.layer": "LayerReport",
    "pyspectra.report.report": "Report",
    "pyspectra.report.trajectory": "Trajectory",
    "pyspectra.report.trajectory_data": "LayerTrajectory",
    "pyspectra.report.verdicts": "Verdict",
    "pyspectra.spectra.comparison": "DistributionComparison compare_distributions",
    "pyspectra.spectra.esd": "eigvals esd",
    "pyspectra.spectra.farms": "farms",
    "pyspectra.spectra.intruders": "Intruders",
    "pyspectra.spectra.marchenko_pastur": "marchenko_pastur",
    "pyspectra.spectra.powerlaw": "fit_powerlaw fit_powerlaw_batch",
    "pyspectra.spectra.randomize": "find_traps",
    "pyspectra.spectra.topk": "TopK svd_topk",
    "pyspectra.types": "ESD MPFit PowerLawFit Status",
    "pyspectra.weights": "WeightSource open_weights",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_MODULES = (
    "analysis", "config", "edit", "errors", "finetune", "metrics", "optim", "report", "spectra",
    "training", "types", "weights",
)  # fmt: skip


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
            return value
        if name in _MODULES:
            return importlib.import_module(f"pyspectra.{name}")
        raise AttributeError(f"module 'pyspectra' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})


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
