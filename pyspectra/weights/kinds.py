"""The kinds of layers: one record each, from which everything that depends on the kind derives.

A record says what the axes of the stored tensor mean, and the matrices follow: an ``"out"`` and an
``"in"`` axis span a matrix, and there is one matrix for each position along the other axes. It also
says by what a source recognises the kind, and what WeightWatcher calls it. To add a kind, add its
record to `KINDS`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = [
    "KINDS",
    "UNKNOWN",
    "Guess",
    "Kind",
    "guess_kind",
    "is_bias_key",
    "is_weight_key",
    "kernel_parts",
    "layer_name",
    "module_kind",
]

WEIGHT_SUFFIX: Final = ".weight"
UNKNOWN: Final = "unknown"
"""What a source calls a tensor that it knows to be of no kind below."""

OUT: Final = "out"
IN: Final = "in"
_SPATIAL: Final = ("depth", "height", "width")


@dataclass(frozen=True)
class Kind:
    """What a weight tensor is.

    Attributes
    ----------
    name : str
        Its name, as in ``Layer.kind`` and in reports.
    axes : tuple of str
        Meaning of each axis in PyTorch's layout. A source that stores them in another order gives
        every layer its own (``Layer.axes``).
    weightwatcher_name : str
        WeightWatcher's ``layer_type``; empty if it is `name`.
    guess : re.Pattern or None
        Pattern that is found in the keys of such tensors, where a source tells only name and rank.
        The first kind of the list that fits is taken. None if names never tell.
    bare : re.Pattern or None
        Found in keys that name a weight of this kind although they do not end in ``.weight``.
    modules : tuple of str
        Classes of modules whose parameter it is: package and class, e.g. ``"torch.nn.Linear"``.
    parameter : str
        Regular expression that matches the parameter's name in such a module.
    grouped : bool
        True if it is that parameter of modules with several groups of several channels only.
    """

    name: str
    axes: tuple[str, ...]
    weightwatcher_name: str = ""
    guess: re.Pattern[str] | None = None
    bare: re.Pattern[str] | None = None
    modules: tuple[str, ...] = ()
    parameter: str = "weight"
    grouped: bool = False

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def layer_type(self) -> str:
        """WeightWatcher's name of the kind."""
        return self.weightwatcher_name or self.name


_ANY: Final = re.compile("")
_RNN_KEY: Final = re.compile(r"(?:^|\.)weight_(?:ih|hh|hr)(?:_l\d+(?:_reverse)?)?$")
_IN_PROJ_KEY: Final = re.compile(r"(?:^|\.)in_proj_weight$")
# The halves of a LoRA pair of an embedding, as PEFT names them: module, half, adapter.
LORA_EMBEDDING_KEY: Final = re.compile(
    r"(?:(?P<module>.+)\.)?lora_embedding_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?", re.DOTALL
)
_EMBEDDING_KEY: Final = re.compile(
    r"(?:^|[._])(?:emb|embs|embed|embeds|embedding|embeddings)(?:_(?:tokens|positions|in))?"
    r"(?:\.weight)?$|(?:^|\.)(?:wte|wpe|shared|relative_attention_bias)(?:\.weight)?$"
)
# With the number behind it in "experts.0." or "expert_0." that makes it one expert.
_EXPERT_KEY: Final = re.compile(
    r"(?:expert|(?<![a-z])exps)[a-z]*(?P<number>(?:[._]?\d+)(?![^.]))?", re.IGNORECASE
)
# Parameters of modules that hold several weights: `fc1_weight`, `dt_proj_weight`.
_WEIGHT_NAME: Final = re.compile("_weight$")
_BILINEAR_KEY: Final = re.compile("bilinear", re.IGNORECASE)
_CONVOLUTION_KEY: Final = re.compile("conv", re.IGNORECASE)
_LONGEST_KERNEL: Final = 64

# What Keras and JAX call their weights, with the name of the layer before it.
_KERNEL_KEY: Final = re.compile(
    r"(?P<owner>.*[./])?(?P<variable>(?:recurrent_|depthwise_|pointwise_)?kernel|embeddings?)",
    re.DOTALL,
)
_KERNEL_SUFFIX: Final = re.compile(r"(?<=.)[./](?:kernel|embeddings?)\Z", re.DOTALL)

