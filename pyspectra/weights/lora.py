"""LoRA pairs, as layers: what counts is the spectrum of the product ``B @ A``.

The two halves mean nothing alone. A small matrix has the nonzero singular values of their product,
which is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pyspectra._arrays import HostArray
from pyspectra._support.cached import cached_property
from pyspectra._support.dtypes import BY_NAME
from pyspectra.errors import FormatError
from pyspectra.types import FloatArray
from pyspectra.weights.kinds import LORA
from pyspectra.weights.layer import Layer
from pyspectra.weights.lora_names import LoraPair
from pyspectra.weights.name_patterns import Name, NamePattern, UnsafePatternError

__all__ = [
    "LoraProduct",
    "LoraScale",
    "joint_cores",
    "joint_shape",
    "lora_core",
    "lora_layer",
    "lora_product",
]

Shape = tuple[int, ...]

MAX_STEPS: Final = 1 << 23


@dataclass(frozen=True)
class LoraScale:
    """The factor on ``B @ A``, as PEFT computes it.

    Attributes
    ----------
    alpha : float
        ``lora_alpha``.
    rank_stabilised : bool
        ``use_rslora``: alpha / sqrt(r) instead of alpha / r.
    alpha_pattern : Mapping
        Regular expression (`pyspectra.weights.name_patterns`) to alpha, for the modules whose name
        it matches as a whole or after a dot; the first match wins.
    inputs_first : bool
        ``fan_in_fan_out``: whether weights of the base are stored with their inputs first (GPT-2).
    start : str
        ``init_lora_weights`` where that has changed the weights of the base before the training:
        the adapter belongs to what was left of them. Otherwise empty.
    invoked : bool
        ``alora_invocation_tokens`` is given: the update counts from those tokens of the input on
        alone (activated LoRA).

    Notes
    -----
    r is the number of rows of A, to which ``rank_pattern`` has nothing to add. The magnitudes of
    DoRA (``use_dora``) are not applied: the spectrum is that of the update before them.
    """

    alpha: float
    rank_stabilised: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    inputs_first: bool = False
    start: str = ""
    invoked: bool = False

    @cached_property
    def _patterns(self) -> list[tuple[NamePattern, float]]:
        return [(NamePattern(pattern), alpha) for pattern, alpha in self.alpha_pattern.items()]

    @cached_property
    def _spent(self) -> list[int]:
        return [0]  # steps of matching, in all

    def _alpha(self, module: str) -> float:
        if not self._patterns:
            return self.alpha
        name = Name(module.removeprefix("base_model.model."))
        found = next((a for pattern, a in self._patterns if pattern.matches(name)), self.alpha)
        self._spent[0] += name.steps
        if self._spent[0] > MAX_STEPS:
            raise UnsafePatternError("more patterns than can be tried on so many modules")
        return found

    def __call__(self, module: str, rank: int) -> float:
        """Scale for one module.

        Parameters
        ----------
        module : str
            Its name; a leading ``base_model.model.``, which PEFT adds after matching, is left out.
        rank : int
            Rows of A.

        Returns
        -------
        float
            The factor to multiply ``B @ A`` with.

        Raises
        ------
        FormatError
            If the patterns take too long, or cannot be matched with such a name.
        """
        try:
            alpha = self._alpha(module)
        except UnsafePatternError as error:
            raise FormatError(
                f"the pattern of alphas of an adapter cannot be matched with {module[:80]!r}: "
                f"{error}. Hint: pass the path of the weights file instead of the folder's; the "
                "update is then not scaled."
            ) from error
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


@dataclass(frozen=True)
class LoraProduct:
    """Loader of the core of a pair.

    Attributes
    ----------
    a, b : Layer
        The halves, which check what they read.
    scale : float
        Factor on ``B @ A``; with `alpha`, the factor besides ``alpha / r``.
    alpha : Layer or None
        The stored alpha (kohya), one number.
    config : LoraScale or None
        What the configuration of the adapter says.
    """

    a: Layer
    b: Layer
    scale: float
    alpha: Layer | None = None
    config: LoraScale | None = None

    def factor(self) -> float:
        """Return the factor on ``B @ A``."""
        if self.alpha is None:
            return self.scale
        return self.scale * float(self.alpha.load().to_float64().sum()) / self.a.shape[0]

    @property
    def shape(self) -> Shape:
        """Shape of the update ``B @ A``, which is never formed."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def spacing(self) -> float:
        """Spacing of the numbers of the coarser half."""
        return max(BY_NAME[self.a.dtype].spacing, BY_NAME[self.b.dtype].spacing)

    def __call__(self) -> HostArray:
        """Return the core of the product; see `lora_core`."""
        return lora_core(self.a.load(), self.b.load(), self.factor())


