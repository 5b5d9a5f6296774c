"""Where LoRA starts: the leading singular directions of the weight (PiSSA), or its QR (OLoRA)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from pyspectra._arrays import as_host
from pyspectra._support.arguments import check_choice, check_count, check_number
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.spectra.topk import svd_topk
from pyspectra.types import FloatArray, Value
from pyspectra.weights.kinds import CONV1D_GPT2, LINEAR, module_kind

__all__ = ["LoraStart", "init_lora", "olora", "pissa"]

# The error of a direction is about the root of that of its singular value.
_TOLERANCE: Final = 1e-12


@dataclass(frozen=True, eq=False)
class LoraStart(Value):
    """A weight in two parts: a low-rank product that is trained, and the rest, which is frozen.

    Attributes
    ----------
    A : ndarray of float64, shape (r, in)
        What LoRA's A starts with.
    B : ndarray of float64, shape (out, r)
        What LoRA's B starts with.
    residual : ndarray of float64, shape (out, in)
        The weight less ``scaling * B @ A``: what takes its place in the frozen model.
    share : float
        Squared Frobenius norm of ``scaling * B @ A`` over that of the weight: of PiSSA the part of
        the weight that the adapter holds. Zero for a weight of zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.finetune import pissa
    >>> start = pissa(np.diag([3.0, 1.0]), 1)
    >>> (start.B @ start.A).round(6).tolist(), start.residual.round(6).tolist()
    ([[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]])
    >>> round(start.share, 6)
    0.9
    """

    A: FloatArray = field(repr=False)
    B: FloatArray = field(repr=False)
    residual: FloatArray = field(repr=False)
    share: float


def pissa(W: Any, r: int, *, scaling: float = 1.0) -> LoraStart:
    """Start LoRA with the leading singular directions of a weight (PiSSA).

    Parameters
    ----------
    W : array or tensor
        Shape (out, in), of float16, bfloat16, float32 or float64, numpy or torch.
    r : int
        Rank of the adapter, at most ``min(out, in)``.
    scaling : float
        LoRA's factor on ``B @ A``: ``alpha / r``, or ``alpha / sqrt(r)`` of rsLoRA.

    Returns
    -------
    LoraStart

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or `W` is not finite.

    Notes
    -----
    With the r largest singular triplets s, U, V of W and the scaling c: ``B = U sqrt(s / c)``,
    ``A = sqrt(s / c) V^T``, residual ``W - c B A``. The triplets are those of `pyspectra.svd_topk`.

    References
    ----------
    Meng, Wang, Zhang, "PiSSA: principal singular values and singular vectors adaptation of large
    language models", NeurIPS 2024, arXiv 2404.02948.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.finetune import pissa
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> start = pissa(W, 8, scaling=2.0)
    >>> np.allclose(start.residual + 2.0 * start.B @ start.A, W)
    True
    >>> np.allclose(np.linalg.norm(start.residual, 2), np.linalg.svd(W)[1][8])  # the ninth
    True
    """
    return _start("pissa", W, r, scaling)


def olora(W: Any, r: int, *, scaling: float = 1.0) -> LoraStart:
    """Start LoRA with the first r columns of the weight's QR decomposition (OLoRA).

    Parameters
    ----------
    W : array or tensor
        Shape (out, in), of float16, bfloat16, float32 or float64, numpy or torch.
    r : int
        Rank of the adapter, at most ``min(out, in)``.
    scaling : float
        LoRA's factor on ``B @ A``: ``alpha / r``, or ``alpha / sqrt(r)`` of rsLoRA.

    Returns
    -------
    LoraStart

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, or `W` is not finite.

    Notes
    -----
    With ``W = Q R``: B is the first r columns of Q, A the first r rows of R, and the residual is
    ``W - c B A`` with the scaling c. B is orthonormal. It spans the first r columns of W, whichever
    inputs these belong to; for ``c = 1`` they are zero in the residual.

    References
    ----------
    Buyukakyuz, "OLoRA: orthonormal low-rank adaptation of large language models" (2024),
    arXiv 2406.01775.

    Examples
    --------
    >>> import numpy as np
    >>> from pyspectra.finetune import olora
    >>> W = np.random.default_rng(0).standard_normal((60, 40))
    >>> start = olora(W, 8)
    >>> np.allclose(start.B.T @ start.B, np.eye(8)), np.allclose(start.residual[:, :8], 0.0)
    (True, True)
    """
    return _start("olora", W, r, scaling)


def _start(function: str, W: Any, r: object, scaling: object) -> LoraStart:
    values = as_host(W, function=function, argument="W").to_float64()
    if values.ndim != 2 or values.size == 0:
        needed = "be a matrix that is not empty"
        raise ArgumentValueError(function, "W", needed, f"shape {values.shape}")
    if not np.isfinite(values).all():
        raise ArgumentValueError(function, "W", "be finite", "NaN or infinity")
    r = check_count(function, "r", r, most=min(values.shape))
    scaling = check_number(function, "scaling", scaling, above=0.0)
    A, B = _FACTORS[function](values, r, scaling)
    return _with_residual(values, A, B, scaling)


def _pissa(W: FloatArray, r: int, scaling: float) -> tuple[FloatArray, FloatArray]:
    top = svd_topk(W, r, tol=_TOLERANCE)
    root = np.sqrt(top.s / scaling)
    return root[:, None] * top.V.T, top.U * root


def _olora(W: FloatArray, r: int, scaling: float) -> tuple[FloatArray, FloatArray]:
    # The first columns of Q depend on no other columns of W than these.
    Q = np.linalg.qr(W[:, :r])[0]
    return Q.T @ W, Q


_FACTORS: Final = {"pissa": _pissa, "olora": _olora}


def _with_residual(W: FloatArray, A: FloatArray, B: FloatArray, scaling: float) -> LoraStart:
    product = scaling * (B @ A)
    # Relative to the largest entry, since squares of extreme ones leave the range of float64.
    largest = float(np.max(np.abs(W))) or 1.0
    whole = float(np.linalg.norm(W / largest)) or 1.0
    share = (float(np.linalg.norm(product / largest)) / whole) ** 2
    return LoraStart(A, B, W - product, share)


def init_lora(
    model: nn.Module, method: str = "pissa", *, adapter: str | None = None
) -> dict[str, float]:
    """Set a PEFT model's fresh LoRA adapter to PiSSA or OLoRA, in place.

    Parameters
    ----------
    model : torch.nn.Module
        A model of ``peft.get_peft_model`` whose adapter has not been trained. Its LoRA weights and
        the frozen weights below them change; what it computes does not.
    method : {"pissa", "olora"}
        Which start.
    adapter : str, optional
        Name of the adapter; by default the only one.

    Returns
    -------
    dict of str to float
        Name of each layer that was set -> ``LoraStart.share`` of it. Adapters of embeddings and
        convolutions keep their start.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        If it has no such adapter on a linear layer; or if a layer has another adapter, a merged or
        trained one, a rank beyond its size, no positive scaling, or a weight that is quantised, not
        finite or tied.
        Nothing has been changed then.

    Notes
    -----
    PEFT's ``LoraConfig(init_lora_weights="pissa")`` and ``"olora"`` give the same products and the
    same residuals within rounding. Here triplets come from `pyspectra.svd_topk` instead of whole
    decompositions, layers that are stored transposed (GPT-2) are transposed for OLoRA too, and the
    residual makes up for the rounding of A and B in 16 bits. The configuration says `method`
    afterwards: PEFT then saves, loads and converts the adapter as its own, and
    ``docs/compression.md`` tells how.

    References
    ----------
    Meng et al. (2024), arXiv 2404.02948; Buyukakyuz (2024), arXiv 2406.01775.

    Examples
    --------
    >>> import torch
    >>> from pyspectra.finetune import init_lora
    >>> class Adapted(torch.nn.Module):  # what PEFT makes of a linear layer, in short
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.base_layer, self.scaling = torch.nn.Linear(6, 5), {"default": 2.0}
    ...         self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(6, 3, bias=False)})
    ...         self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(3, 5, bias=False)})
    ...         torch.nn.init.zeros_(self.lora_B["default"].weight)
    ...     def forward(self, x):
    ...         low = self.lora_B["default"](self.lora_A["default"](x))
    ...         return self.base_layer(x) + 2.0 * low
    >>> model, x = torch.nn.ModuleDict({"fc": Adapted()}), torch.randn(4, 6)
    >>> before = model["fc"](x)
    >>> [*init_lora(model, "pissa")]
    ['fc']
    >>> torch.allclose(model["fc"](x), before, atol=1e-5)
    True
    """
    if not isinstance(model, nn.Module):
        got = f"an object of type {type(model).__name__}"
        raise ArgumentTypeError("init_lora", "model", "be a torch.nn.Module", got)
    method = check_choice("init_lora", "method", method, [*_FACTORS])
    name = _adapter(model, adapter)
    layers = [*_adapted(model, name)]
    if not layers:
        got = f"none with the adapter {name!r}"
        raise ArgumentValueError("init_lora", "model", "have linear layers with LoRA", got)
    counts = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for layer in layers:
        complaint = layer.complaint(counts)
        if complaint is not None:
            needed, got = complaint
            raise ArgumentValueError("init_lora", "model", needed, f"{got} in {layer.name!r}")
    shares = {layer.name: layer.set(method) for layer in layers}
    config = getattr(model, "peft_config", {})
    if name in config:
        config[name].init_lora_weights = method
    return shares


def _adapter(model: nn.Module, adapter: object) -> str:
    """Return the name of the adapter that is meant."""
    found: dict[str, None] = {}
    for module in model.modules():
        halves = getattr(module, "lora_A", None)
        if isinstance(halves, nn.ModuleDict):
            found.update(dict.fromkeys(halves))
    if adapter is None and len(found) == 1:
        return next(iter(found))
    if adapter is None:
        needed = "have one LoRA adapter"
        hint = "name one with adapter" if found else "peft.get_peft_model adds one"
        raise ArgumentValueError("init_lora", "model", needed, f"{[*found]}", hint)
    return check_choice("init_lora", "adapter", adapter, [*found])


@dataclass(frozen=True)
class _Adapted:
    """A linear layer of PEFT with an adapter."""

    name: str
    module: Any
    base: nn.Module
    adapter: str
    transposed: bool

    @property
    def A(self) -> Tensor:
        weight: Tensor = self.module.lora_A[self.adapter].weight
        return weight

    @property
    def B(self) -> Tensor:
        weight: Tensor = self.module.lora_B[self.adapter].weight
        return weight

    @property
    def W(self) -> Tensor:
        """The frozen weight, one row for each output."""
        weight: Tensor = self.base.weight.detach()  # type: ignore[operator]
        return weight.T if self.transposed else weight

    def complaint(self, counts: Mapping[int, int]) -> tuple[str, str] | None:
        """Return what the layer must do and what it does, or None if it can be set.

        `counts` tells how often the model has a parameter, by its identity.
        """
        W, rank = self.W, len(self.A)
        scaling = float(self.module.scaling[self.adapter])
        shape = (len(self.B), self.A.shape[1])
        if not W.is_floating_point() or W.shape != shape:
            return "have floating-point weights", f"{W.dtype} of shape {tuple(W.shape)}"
        if rank > min(shape):
            return "have no rank beyond the size of a layer", f"rank {rank} of shape {shape}"
        if len(self.module.lora_A) > 1:
            return "have one adapter a layer", f"{[*self.module.lora_A]}"
        if not scaling > 0.0:
            return "have a positive lora_alpha", f"a scaling of {scaling:g}"
        if getattr(self.module, "merged", False):
            return "have no merged adapter", "one"
        if bool(torch.any(self.B != 0)):
            return "have an adapter that was not trained", "B that is not zero"
        if counts[id(self.base.weight)] > 1:
            return "share no weight that is to change", "a tied weight"
        if not bool(torch.isfinite(W).all()):
            return "be finite", "NaN or infinity"
        return None

    def set(self, method: str) -> float:
        """Write A, B and the residual; return the share of the weight in ``B @ A``."""
        scaling = float(self.module.scaling[self.adapter])
        W = as_host(self.W, function="init_lora", argument="model").to_float64()
        halves = zip((self.A, self.B), _FACTORS[method](W, len(self.A), scaling), strict=True)
        with torch.no_grad():
            for parameter, values in halves:
                parameter.copy_(torch.from_numpy(values))
            A, B = (parameter.double().cpu().numpy() for parameter in (self.A, self.B))
            start = _with_residual(W, A, B, scaling)
            self.W.copy_(torch.from_numpy(start.residual))
        return start.share


def _adapted(model: nn.Module, adapter: str) -> Iterator[_Adapted]:
    """Yield the linear layers that have the adapter."""
    for name, module in model.named_modules():
        base = getattr(module, "base_layer", None)
        halves = getattr(module, "lora_A", None)
        if not isinstance(base, nn.Module) or not isinstance(halves, nn.ModuleDict):
            continue
        while isinstance(inner := getattr(base, "base_layer", None), nn.Module):
            base = inner
        kind = module_kind(base, "weight")
        if adapter in halves and kind in (LINEAR.name, CONV1D_GPT2.name):
            yield _Adapted(name, module, base, adapter, kind == CONV1D_GPT2.name)
