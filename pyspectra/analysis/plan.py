"""Which layers of a model are analysed, by the options alone: nothing is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pyspectra.analysis.layer_spectra import n_evals
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights import Layer, Skip, SkippedLayer
from pyspectra.weights.kinds import LORA
from pyspectra.weights.selection import chosen_layers

__all__ = ["select_layers"]


def select_layers(
    layers: Sequence[Layer],
    skipped: Sequence[SkippedLayer],
    options: AnalyzeOptions,
    function: str,
) -> tuple[list[Layer], list[SkippedLayer]]:
    """Return the layers that the options choose, and those that they leave out, with reasons.

    Parameters
    ----------
    layers : sequence of Layer
        All that there are.
    skipped : sequence of SkippedLayer
        What is not among them: tied weights answer to their other names too.
    options : AnalyzeOptions
    function : str
        The public function, for messages.

    Raises
    ------
    ArgumentValueError
        If no layer answers to an item of ``options.layers``.
    """
    wanted = {layer.name for layer in chosen_layers(layers, skipped, options.layers, function)}
    chosen, left_out = [], []
    for layer in layers:
        skip = _gate(layer, options) if layer.name in wanted else Skip("not_selected")
        if skip is None:
            chosen.append(layer)
        else:
            left_out.append(layer.skipped(skip))
    return chosen, left_out


def _gate(layer: Layer, options: AnalyzeOptions) -> Skip | None:
    count = n_evals(layer, options)
    # Whether a small layer changed is found out all the same (`batches`).
    if count < options.min_evals and options.base_model is None:
        if layer.kind == LORA.name:
            return Skip("small_update", {"rank": count, "limit": options.min_evals})
        return Skip("few_evals", {"count": count, "limit": options.min_evals})
    if options.max_evals is not None and count > options.max_evals:
        return Skip("many_evals", {"count": count, "limit": options.max_evals})
    return None
