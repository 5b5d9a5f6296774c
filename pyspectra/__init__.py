"""pyspectra: a spectral analysis engine for neural networks.

``import pyspectra as ps`` is light: torch, pandas and matplotlib load on first use.
"""

from pyspectra.analysis.analyze import analyze
from pyspectra.analysis.distances import Distances, LayerDistance, distances
from pyspectra.config import get_num_threads, set_num_threads, show_config
from pyspectra.edit.edits import remove_traps, svd_smoothing
from pyspectra.errors import (
    ConvergenceError,
    CudaError,
    DeviceError,
    FormatError,
    MissingDependencyError,
    PyspectraError,
)
from pyspectra.ops import build_info as _build_info
from pyspectra.report.layer import LayerReport
from pyspectra.report.report import Report
from pyspectra.report.verdicts import Verdict
from pyspectra.spectra.comparison import DistributionComparison, compare_distributions
from pyspectra.spectra.esd import eigvals, esd
from pyspectra.spectra.farms import farms
from pyspectra.spectra.marchenko_pastur import marchenko_pastur
from pyspectra.spectra.powerlaw import fit_powerlaw, fit_powerlaw_batch
from pyspectra.spectra.randomize import find_traps
from pyspectra.types import ESD, MPFit, PowerLawFit, Status
from pyspectra.weights import WeightSource, open_weights

__version__: str = _build_info()["version"]

__all__ = [
    "ESD",
    "ConvergenceError",
    "CudaError",
    "DeviceError",
    "Distances",
    "DistributionComparison",
    "FormatError",
    "LayerDistance",
    "LayerReport",
    "MPFit",
    "MissingDependencyError",
    "PowerLawFit",
    "PyspectraError",
    "Report",
    "Status",
    "Verdict",
    "WeightSource",
    "analyze",
    "compare_distributions",
    "distances",
    "eigvals",
    "esd",
    "farms",
    "find_traps",
    "fit_powerlaw",
    "fit_powerlaw_batch",
    "get_num_threads",
    "marchenko_pastur",
    "open_weights",
    "remove_traps",
    "set_num_threads",
    "show_config",
    "svd_smoothing",
]
