"""How far apart two models are, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pyspectra._support.arguments import check_choice
from pyspectra._support.progress import progress_bar
from pyspectra.errors import ArgumentValueError, PyspectraError, called_as, missing_dependency
from pyspectra.report.plot import draw_far
from pyspectra.spectra import distance
from pyspectra.spectra.esd import esd
from pyspectra.types import FloatArray, Status
from pyspectra.weights import Layer, WeightSource, open_weights, reasons_for_none
from pyspectra.weights.lora import lora_product
from pyspectra.weights.matricize import matricize, matrix_indices
from pyspectra.weights.pairing import (
    Pairing,
    arrays_to_compare,
    pair_layers,
    shapes_to_compare,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_SPECTRAL: dict[str, distance.MatrixDistance] = {
    "ks": distance.kolmogorov_smirnov,
    "wasserstein": distance.wasserstein,
    "js": distance.jensen_shannon,
}
METHODS = ("raw", "euclidean", "cka", *_SPECTRAL)


@dataclass(frozen=True)
class LayerDistance:
    """The distance between one layer of two models.

    Attributes
    ----------
    name, name_b : str
        Its names in the first model and in the second.
    shape_a, shape_b : tuple of int
        Their shapes as stored.
    distance : float
        NaN where it could not be formed.
    reason : str
        Why the distance could not be formed; empty otherwise.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> (row,) = ps.distances({"fc.weight": np.eye(9)}, {"fc.weight": np.eye(9)}).layers
    >>> row.name, row.distance
    ('fc', 0.0)
    """

    name: str
    name_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    distance: float
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Distances:
    """What `distances` returns.

    Attributes
    ----------
    method : str
    layers : tuple of LayerDistance
        The layers that both models have, in the order of the first.
    only_in_a, only_in_b : tuple of str
        Names of the layers that the other model lacks.
    notes : tuple of str
        What was done to names so that they agree, as sentences.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> far = ps.distances({"fc.weight": np.eye(9)}, {"fc.weight": np.eye(9)}, method="cka")
    >>> round(far.mean, 6), len(far.layers)
    (1.0, 1)
    """

    method: str
    layers: tuple[LayerDistance, ...]
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean distance over the layers that have one; NaN if none has."""
        values = [x.distance for x in self.layers if not math.isnan(x.distance)]
        return sum(values) / len(values) if values else math.nan

    def __repr__(self) -> str:
        return f"<Distances ({self.method}) of {len(self.layers)} layers: mean {self.mean:.4g}>"

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the distance of each layer with matplotlib, by the number of its block.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw in; by default those of a new figure of a paper's column.

        Returns
        -------
        matplotlib.axes.Axes
            ``ax.figure.savefig(path)`` writes the figure.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError, TypeError
            If `ax` is no Axes, or no layer has a distance.

        Examples
        --------
        >>> import numpy as np, pyspectra as ps
        >>> far = ps.distances({"fc.weight": np.eye(9)}, {"fc.weight": 2 * np.eye(9)})
        >>> far, far.plot().get_ylabel()
        (<Distances (raw) of 1 layers: mean 3>, 'raw')
        """
        return draw_far(self.method, self.layers, ax)

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row for each matched layer.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise missing_dependency("pandas", "Distances.to_pandas", extra="pandas") from error
        columns = ["name", "name_b", "shape_a", "shape_b", "distance", "reason"]
        return pandas.DataFrame([vars(x) for x in self.layers], columns=columns)


def distances(a: Any, b: Any, method: str = "raw", *, progress: bool | str = "auto") -> Distances:
    """Measure how far the weights of two models are apart, layer by layer.

    Parameters
    ----------
    a, b : nn.Module, mapping, WeightSource or path
        As for `pyspectra.analyze`.
    method : {"raw", "euclidean", "cka", "ks", "wasserstein", "js"}
        ``"raw"``: Frobenius norm of the difference of the tensors. ``"euclidean"``: the same for
        each matrix, averaged over the matrices of a layer (kernel positions, experts). ``"cka"``:
        uncentred alignment, 1 for equal matrices, averaged likewise: a similarity. The others
        compare spectra: ``"ks"`` is Kolmogorov-Smirnov, ``"wasserstein"`` the earth mover's
        distance, ``"js"`` Jensen-Shannon.
    progress : bool or "auto"
        As for `pyspectra.analyze`.

    Returns
    -------
    Distances
        Layers are matched by name, without what wrappers add (``_orig_mod.``, ``module.``) and
        without one prefix that the names of one model share (``bert.``); tied weights go by any
        of their names. Those without a partner are listed. A layer whose distance
        cannot be formed has NaN and the reason. Only ``"ks"`` and ``"wasserstein"`` compare layers
        of different shapes.

    Raises
    ------
    ValueError, TypeError, FormatError, FileNotFoundError
        If `method` is unknown, a model cannot be opened or holds no weight matrix, or the two have
        no layer in common.

    Examples
    --------
    >>> import numpy as np, pyspectra as ps
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> before = {"fc.weight": W, "head.weight": 2 * W}
    >>> after = {"fc.weight": W + 0.1, "new.weight": 3 * W}
    >>> far = ps.distances(before, after)
    >>> round(far.mean, 3), far.only_in_a, far.only_in_b
    (4.899, ('head',), ('new',))
    """
    check_choice("distances", "method", method, METHODS)
    if progress not in (True, False, "auto"):
        raise ArgumentValueError(
            "distances", "progress", "be True, False or 'auto'", repr(progress)
        )
    opened = []
    try:
        sources = []
        for argument, model in (("a", a), ("b", b)):
            sources.append(_open(model, argument))
            if sources[-1] is not model:
                opened.append(sources[-1])
            if not sources[-1].layers:
                got = f"{sources[-1].name}, {reasons_for_none(sources[-1].skipped)}"
                raise ArgumentValueError("distances", argument, "hold a weight matrix", got)
        pairing = pair_layers(*sources)
        if not pairing.pairs:
            raise ArgumentValueError("distances", "b", *_nothing_in_common(pairing))
        found = []
        with progress_bar(len(pairing.pairs), "comparing", progress) as advance:
            for one, other in pairing.pairs:
                found.append(_compare(one, other, method))
                advance(one.name)
    finally:
        for source in opened:
            source.close()
    return Distances(
        method=method,
        layers=tuple(found),
        only_in_a=tuple(layer.name for layer in pairing.only_in_a),
        only_in_b=tuple(layer.name for layer in pairing.only_in_b),
        notes=tuple(note.words("a", "b") for note in pairing.notes),
    )


def _nothing_in_common(pairing: Pairing) -> tuple[str, str, str]:
    """Return what the error says: the requirement, what came, and a hint."""
    one, other = pairing.only_in_a[0], pairing.only_in_b[0]
    hint = "layers are matched by name, without the prefixes of wrappers or one common prefix"
    hints = [hint, *(note.words("a", "b") for note in pairing.notes)]
    got = f"layers such as {other.name!r} and not one of those of 'a', such as {one.name!r}"
    return "have a layer that 'a' has too", got, "; ".join(hints)


def _open(model: Any, argument: str) -> WeightSource:
    with called_as("distances", model_or_path=argument):
        return open_weights(model)


def _compare(a: Layer, b: Layer, method: str) -> LayerDistance:
    value, reason = math.nan, ""
    shapes = (a.shape, b.shape) if method in _SPECTRAL else shapes_to_compare(a, b)
    if shapes[0] != shapes[1] and method not in ("ks", "wasserstein"):
        reason = f"shapes differ: {shapes[0]} and {shapes[1]}"
    else:
        try:
            value = _distance(a, b, method)
        except _NoDistanceError as problem:
            reason = str(problem)
        except (PyspectraError, ValueError, OSError, MemoryError) as error:
            reason = f"could not be read: {str(error) or type(error).__name__}"
    return LayerDistance(a.name, b.name, a.shape, b.shape, value, reason)


class _NoDistanceError(Exception):
    """Two layers have no distance, for the reason that the message says."""


def _distance(a: Layer, b: Layer, method: str) -> float:
    if method in _SPECTRAL:
        value = _SPECTRAL[method](_spectrum(a), _spectrum(b))
    else:
        X, Y = arrays_to_compare(a, b)
        if method == "raw" or lora_product(a) is not None:
            # A LoRA pair is one matrix, and cores in one basis have not the shape of the layer.
            pairs = [(X, Y)]
        else:
            pairs = [(X[index], Y[index]) for index in matrix_indices(a)]
        between = distance.cka if method == "cka" else distance.frobenius
        value = float(np.mean([between(A, B) for A, B in pairs]))
    if math.isfinite(value):
        return value
    weights = (a.load().to_float64(), b.load().to_float64())
    zero = all(np.isfinite(W).all() for W in weights) and method in ("cka", "js")
    raise _NoDistanceError("a matrix is zero" if zero else "not finite")


def _matrices(layer: Layer) -> Sequence[FloatArray]:
    return [s.to_float64() for s in matricize(layer, layer.load()).slices]


def _spectrum(layer: Layer) -> FloatArray:
    """Return all eigenvalues of a layer, ascending."""
    parts = [esd(matrix) for matrix in _matrices(layer)]
    for part in parts:
        if part.status is not Status.OK:
            raise _NoDistanceError(part.status.words)
    return np.sort(np.concatenate([part.evals for part in parts]))