RNN: Final = Kind(
    "rnn",
    (OUT, IN),
    guess=_RNN_KEY,
    bare=_RNN_KEY,
    modules=("torch.nn.RNNBase", "torch.nn.RNNCellBase"),
    parameter="weight_.*",
)
ATTENTION_IN_PROJ: Final = Kind(
    "attention_in_proj",
    (OUT, IN),
    guess=_IN_PROJ_KEY,
    bare=_IN_PROJ_KEY,
    modules=("torch.nn.MultiheadAttention",),
    parameter="in_proj_weight",
)
EMBEDDING: Final = Kind(
    "embedding",
    (IN, OUT),
    guess=_EMBEDDING_KEY,
    modules=("torch.nn.Embedding", "torch.nn.EmbeddingBag"),
)
LINEAR: Final = Kind(
    "linear",
    (OUT, IN),
    weightwatcher_name="dense",
    guess=_ANY,
    bare=re.compile(rf"{_WEIGHT_NAME.pattern}|^{LORA_EMBEDDING_KEY.pattern}\Z", re.DOTALL),
    modules=("torch.nn.Linear",),
)
# Hugging Face's `Conv1D` is a linear layer stored transposed.
CONV1D_GPT2: Final = Kind(
    "conv1d_gpt2", (IN, OUT), weightwatcher_name="conv1d", modules=("transformers.Conv1D",)
)
# Derived: it stands for the product of a LoRA pair.
LORA: Final = Kind("lora", (OUT, IN))
EXPERT_STACK: Final = Kind(
    "expert_stack",
    ("expert", OUT, IN),
    guess=_EXPERT_KEY,
    bare=re.compile(rf"{_EXPERT_KEY.pattern}|{_WEIGHT_NAME.pattern}", re.IGNORECASE),
)


def _convolutions(n: int) -> tuple[Kind, ...]:
    """Return the kinds of convolutions with `n` spatial axes.

    The groups of a grouped convolution stay stacked along the first axis, as stored; a depthwise
    one, with one channel a group, keeps the plain kind.
    """
    positions = _SPATIAL[-n:]
    plain = Kind(
        f"conv{n}d",
        (OUT, IN, *positions),
        guess=_ANY,
        bare=_WEIGHT_NAME if n > 1 else None,
        modules=(f"torch.nn.Conv{n}d",),
    )
    transposed = Kind(
        f"conv_transpose{n}d", (IN, OUT, *positions), modules=(f"torch.nn.ConvTranspose{n}d",)
    )
    grouped = [
        replace(
            kind,
            name=f"{kind.name}_grouped",
            weightwatcher_name=kind.name,
            guess=None,
            bare=None,
            grouped=True,
        )
        for kind in (plain, transposed)
    ]
    return (plain, transposed, *grouped)


_LIST: Final = (
    RNN,
    ATTENTION_IN_PROJ,
    EMBEDDING,
    LINEAR,
    CONV1D_GPT2,
    LORA,
    EXPERT_STACK,
    *_convolutions(1),
    *_convolutions(2),
    *_convolutions(3),
)
KINDS: Final[dict[str, Kind]] = {kind.name: kind for kind in _LIST}
"""Name -> the record. Where several could be guessed, the first one is."""

# The kinds that modules tell, and those whose weight makes no matrices.
_MODULES: Final = (
    *_LIST,
    *(Kind(UNKNOWN, (), modules=("torch.nn.Bilinear",), grouped=g) for g in (False, True)),
)
# Name of a class -> the package that it may come from, and the places of the kinds in `_MODULES`.
_CLASSES: Final[dict[str, list[tuple[str, int]]]] = {}
for _place, _kind in enumerate(_MODULES):
    for _class in _kind.modules:
        _package, _, _short = _class.rpartition(".")
        _CLASSES.setdefault(_short, []).append((f"{_package}.", _place))


