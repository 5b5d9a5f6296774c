"""The row of a report: what is known of one layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pyspectra.report.options import AnalyzeOptions
from pyspectra.spectra.eigenvectors import EigenvectorStatistics
from pyspectra.spectra.null_test import NullTest
from pyspectra.spectra.randomize import Randomized
from pyspectra.types import ESD, FloatArray, MPFit, PowerLawFit, Status, Value
from pyspectra.weights.kinds import LORA
from pyspectra.weights.precision import StoredAs
from pyspectra.weights.roles import Place, place_of
from pyspectra.weights.rounding import Change
from pyspectra.weights.skip import Skip, SkippedLayer


@dataclass(frozen=True, eq=False)
class LayerReport(Value):
    """One row of a report: a layer, or a slice of a convolution with ``pool=False``.

    Attributes
    ----------
    layer_id, name, key, kind, shape, dtype
        What the layer is, as in `pyspectra.weights.Layer`; `key` is the name of the parameter.
    slice_id : int or None
        Which slice; None for a pooled layer.
    rf : int
        Number of matrices of the layer (the size of a receptive field).
    part_of : str or None
        Name of the layer that this is a part of (q of a fused qkv, a gate of an LSTM).
    esd : ESD
        Spectrum of the weights as they are stored.
    fit : PowerLawFit
        The fit that counts (after clipping fingers, if asked for).
    n_tail : int
        Eigenvalues >= xmin among all of the layer (estimator ``"farms"``: of its sub-matrices;
        ``"hill"`` and with `xmax` or `drop_largest`: those of the fit).
    raw_fit : PowerLawFit or None
        The fit before fingers were clipped.
    n_fingers : int or None
        Eigenvalues clipped, by WeightWatcher's count.
    metrics : mapping of str to number
        Every registered metric that was asked for; empty if the spectrum failed.
    warning : str
        ``"too small to tell"``, ``"no structure detected"``, ``"no power law"``, ``"heavy tail"``,
        ``"light tail"`` or ``""``; see `pyspectra.report.problems.layer_warning`.
    measured : mapping of str to object
        What else was measured, by the name of the measurement.
    position : int
        As in `pyspectra.weights.Layer`: WeightWatcher's ``layer_id``.
    could_be : tuple of str
        As in `pyspectra.weights.Layer`: kinds that the layer may be instead, with other matrices.
    stored_as : StoredAs or None
        As in `pyspectra.weights.Layer`: how weights were quantised that have been dequantised.

    Notes
    -----
    Two rows are equal if all their values are, arrays element by element.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> (layer,) = ps.analyze({"fc.weight": np.random.default_rng(0).random((60, 40))}).layers
    >>> layer.name, layer.kind, layer.shape, layer.alpha == layer.fit.alpha
    ('fc', 'linear', (60, 40), True)
    """

    layer_id: int
    name: str
    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    slice_id: int | None
    rf: int
    part_of: str | None
    esd: ESD
    fit: PowerLawFit
    n_tail: int
    raw_fit: PowerLawFit | None
    n_fingers: int | None
    metrics: Mapping[str, float | int]
    warning: str
    measured: Mapping[str, Any] = field(default_factory=dict, repr=False)
    position: int = 0
    could_be: tuple[str, ...] = ()
    stored_as: StoredAs | None = None

    # Set by the facade, `pyspectra.report.report`: a row knows no view.
    notebook_view: ClassVar[Callable[[LayerReport], str] | None] = None

    def _repr_html_(self) -> str | None:
        """Return the row as a notebook shows it: its spectrum, and its numbers in words."""
        view = type(self).notebook_view
        return None if view is None else view(self)

    @property
    def status(self) -> Status:
        """Status of the spectrum if that failed, else of the fit."""
        return self.esd.status if self.esd.status is not Status.OK else self.fit.status

    @property
    def failure(self) -> str:
        """Why it has no spectrum, in words; empty if it has one."""
        return "" if self.esd.status is Status.OK else self.esd.status.words

    @property
    def alpha(self) -> float:
        """Tail exponent; NaN where the fit failed."""
        return self.fit.alpha

    @property
    def label(self) -> str:
        """Its name, with the number of the slice where it is one: ``"conv[3]"``."""
        return self.name if self.slice_id is None else f"{self.name}[{self.slice_id}]"

    @property
    def place(self) -> Place:
        """Where it stands in the model and what it does there, as far as its name tells."""
        return place_of(self.name, self.kind)

    @property
    def block(self) -> int | None:
        """Number of the block that it is in, as its name has it; None outside of blocks."""
        return self.place.block

    @property
    def stack(self) -> str:
        """The beginning of its name, up to the number of its block; empty outside of blocks."""
        return self.place.stack

    @property
    def role(self) -> str | None:
        """What it does: ``"q"``, ``"up"``, ``"head"``; None where its name does not tell."""
        return self.place.role

    def skipped(self, skip: Skip) -> SkippedLayer:
        """Return what a report says of the layer, if it is not analysed."""
        return SkippedLayer(
            self.name, self.shape, skip, self.dtype, is_part=self.part_of is not None
        )

    @property
    def mp(self) -> MPFit | None:
        """Marchenko-Pastur fit and test for randomness, with ``mp_fit=True``."""
        return self.measured.get("mp")

    @property
    def randomized(self) -> Randomized | None:
        """Spectrum of the permuted entries, with ``randomize=True``."""
        return self.measured.get("randomized")

    @property
    def null(self) -> NullTest | None:
        """The test for structure; None where there is no spectrum."""
        return self.measured.get("null")

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures that were recognised (`pyspectra.spectra.structures`)."""
        return tuple(name for name, _ in self.null.structures) if self.null else ()

    @property
    def change(self) -> Change | None:
        """With a base model: how large the change is, and what of it rounding explains."""
        return self.measured.get("change")

    @property
    def change_rank(self) -> int:
        """With a base model: the rank of the change if that is low, else 0."""
        return int(self.measured.get("change_rank", 0))

    @property
    def is_update(self) -> bool:
        """Whether it is a LoRA update that was not merged: a change of rank `update_rank`."""
        return self.kind == LORA.name and self.change is None

    @property
    def update_rank(self) -> int:
        """The rank of a LoRA update that was not merged; 0 for any other layer."""
        return int(self.metrics.get("matrix_rank", 0)) if self.is_update else 0

    @property
    def vectors(self) -> EigenvectorStatistics | None:
        """How localised the eigenvectors are, with ``vectors=True``."""
        return self.measured.get("vectors")


def tail_size(evals: FloatArray, fit: PowerLawFit, options: AnalyzeOptions) -> int:
    """Return the number of eigenvalues in the tail of a layer.

    They are those >= xmin among all of the layer. Where other points were fitted than the layer's
    eigenvalues, or the points of the tail are those above xmin (``"hill"``), it is the fit's count.
    """
    own = not (options.cuts_above or fit.estimator.startswith(("farms", "hill")))
    if own and fit.status is Status.OK:
        return int(np.count_nonzero(evals >= fit.xmin))
    return fit.n_tail
