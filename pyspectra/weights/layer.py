"""Layers: named weights whose elements are read on demand, and the kinds they come in."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pyspectra._arrays import Allocate, HostArray, Loader
from pyspectra.errors import FormatError, PyspectraError

__all__ = ["Layer", "guess_kind", "is_weight_key", "layer_name"]

LINEAR: Final = "linear"
EMBEDDING: Final = "embedding"
CONV1D_GPT2: Final = "conv1d_gpt2"  # Hugging Face `Conv1D`: a linear layer stored transposed
CONV1D: Final = "conv1d"
CONV2D: Final = "conv2d"
CONV3D: Final = "conv3d"
CONV_TRANSPOSE1D: Final = "conv_transpose1d"
CONV_TRANSPOSE2D: Final = "conv_transpose2d"
CONV_TRANSPOSE3D: Final = "conv_transpose3d"
GROUPED: Final = "_grouped"  # suffix: 1 < groups < channels; depthwise keeps the plain kind
ATTENTION_IN_PROJ: Final = "attention_in_proj"
RNN: Final = "rnn"
EXPERT_STACK: Final = "expert_stack"
LORA: Final = "lora"  # derived: stands for the product of a LoRA pair
VECTOR: Final = "vector"
SCALAR: Final = "scalar"
INTEGER: Final = "integer"
UNKNOWN: Final = "unknown"

WEIGHT_SUFFIX: Final = ".weight"

_RNN_KEY = re.compile(r"(?:^|\.)weight_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?$")
_IN_PROJ_KEY = re.compile(r"(?:^|\.)in_proj_weight$")
_SPLIT_IN_PROJ_KEY = re.compile(r"(?:^|\.)[qkv]_proj_weight$")
# The halves of a LoRA pair of an embedding, as PEFT names them: module, half, adapter.
LORA_EMBEDDING_KEY = re.compile(r"(?:(.+)\.)?lora_embedding_([AB])(?:\.([^.]+))?", re.DOTALL)
_EMBEDDING_PART = re.compile(
    r"(?:^|_)(?:emb|embs|embed|embeds|embedding|embeddings)(?:_(?:tokens|positions|in))?$"
    r"|^(?:wte|wpe|relative_attention_bias)$"
)


@dataclass(frozen=True)
class Layer:
    """One weight tensor of a model, or a matrix derived from it: what it is, and how to read it.

    Attributes
    ----------
    name : str
        The key without its trailing ``.weight``; of a part, the name of the whole and what part
        it is, e.g. ``"attn.c_attn[q]"``; of a LoRA pair, ``"q_proj[lora BA]"``.
    kind : str
        What the tensor is, e.g. ``"linear"``, ``"conv2d"``, ``"embedding"``; picks the rule that
        turns it into matrices.
    shape : tuple of int
        As stored.
    dtype : str
        ``"float16"``, ``"bfloat16"``, ``"float32"`` or ``"float64"``.
    layer_id : int
        1-based position among all weights of the source, 1-D ones included; of a derived layer,
        that of the tensor in `key`.
    key : str
        The tensor's name in its source; of a part the whole's, of a LoRA pair that of A.
    part_of : str or None
        Name of the layer that this one is a part of: one of query, key and value, or a gate. The
        whole is a layer of its own. None for anything else.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    layer_id: int
    key: str
    _loader: Callable[[], HostArray] | Loader = field(repr=False, compare=False)
    part_of: str | None = None

    def load(self, allocate: Allocate | None = None) -> HostArray:
        """Read the elements of this tensor, and of no other, now.

        Parameters
        ----------
        allocate : callable, optional
            Takes a shape and a numpy dtype and returns memory that elements from a file are read
            into: whoever sends them on to a device has memory of its own. By default
            `numpy.empty`. Elements that are in memory already stay where they are.

        Returns
        -------
        HostArray
            Of the declared shape and dtype. Fresh memory when read from a file or computed from
            a LoRA pair; a view of the tensor's memory when the source is a model or a state dict
            in host memory. A part is a view of its whole, which is read with it.

        Raises
        ------
        FormatError
            If the tensor cannot be read, or is no longer what it was when the source was opened.
        """
        try:
            loader = self._loader
            array = loader.load(allocate) if isinstance(loader, Loader) else loader()
        except PyspectraError:
            raise
        except Exception as error:  # whatever a reader meets: one layer must not lose the rest
            reason = str(error) or type(error).__name__
            raise FormatError(f"layer {self.key!r} cannot be read: {reason}") from error
        if array.shape != self.shape or array.dtype != self.dtype:
            raise FormatError(
                f"layer {self.key!r} changed since the source was opened: was {self.dtype} "
                f"{self.shape}, is {array.dtype} {array.shape}. Hint: open the source again."
            )
        return array

    def load_with_floor(self, allocate: Allocate | None = None) -> tuple[HostArray, float | None]:
        """Do what `load` does, and tell below which eigenvalue there is rounding alone.

        Returns
        -------
        array : HostArray
        floor : float or None
            Of a difference of two models; None for stored weights, which have no such floor.
        """
        return self.load(allocate), None


def layer_name(key: str) -> str:
    """Strip the trailing ``.weight`` of a key, if it has one."""
    return key.removesuffix(WEIGHT_SUFFIX) or key


def is_weight_key(key: str, shape: tuple[int, ...] | None) -> bool:
    """Tell whether a tensor counts as a weight by its name.

    Parameters
    ----------
    key : str
        Name of the tensor in its source.
    shape : tuple of int or None
        Its shape: stacks of experts are often named ``experts.down_proj`` without a suffix, and
        their rank tells them from biases.

    Returns
    -------
    bool
        True for ``*.weight``, attention in-projections, recurrent weights, the halves of LoRA
        pairs of embeddings and expert stacks.
    """
    return (
        key.endswith(WEIGHT_SUFFIX)
        or key == "weight"
        or any(p.search(key) for p in (_IN_PROJ_KEY, _SPLIT_IN_PROJ_KEY, _RNN_KEY))
        or LORA_EMBEDDING_KEY.fullmatch(key) is not None
        or (shape is not None and len(shape) == 3 and "expert" in key and not is_bias_key(key))
    )


def is_bias_key(key: str) -> bool:
    """Tell whether a name ends like a bias: ``bias``, ``bias_ih_l0``, ``up_proj_bias``."""
    last = key.rpartition(".")[2]
    return last.endswith("bias") or last.startswith("bias_")


def guess_kind(key: str, shape: tuple[int, ...]) -> str:
    """Guess what a floating-point tensor is from its name and rank.

    Parameters
    ----------
    key : str
        Name of the tensor in its source.
    shape : tuple of int
        Its shape.

    Returns
    -------
    str
        A kind; ``"unknown"`` for a rank above five.
    """
    rank = len(shape)
    if rank == 2:
        if _RNN_KEY.search(key):
            return RNN
        if _IN_PROJ_KEY.search(key):
            return ATTENTION_IN_PROJ
        last = layer_name(key).rpartition(".")[2]
        return EMBEDDING if _EMBEDDING_PART.search(last) else LINEAR
    if rank == 3:
        return EXPERT_STACK if "expert" in key else CONV1D
    return {0: SCALAR, 1: VECTOR, 4: CONV2D, 5: CONV3D}.get(rank, UNKNOWN)
