"""Why a tensor is not analysed, as data: a code, what it is about, and the one home of its English.

To add a reason, add a `Reason` to the list below. Nothing else repeats it: reports group by the
code and print the sentence that the record makes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pyspectra._arrays import ARRAY_PROBLEMS, ArrayProblem
from pyspectra._support.dtypes import find
from pyspectra._support.text import counted

__all__ = ["REASONS", "Reason", "Skip", "SkippedLayer", "array_skip", "reasons_for_none"]


@dataclass(frozen=True)
class Reason:
    """One way in which a tensor is not analysed.

    Attributes
    ----------
    code : str
        What programs go by.
    text : str
        The sentence for people; names in braces are fields of a skip's detail.
    group : str
        The sentence for all tensors of a group, without what differs from one to the next; empty
        where `text` serves.
    failed : bool
        True if such a tensor should have been analysed, and could not be.
    aside : bool
        True if such a tensor is no matrix of the model, or one that another layer stands for.
    chosen : bool
        True if the options of the analysis leave such a tensor out, which could be analysed.
    compared : bool
        True if such a tensor was read and compared with that of the base model.
    """

    code: str
    text: str
    group: str = ""
    failed: bool = False
    aside: bool = False
    chosen: bool = False
    compared: bool = False


_LIST: Final = (
    # By its name or role the tensor is no weight.
    Reason("bias", "bias: not a weight matrix", aside=True),
    Reason("buffer", "not a weight: a buffer", aside=True),
    Reason("name", "not a weight: its name does not end in 'weight'"),
    Reason(
        "parametrized",
        "not a weight: a factor of a parametrized weight (pass the module to analyse the weight "
        "itself)",
    ),
    Reason(
        "factor",
        "a factor from which {weight} is computed",
        group="a factor from which a weight is computed",
        aside=True,
    ),
    Reason(
        "operand",
        "an operand of {op}: not a weight matrix",
        aside=True,
    ),
    Reason("foreign_operand", "an operand of {op}, an operator that is not known"),
    Reason("unused", "used by no node of the graph", aside=True),
    # It is no tensor, or one that cannot be read.
    Reason("not_a_tensor", "not a tensor: {type}", aside=True),
    Reason("not_an_array", "not an array", aside=True),
    Reason(
        "other_weights",
        "other weights of the checkpoint: key={key!r} chooses them",
        group="other weights of the checkpoint: key= chooses them",
        aside=True,
    ),
    Reason(
        "average_copy",
        "a moving average of the weights, beside them: key={key!r} chooses it",
        aside=True,
    ),
    Reason("training_state", "state of the training, not weights of the model", aside=True),
    Reason(
        "beside_model",
        "a tensor beside the model of the checkpoint, {model!r}",
        group="a tensor beside the model of the checkpoint",
        aside=True,
    ),
    Reason("cycle", "a mapping that holds itself: its tensors are listed once", aside=True),
    Reason("same_name", "another tensor of the source goes by the same name"),
    Reason("too_deep", "nested in more than {limit} mappings"),
    Reason(
        "folder",
        "weights of a sub-folder: not analysed with the model (pass the path of {path} to "
        "analyse them)",
        group="weights of a sub-folder: not analysed with the model",
        aside=True,
    ),
    Reason("object_array", "an object array: pickled objects are never loaded"),
    Reason("quantised_layer", "quantised layer ({type}): weights are not dequantised"),
    *(Reason(code, text) for code, (text, _) in ARRAY_PROBLEMS.items() if code != "dtype"),
    Reason(
        "quantised_misfit",
        "quantised ({scheme}), and cannot be dequantised: {problem}",
        group="quantised ({scheme}), and cannot be dequantised",
    ),
    Reason(
        "quantised_part",
        "belongs to the quantised weight {weight}, which cannot be dequantised",
        group="belongs to a quantised weight that cannot be dequantised",
        aside=True,
    ),
    Reason(
        "rank_piece",
        "a piece of a matrix that {count} ranks hold: no rule knows how it was cut",
        group="a piece of a matrix that several ranks hold: no rule knows how it was cut",
    ),
    Reason("quantised_unread", "packed by {method}, which is not dequantised"),
    Reason("unreadable", "cannot be read"),
    Reason("shape_unknown", "shape unknown"),
    # Its elements are of a type without a spectrum.
    Reason("boolean", "boolean tensor: not a weight matrix", aside=True),
    Reason("integer", "integer dtype {dtype}: quantised weights are not dequantised"),
    Reason(
        "low_precision",
        "low-precision dtype {dtype}: weights without their scales are not supported",
    ),
    Reason("complex", "complex dtype {dtype}: not supported"),
    Reason("dtype", "dtype {dtype}: not supported"),
    # Its shape makes no matrix.
    Reason("vector", "1-D tensor: no spectrum", aside=True),
    Reason("scalar", "scalar: no spectrum", aside=True),
    Reason(
        "one_axis",
        "a vector of shape {shape}: no spectrum",
        group="a vector, though of several axes: no spectrum",
        aside=True,
    ),
    Reason("empty", "empty tensor of shape {shape}", group="empty tensor", aside=True),
    Reason("no_rule", "no rule to turn a {rank}-D tensor of this layer type into matrices"),
    # Another layer stands for it.
    Reason(
        "shared",
        "shares its tensor with {same_as}",
        group="shares its tensor with another layer",
        aside=True,
    ),
    Reason(
        "equal",
        "equal to {same_as} in every byte: one weight under two names",
        group="equal to another layer in every byte",
        aside=True,
    ),
    Reason("lora_half", "half of the LoRA pair {pair}", group="half of a LoRA pair", aside=True),
    Reason("lora_alpha", "scale of the LoRA pair {pair}", group="scale of a LoRA pair", aside=True),
    Reason(
        "lora_shared",
        "half of the LoRA pair {pair}, which shares its tensors with {same_as}",
        group="half of a LoRA pair that shares its tensors with another",
        aside=True,
    ),
    Reason(
        "lora_core",
        "half of the LoRA pair {pair}, between whose halves lies a third tensor: not put together",
        group="half of a LoRA pair with a third tensor between: not put together",
    ),
    Reason(
        "lora_misfit",
        "halves of the LoRA pair {pair} do not fit: A has rank {rank_a}, B has rank {rank_b}",
        group="halves of a LoRA pair that do not fit",
    ),
    # Comparison with a base model.
    Reason("only_in_base", "only in base_model", aside=True),
    Reason("not_in_base", "not in base_model"),
    Reason(
        "shape_differs",
        "has shape {shape}, and {other} in base_model",
        group="has another shape in base_model",
    ),
    Reason("unchanged", "identical in base_model: nothing has changed", compared=True),
    Reason(
        "rounding",
        "differs from base_model by rounding alone: at most one spacing an entry",
        compared=True,
    ),
    Reason(
        "few_changed",
        "changed by {relative:.2g} of its norm; its {count} eigenvalues are fewer than "
        "min_evals = {limit}",
        group="changed, with fewer eigenvalues than min_evals = {limit}",
        compared=True,
    ),
    # Options of `analyze`.
    Reason("not_selected", "not selected by 'layers'", chosen=True),
    Reason(
        "few_evals",
        "{count} eigenvalues, fewer than min_evals = {limit}",
        group="fewer eigenvalues than min_evals = {limit}",
        chosen=True,
    ),
    Reason(
        "small_update",
        "a LoRA update of rank {rank}: fewer eigenvalues than min_evals = {limit}",
        group="a LoRA update of a rank below min_evals = {limit}",
        chosen=True,
    ),
    Reason(
        "many_evals",
        "{count} eigenvalues, more than max_evals = {limit}",
        group="more eigenvalues than max_evals = {limit}",
        chosen=True,
    ),
    # Reading failed, or would take all memory.
    Reason("link", "a link to another place or file, which is not followed"),
    Reason("elsewhere", "its elements lie in other files, which are not read", failed=True),
    Reason(
        "unpacks",
        "its {packed} bytes unpack to {unpacked}, over {limit} times as many (arrays that are "
        "stored as they are, as numpy.savez does, are read whatever their size)",
        group="unpacks to over {limit} times as many bytes",
        failed=True,
    ),
    Reason("not_finite", "holds NaN or infinity: it has no nearest integers", failed=True),
    Reason("read_failed", "could not be read: {error}", group="could not be read", failed=True),
)

REASONS: Final[Mapping[str, Reason]] = {reason.code: reason for reason in _LIST}
"""Code -> the record."""


@dataclass(frozen=True)
class Skip:
    """Why one tensor is not analysed.

    Attributes
    ----------
    code : str
        One of `REASONS`.
    detail : Mapping
        What the sentence speaks of, by name: text, numbers and tuples of them.

    Examples
    --------
    >>> print(Skip("few_evals", {"count": 3, "limit": 8}))
    3 eigenvalues, fewer than min_evals = 8
    """

    code: str
    detail: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return REASONS[self.code].text.format_map(self.detail)

    @property
    def group(self) -> str:
        """What all tensors of a group have in common, as a sentence."""
        reason = REASONS[self.code]
        return (reason.group or reason.text).format_map(self.detail)

    @property
    def failed(self) -> bool:
        """True if the tensor should have been analysed, and could not be."""
        return REASONS[self.code].failed


@dataclass(frozen=True)
class SkippedLayer:
    """A tensor that is not offered for analysis, and why.

    Attributes
    ----------
    name : str
        The key, without its trailing ``.weight``.
    shape : tuple of int or None
        None if the source does not tell.
    skip : Skip
        Why, as data.
    dtype : str or None
        Element type as the source spells it; None if that is not known.
    per_element : int
        Parameters of the model that one element stands for: eight in an int32 that packs numbers of
        four bits.
    is_part : bool
        Whether it is a part of a layer that is listed itself, such as q of a fused qkv.
    """

    name: str
    shape: tuple[int, ...] | None
    skip: Skip
    dtype: str | None = None
    per_element: int = 1
    is_part: bool = False

    @property
    def parameters(self) -> int | None:
        """Number of parameters that it stands for; None if the source does not tell its shape."""
        return None if self.shape is None else math.prod(self.shape) * self.per_element

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matrix of the model that is not analysed under another name either.

        Biases, norms, positions and masks are none, nor are tied weights, the halves of a LoRA pair
        and other models in the same checkpoint.
        """
        if REASONS[self.skip.code].aside or self.is_part or self.shape is None:
            return False
        if sum(n > 1 for n in self.shape) < 2 and self.per_element == 1:
            return False
        dtype = None if self.dtype is None else find(self.dtype)
        counts = dtype is not None and dtype.family in ("integer", "boolean")
        return not (self.skip.code == "name" and counts and self.per_element == 1)

    @property
    def reason(self) -> str:
        """Why, in English."""
        return str(self.skip)

    @property
    def failed(self) -> bool:
        """True if it should have been analysed, but could not be read."""
        return self.skip.failed

    @property
    def same_as(self) -> str | None:
        """Name of the layer that it shares its tensor with (tied weights), or None."""
        return self.skip.detail.get("same_as")


def array_skip(problem: ArrayProblem | None) -> Skip | None:
    """Say why an array cannot be read; None if it can, or if its element type is all there is.

    The element type is left to the catalogue, which knows what the tensor is for.
    """
    if problem is None or problem.code == "dtype":
        return None
    return Skip(problem.code, problem.detail)


def reasons_for_none(skipped: Sequence[SkippedLayer]) -> str:
    """Say why a source holds no weight matrix, as a relative clause."""
    if not skipped:
        return "which is empty"
    reasons = Counter(s.skip.group for s in skipped).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
    return f"which has none among its {counted(len(skipped), 'tensor')}: {listed}"
