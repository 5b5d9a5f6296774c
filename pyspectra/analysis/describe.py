"""What would be analysed, without analysing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspectra.analysis.batches import gram_elements
from pyspectra.analysis.layer_spectra import n_evals
from pyspectra.analysis.plan import select_layers
from pyspectra.analysis.porting import refuse_foreign_names
from pyspectra.errors import called_as
from pyspectra.report.description import Description
from pyspectra.report.options import AnalyzeOptions, takes_options
from pyspectra.report.plan_data import PlannedLayer
from pyspectra.weights import Layer, open_weights
from pyspectra.weights.matricize import matrix_shape

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pyspectra.report._keywords import AnalyzeKeywords


@takes_options
def describe(
    model_or_path: Any, *, key: str | None = None, **options: Unpack[AnalyzeKeywords]
) -> Description:
    """Tell what `pyspectra.analyze` would analyse, without reading a single weight.

    Parameters
    ----------
    model_or_path : nn.Module, mapping, WeightSource or path
        As for `pyspectra.analyze`.
    {options}
    key : str, optional
        Which part of a checkpoint that holds several models.

    Returns
    -------
    Description
        The layers, what is skipped and why, which share of the parameters in matrices that is, and
        how much work and memory the spectra would take.

    Raises
    ------
    ValueError, TypeError
        An argument is of the wrong kind or range.
    FormatError, FileNotFoundError
        The file cannot be used.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> plan = ps.describe({"fc.weight": np.ones((64, 48)), "fc.bias": np.ones(64)})
    >>> len(plan), plan["fc"].n_evals, plan.coverage.words
    (1, 48, 'all of the parameters in matrices')
    """
    refuse_foreign_names(options)
    with called_as("describe", model_or_path="model_or_path"):
        checked = AnalyzeOptions.from_keywords(options)
        source = open_weights(model_or_path, key=key)
    try:
        chosen, left_out = select_layers(source.layers, source.skipped, checked, "describe")
        return Description(
            layers=tuple(_planned(layer, checked) for layer in chosen),
            skipped=(*source.skipped, *left_out),
            source=source.name,
            format=source.format,
            read=tuple(map(str, source.files)),
        )
    finally:
        if source is not model_or_path:
            source.close()


def _planned(layer: Layer, options: AnalyzeOptions) -> PlannedLayer:
    N, M, rf = matrix_shape(layer)
    return PlannedLayer(
        layer_id=layer.layer_id,
        name=layer.name,
        key=layer.key,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        part_of=layer.part_of,
        N=N,
        M=M,
        rf=rf,
        n_evals=n_evals(layer, options),
        n_rows=1 if options.pool else rf,
        gram_elements=gram_elements(layer, options),
        stored_as=layer.stored_as,
    )
