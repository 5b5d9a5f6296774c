"""Layers derived from the stored ones: parts of a fused weight, and products of LoRA pairs.

A fused weight (query, key and value of an attention; the gates of a recurrent cell) is several
matrices under one name. It stays a layer, and each part becomes one more, which reads the whole
and looks at its rows or columns. The two halves of a LoRA pair mean nothing alone; what counts
is the spectrum of their product, which a small matrix has too.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra.weights.layer import (
    ATTENTION_IN_PROJ,
    CONV1D_GPT2,
    LINEAR,
    LORA,
    LORA_EMBEDDING_KEY,
    RNN,
    Layer,
    layer_name,
)
from pyspectra.weights.skip import Skip

__all__ = [
    "GRU_GATES",
    "LSTM_GATES",
    "NO_PARTS",
    "LoraPair",
    "LoraScale",
    "lora_core",
    "lora_layer",
    "lora_pairs",
    "part_layers",
]

Shape = tuple[int, ...]
Shapes = Mapping[str, "Shape | None"]

QKV: Final = ("q", "k", "v")
# The order in which PyTorch stacks the gates along the rows, for weight_ih and weight_hh alike:
# https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html (W_ii|W_if|W_ig|W_io)
# https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html (W_ir|W_iz|W_in)
LSTM_GATES: Final = ("i", "f", "g", "o")
GRU_GATES: Final = ("r", "z", "n")
NO_PARTS: Final[tuple[str, ...]] = ()

_GATES_BY_COUNT: Final = {4: LSTM_GATES, 3: GRU_GATES}
_GATED_KEY = re.compile(r"((?:.*\.)?weight_)(?:ih|hh)((?:_l[0-9]+(?:_reverse)?)?)", re.DOTALL)
# Names under which q, k and v lie one after the other. Not `query_key_value` (BLOOM, GPT-NeoX):
# there the rows run head by head, q, k and v of the first head first, so that a third of the rows
# is a mixture of all three.
_FUSED_QKV: Final = ("c_attn", "Wqkv", "qkv")

# PEFT: one pair per adapted module, with the adapter's name in between unless a saved file left
# it out. Embeddings hold bare parameters instead of modules, hence no ".weight".
_LORA_KEY = re.compile(r"(?:(.+)\.)?lora_([AB])(?:\.([^.]+))?\.weight", re.DOTALL)


# --- parts of a fused weight --------------------------------------------------------------------


def part_layers(layer: Layer, names: Sequence[str] | None, shapes: Shapes) -> tuple[Layer, ...]:
    """Cut a fused weight into its parts.

    Parameters
    ----------
    layer : Layer
        The whole.
    names : sequence of str or None
        Names of the parts where the source knows them (empty: it has none); None to go by the
        name and shape of the layer and of its neighbours.
    shapes : Mapping
        Every key of the source with its shape, None where that is unknown.

    Returns
    -------
    tuple of Layer
        One layer of kind ``"linear"`` per part, each a view of the whole; empty if there are
        none.
    """
    if len(layer.shape) != 2:
        return ()
    axis = 0
    if names is None:
        if layer.kind == ATTENTION_IN_PROJ:
            names = QKV
        elif layer.kind == RNN:
            names = _gates_by_shape(layer, shapes)
        elif layer.kind in (LINEAR, CONV1D_GPT2) and _is_fused_qkv(layer):
            # A linear layer stores (3E, E), the `Conv1D` of GPT-2 the transpose.
            names = QKV
            axis = int(np.argmax(layer.shape))
    if not names or layer.shape[axis] % len(names):
        return ()
    size = layer.shape[axis] // len(names)
    shape = (size, layer.shape[1]) if axis == 0 else (layer.shape[0], size)
    before = (slice(None),) * axis
    return tuple(
        Layer(
            name=f"{layer.name}[{name}]",
            kind=LINEAR,
            shape=shape,
            dtype=layer.dtype,
            layer_id=layer.layer_id,
            key=layer.key,
            _loader=_Part(layer, (*before, slice(i * size, (i + 1) * size))),
            part_of=layer.name,
        )
        for i, name in enumerate(names)
    )


@dataclass(frozen=True)
class _Part(Loader):
    whole: Layer
    index: tuple[slice, ...]

    def load(self, allocate: Allocate | None = None) -> HostArray:
        return self.whole.load(allocate).view(self.index)


def _is_fused_qkv(layer: Layer) -> bool:
    last = layer_name(layer.key).rpartition(".")[2]
    return last in _FUSED_QKV and max(layer.shape) == 3 * min(layer.shape)


def _gates_by_shape(layer: Layer, shapes: Shapes) -> tuple[str, ...]:
    """Tell the cell by the shape of its ``weight_hh``: (4H, H) in an LSTM, (3H, H) in a GRU.

    ``weight_ih`` says nothing by itself, its columns being the inputs: it goes by its companion.
    """
    match = _GATED_KEY.fullmatch(layer.key)
    if match is None:
        return NO_PARTS
    start, end = match.groups()
    hidden = shapes.get(f"{start}hh{end}")
    if hidden is None or len(hidden) != 2 or hidden[0] != layer.shape[0] or hidden[1] == 0:
        return NO_PARTS
    if f"{start}hr{end}" in shapes:
        # A projection: the columns of weight_hh are its outputs, not the hidden units.
        return NO_PARTS
    gates, rest = divmod(hidden[0], hidden[1])
    return NO_PARTS if rest else _GATES_BY_COUNT.get(gates, NO_PARTS)


# --- LoRA ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoraPair:
    """The two halves of a low-rank update ``B @ A`` of one module.

    Attributes
    ----------
    module : str
        Name of the module that the update belongs to, in the source.
    name : str
        Of the derived layer: ``MODULE[lora BA]``, with the adapter's name inside the brackets if
        the module has several.
    key_a, key_b : str
        Of A, ``(r, in)``, and B, ``(out, r)``.
    shape_a, shape_b : (int, int)
        Their shapes.
    """

    module: str
    name: str
    key_a: str
    key_b: str
    shape_a: Shape
    shape_b: Shape

    @property
    def rank(self) -> int:
        """Rows of A; columns of B too, if they fit."""
        return self.shape_a[0]

    @property
    def problem(self) -> Skip | None:
        """Why A and B cannot be multiplied, or None."""
        if self.rank == self.shape_b[1]:
            return None
        detail = {"pair": self.name, "rank_a": self.rank, "rank_b": self.shape_b[1]}
        return Skip("lora_misfit", detail)


def lora_pairs(shapes: Mapping[str, Shape]) -> tuple[LoraPair, ...]:
    """Find the LoRA pairs of a source by PEFT's naming.

    Parameters
    ----------
    shapes : Mapping
        The keys of all tensors that can be analysed, with their shapes.

    Returns
    -------
    tuple of LoraPair
        Two-dimensional halves that both are there: ``X.lora_A.weight`` and ``X.lora_B.weight``,
        ``X.lora_A.ADAPTER.weight`` and its like, ``X.lora_embedding_A`` and its like. Those of
        convolutions have four axes and are left alone.
    """
    halves: dict[tuple[str, bool, str | None], dict[str, str]] = {}
    for key, shape in shapes.items():
        match = _LORA_KEY.fullmatch(key) or LORA_EMBEDDING_KEY.fullmatch(key)
        if match is not None and len(shape) == 2:
            module, half, adapter = match.groups()
            owner = (module or "", match.re is LORA_EMBEDDING_KEY, adapter)
            halves.setdefault(owner, {})[half] = key
    complete = {owner: found for owner, found in halves.items() if len(found) == 2}
    adapters = Counter(module for module, _, _ in complete)
    pairs = []
    for (module, _, adapter), found in complete.items():
        which = f" {adapter or 'default'}" if adapters[module] > 1 else ""
        key_a, key_b = found["A"], found["B"]
        name = f"{module}[lora BA{which}]"
        pairs.append(LoraPair(module, name, key_a, key_b, shapes[key_a], shapes[key_b]))
    return tuple(pairs)


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
        Regular expression to alpha, for the modules whose name it matches as a whole or after a
        dot; the first match wins.

    Notes
    -----
    r is the number of rows of A, to which ``rank_pattern`` has nothing to add. The magnitudes of
    DoRA (``use_dora``) are not applied: the spectrum is that of the update before them.
    """

    alpha: float
    rank_stabilised: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    @functools.cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], float]]:
        return [
            (re.compile(rf"(?:.*\.)?(?:{pattern})$"), alpha)
            for pattern, alpha in self.alpha_pattern.items()
        ]

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
            To multiply ``B @ A`` with.
        """
        name = module.removeprefix("base_model.model.")
        alpha = next((a for pattern, a in self._patterns if pattern.match(name)), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def lora_layer(
    pair: LoraPair,
    load_a: Callable[[], HostArray],
    load_b: Callable[[], HostArray],
    scale: float,
    layer_id: int,
) -> Layer:
    """Make the layer that stands for a LoRA pair.

    Parameters
    ----------
    pair : LoraPair
        The pair; its halves fit.
    load_a, load_b : callable
        Read the halves.
    scale : float
        Factor on ``B @ A``.
    layer_id : int
        That of A.

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
        kind=LORA,
        shape=(min(rows, r), min(columns, r)),
        dtype="float64",
        layer_id=layer_id,
        key=pair.key_a,
        _loader=functools.partial(_load_core, load_a, load_b, scale),
    )


def _load_core(
    load_a: Callable[[], HostArray], load_b: Callable[[], HostArray], scale: float
) -> HostArray:
    return lora_core(load_a(), load_b(), scale)


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
    left, right = b.to_float64(), a.to_float64().T
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        # What Householder reflections make of an infinity is up to LAPACK.
        return HostArray(np.full((min(left.shape), min(right.shape)), np.nan), "float64")
    r_b = np.asarray(np.linalg.qr(left, mode="r"))
    r_a = np.asarray(np.linalg.qr(right, mode="r"))
    with np.errstate(all="ignore"):  # infinities are reported downstream
        return HostArray(np.asarray(scale * (r_b @ r_a.T)), "float64")
