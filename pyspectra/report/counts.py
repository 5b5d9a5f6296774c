"""What the label of a model rests on, in numbers of layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pyspectra._support.text import counted
from pyspectra.report.findings import THRESHOLDS
from pyspectra.report.layer import LayerReport
from pyspectra.report.problems import (
    HEAVY_TAIL,
    LIGHT_TAIL,
    NO_POWER_LAW,
    NO_STRUCTURE,
    evidence,
    has_tail,
    is_judged,
    is_small,
    random_p,
)
from pyspectra.spectra.structures import MASK
from pyspectra.types import Status


@dataclass(frozen=True)
class Counts:
    """What the label of a model rests on, in layers; sentences name these fields in braces.

    Attributes
    ----------
    n : int
        Layers with a fit.
    rows : int
        All layers.
    large : int
        Layers that are not too small to tell.
    judged, typical, heavy, light : int
        Layers whose alpha says something; those of them between the bounds, below, above.
    silent, small, lawless : int
        Layers without structure; too small to tell; without a power law.
    structure_p : float
        The least p-value of "no structure" times the number of layers tested (Bonferroni).
    seen_in_large : bool
        Whether some layer that is not too small shows structure at that level.
    calibrated : bool
        Whether the bounds 2 and 6 hold for the estimator.
    untested : int
        Layers whose structure could not be tested: they are not finite, or zero.
    masked : int
        Those of the judged and lawless of which about half of the entries or more are zero.
    enough : bool
        Whether enough of the model could be analysed.
    """

    n: int
    rows: int
    large: int
    judged: int
    typical: int
    heavy: int
    light: int
    silent: int
    small: int
    lawless: int
    structure_p: float
    seen_in_large: bool
    calibrated: bool
    untested: int
    masked: int
    enough: bool = True

    @property
    def seen(self) -> bool:
        """Whether the model shows structure."""
        return not self.structure_p > THRESHOLDS.structure_level

    @property
    def tailed(self) -> int:
        """Layers whose alpha describes something, be it no power law."""
        return self.judged + self.lawless

    @property
    def layers(self) -> dict[str, str]:
        """How a sentence counts layers: ``rows_layers`` is "1 layer" or "3 layers"."""
        one = self.n == 1
        numbers = {
            f"{name}_layers": counted(getattr(self, name), "layer")
            for name in ("n", "rows", "large", "judged", "tailed")
        }
        every = "the only layer with a fit" if one else f"any of {numbers['n_layers']}"
        return numbers | {"any_layers": every, "their": "its" if one else "their"}


def count_layers(layers: Sequence[LayerReport], enough: bool = True) -> Counts:
    """Count what the label of a model rests on; `enough` tells whether it could be read."""
    fitted = [layer for layer in layers if layer.status is Status.OK]
    said = Counter(layer.warning for layer in fitted)
    large = [layer for layer in layers if not is_small(layer)]
    tested = [p for p in map(random_p, layers) if not math.isnan(p)]
    of_large = [p for p in map(random_p, large) if not math.isnan(p)]
    level = THRESHOLDS.structure_level
    judged = sum(is_judged(layer) for layer in fitted)
    heavy, light = said[HEAVY_TAIL.word], said[LIGHT_TAIL.word]
    return Counts(
        n=len(fitted),
        rows=len(layers),
        large=len(large),
        judged=judged,
        typical=judged - heavy - light,
        heavy=heavy,
        light=light,
        silent=said[NO_STRUCTURE.word],
        small=sum(map(is_small, layers)),
        lawless=said[NO_POWER_LAW.word],
        structure_p=min(1.0, len(tested) * min(tested)) if tested else math.nan,
        seen_in_large=not of_large or len(tested) * min(of_large) <= level,
        calibrated=all(evidence(layer).calibrated for layer in fitted),
        untested=len(layers) - len(tested),
        masked=sum(has_tail(layer) and MASK in layer.structures for layer in fitted),
        enough=enough,
    )