def matrix_indices(axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[tuple[Any, ...], ...]:
    """Return the basic indices that cut a tensor into its matrices.

    Parameters
    ----------
    axes : tuple of str
        Meaning of each axis: one ``"out"``, one ``"in"``, others.
    shape : tuple of int
        Their lengths.

    Returns
    -------
    tuple of tuple
        One index for each position along the other axes, in row-major order.
    """
    whole = (slice(None),)
    choices = [
        whole if axis in (OUT, IN) else range(n) for axis, n in zip(axes, shape, strict=True)
    ]
    return tuple(itertools.product(*choices))


def layer_name(key: str) -> str:
    """Strip the trailing ``.weight`` of a key, or ``.kernel`` and the like, if it has one."""
    if key.endswith(WEIGHT_SUFFIX):
        return key.removesuffix(WEIGHT_SUFFIX) or key
    return _KERNEL_SUFFIX.sub("", key)


def kernel_parts(key: str) -> tuple[str, str]:
    """Part the name of a weight of Keras or JAX into that of its layer and its own.

    Parameters
    ----------
    key : str
        E.g. ``"encoder.dense.kernel"`` or ``"params/Dense_0/kernel"``.

    Returns
    -------
    owner : str
        With the separator at its end, e.g. ``"encoder.dense."``; empty if there is none.
    variable : str
        E.g. ``"kernel"``; empty if the name is none of theirs.
    """
    match = _KERNEL_KEY.fullmatch(key)
    return ("", "") if match is None else (match["owner"] or "", match["variable"])


def _last(key: str) -> str:
    return key[max(key.rfind("."), key.rfind("/")) + 1 :]


def is_bias_key(key: str) -> bool:
    """Tell whether a name ends like a bias: ``bias``, ``bias_ih_l0``, ``up_proj_bias``."""
    last = _last(key)
    return last.endswith("bias") or last.startswith("bias_")


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
        True for ``*.weight``, for ``kernel`` and ``embedding`` of Keras and JAX, and for names that
        a kind knows as those of its weights.
    """
    if key.endswith(WEIGHT_SUFFIX) or key == "weight":
        return True
    if is_bias_key(key):
        return False
    variable = kernel_parts(key)[1]
    if variable and (
        shape is None or len(shape) == 2 or (len(shape) > 2 and variable.endswith("kernel"))
    ):
        return True
    return any(
        kind.bare is not None
        and kind.bare.search(key) is not None
        and (shape is None or len(shape) == kind.rank)
        for kind in _LIST
    )


@dataclass(frozen=True)
class Guess:
    """What a tensor is by its name and shape.

    Attributes
    ----------
    name : str
        The name of a kind; ``"unknown"`` if none has this rank.
    others : tuple of str
        Kinds that would make other matrices, and that name and shape allow as well.
    """

    name: str
    others: tuple[str, ...] = ()


def guess_kind(key: str, shape: tuple[int, ...]) -> Guess:
    """Guess what a floating-point tensor is from its name and shape.

    Parameters
    ----------
    key : str
        Name of the tensor in its source.
    shape : tuple of int
        Its shape.

    Returns
    -------
    Guess

    Notes
    -----
    Kinds of two axes make the same matrix, if need be transposed, and so do those of four and
    five. With three axes a tensor is slices along the last (a convolution) or along the first (a
    stack of experts), whose spectra have nothing in common.
    """
    if len(shape) == 3:
        return _guess_of_three_axes(key, shape)
    for kind in _LIST:
        if kind.guess is not None and kind.rank == len(shape) and kind.guess.search(key):
            return Guess(kind.name)
    return Guess(UNKNOWN)


def _guess_of_three_axes(key: str, shape: tuple[int, ...]) -> Guess:
    conv, stack = Guess("conv1d"), Guess(EXPERT_STACK.name)
    if _BILINEAR_KEY.search(key):
        return Guess(UNKNOWN)  # as in a module
    expert = next(reversed([*_EXPERT_KEY.finditer(key)]), None)
    if _CONVOLUTION_KEY.search(key if expert is None else key[expert.end() :]):
        return conv
    if expert is None and _WEIGHT_NAME.search(key):
        return stack  # the weight of a convolution is a module's `.weight`
    if expert is None:
        # Kernels are short, and matrices are not.
        if min(shape[1:]) > _LONGEST_KERNEL:
            return replace(stack, others=(conv.name,))
        return replace(conv, others=(stack.name,))
    if expert["number"] and layer_name(key) != key:
        # ModuleList([Conv1d(...), ...]): the weight of one expert, which is no stack.
        return replace(conv, others=(stack.name,))
    return stack


def module_kind(module: Any, parameter: str) -> str | None:
    """Tell the kind of a parameter by the class of its module.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    parameter : str
        Name of the parameter in it.

    Returns
    -------
    str or None
        The name of a kind, ``"unknown"`` for a weight that makes no matrices; None if the class
        tells nothing.
    """
    grouped = 1 < getattr(module, "groups", 1) < getattr(module, "in_channels", 0)
    # By the names of classes, since nothing is imported here.
    known = [
        i
        for base in type(module).__mro__
        for package, i in _CLASSES.get(base.__name__, ())
        if f"{base.__module__}.".startswith(package) and _MODULES[i].grouped == grouped
    ]
    if not known:
        return None
    kind = _MODULES[min(known)]
    return kind.name if re.fullmatch(kind.parameter, parameter) else None
