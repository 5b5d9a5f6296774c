"""A row of a report in the making: a spectrum with what was measured, and then its fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspectra import metrics
from pyspectra.analysis.measurements import PASSING, WINDOWS
from pyspectra.report.layer import LayerReport, tail_size
from pyspectra.report.options import AnalyzeOptions
from pyspectra.report.problems import layer_warning
from pyspectra.types import ESD, PowerLawFit, Status
from pyspectra.weights import Layer
from pyspectra.weights.kinds import LORA


@dataclass(frozen=True)
class Spectrum:
    """The ESD of a layer, or of one slice of it.

    Attributes
    ----------
    layer : Layer
    slice_id : int or None
        Which slice; None for the whole layer.
    rf : int
        Number of matrices of the layer.
    esd : ESD
    threshold : float
        What eigenvalues must exceed to enter the fit.
    measured : Mapping
        What `pyspectra.analysis.measurements` found, by name.
    """

    layer: Layer
    slice_id: int | None
    rf: int
    esd: ESD
    threshold: float
    measured: Mapping[str, Any]

    @property
    def windows(self) -> PowerLawFit | None:
        """The fit of sub-matrices, where the estimator asks for it."""
        return self.measured.get(WINDOWS)

    @property
    def label(self) -> str:
        """What tells the random numbers of a row from those of all others, whatever their order."""
        name = self.layer.name
        return name if self.slice_id is None else f"{name}[{self.slice_id}]"


@dataclass(frozen=True)
class LayerFit:
    """The fit that counts; with ``fix_fingers`` the one before, and how many were clipped."""

    fit: PowerLawFit
    raw_fit: PowerLawFit | None = None
    n_fingers: int | None = None


def layer_report(row: Spectrum, found: LayerFit, options: AnalyzeOptions) -> LayerReport:
    """Evaluate the metrics of a row and put it together."""
    esd, layer, fit = row.esd, row.layer, found.fit
    values: dict[str, float | int] = {}
    if esd.status is Status.OK:
        spectrum = metrics.Spectrum(esd, fit, esd.N, row.measured)
        values = metrics.evaluate(spectrum, options.groups)
    return LayerReport(
        layer_id=layer.layer_id,
        name=layer.name,
        key=layer.key,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        slice_id=row.slice_id,
        rf=row.rf,
        part_of=layer.part_of,
        esd=esd,
        fit=fit,
        n_tail=tail_size(esd.evals, fit, options),
        raw_fit=found.raw_fit,
        n_fingers=found.n_fingers,
        metrics=values,
        warning=layer_warning(
            fit,
            float(values.get("random_p_value", float("nan"))),
            len(esd.evals),
            is_change="change" in row.measured or layer.kind == LORA.name,
        ),
        position=layer.position,
        could_be=layer.could_be,
        stored_as=layer.stored_as,
        measured={
            name: value
            for name, value in row.measured.items()
            if name not in PASSING and value is not None
        },
    )