def lora_product(layer: Layer) -> LoraProduct | None:
    """Return the two halves that a layer stands for; None if it is not of a LoRA pair."""
    loader = layer._loader
    return loader if isinstance(loader, LoraProduct) else None


def lora_layer(pair: LoraPair, product: LoraProduct, layer_id: int, position: int) -> Layer:
    """Make the layer that stands for a LoRA pair.

    Parameters
    ----------
    pair : LoraPair
        The pair; its halves fit.
    product : LoraProduct
        Reads the halves.
    layer_id, position : int
        Id and position of A.

    Returns
    -------
    Layer
        Of kind ``"lora"``: a matrix with the nonzero singular values of ``scale * B @ A``.
        Square of side r, unless r exceeds a side of the update.
    """
    r, columns = pair.shape_a
    rows = pair.shape_b[0]
    return Layer(
        name=pair.name,
        kind=LORA.name,
        shape=(min(rows, r), min(columns, r)),
        dtype="float64",
        layer_id=layer_id,
        key=pair.key_a,
        _loader=product,
        position=position,
    )


def lora_core(a: HostArray, b: HostArray, scale: float) -> HostArray:
    """Reduce ``scale * B @ A`` to a small matrix with the same nonzero singular values.

    Parameters
    ----------
    a : HostArray
        A, ``(r, in)``.
    b : HostArray
        B, ``(out, r)``.
    scale : float
        Factor on the product.

    Returns
    -------
    HostArray
        float64, ``(min(out, r), min(in, r))``. All NaN if a half is not finite.

    Notes
    -----
    With B = Q_B R_B and A^T = Q_A R_A, B A = Q_B (R_B R_A^T) Q_A^T, and the factors Q, whose
    columns are orthonormal, change no singular value. The out x in product is never formed.
    """
    r_b, r_a = _triangles(b.to_float64(), a.to_float64().T)
    with np.errstate(all="ignore"):  # infinities are reported downstream
        return HostArray(np.asarray(scale * (r_b @ r_a.T)), "float64")


def joint_shape(one: LoraProduct, other: LoraProduct) -> Shape:
    """Shape of what `joint_cores` returns, from the shapes of the halves alone."""
    rank = one.a.shape[0] + other.a.shape[0]
    rows, columns = one.shape
    return min(rows, rank), min(columns, rank)


def joint_cores(one: LoraProduct, other: LoraProduct) -> tuple[FloatArray, FloatArray]:
    """Reduce two updates of one shape to small matrices that compare as the updates do.

    Parameters
    ----------
    one, other : LoraProduct
        The updates; their ranks may differ.

    Returns
    -------
    X, Y : ndarray of float64
        Of `joint_shape`. Inner products of X and Y, and so the norm and the singular values of
        ``X - Y``, are those of the updates. The same halves give the very same matrices.

    Notes
    -----
    The cores of the two alone would not do: each is taken in an orthonormal basis of its own, and
    the same product written with permuted ranks has another core. Here [B1 B2] = Q_B [R1 R2] and
    [A1; A2]^T = Q_A [S1 S2] give both in the bases Q_B and Q_A: R1 S1^T and R2 S2^T.
    """
    (b1, a1), (b2, a2) = ((p.b.load().to_float64(), p.a.load().to_float64()) for p in (one, other))
    scales = one.factor(), other.factor()
    same = scales[0] == scales[1] and np.array_equal(b1, b2) and np.array_equal(a1, a2)
    r_b, r_a = _triangles(np.hstack([b1, b2]), np.hstack([a1.T, a2.T]))
    rank = len(a1)
    with np.errstate(all="ignore"):  # infinities are reported downstream
        X = np.asarray(scales[0] * (r_b[:, :rank] @ r_a[:, :rank].T))
        if same:  # to the last bit, which no rounding may hide
            return X, X.copy()
        return X, np.asarray(scales[1] * (r_b[:, rank:] @ r_a[:, rank:].T))


def _triangles(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the factors R of two QR decompositions; all NaN if anything is not finite."""
    finite = bool(np.isfinite(left).all() and np.isfinite(right).all())
    return _triangle(left, finite=finite), _triangle(right, finite=finite)


def _triangle(x: FloatArray, *, finite: bool) -> FloatArray:
    if not finite:  # what Householder reflections make of an infinity is up to LAPACK
        return np.full((min(x.shape), x.shape[1]), np.nan)
    return np.asarray(np.linalg.qr(x, mode="r"))
