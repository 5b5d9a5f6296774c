"""What passes through the model: its inputs and outputs, its mode, and its activations."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyspectra.training.collect.counters import Counter
from pyspectra.training.collect.entering import Entering, FirstRows
from pyspectra.training.rules.facts import FirstInputs, LossCurve, Scales, Units

_ACTIVATIONS: dict[Any, str] = {
    functional.relu: "relu", torch.relu: "relu", torch.relu_: "relu", Tensor.relu: "relu",
    functional.relu6: "relu", functional.gelu: "gelu", functional.silu: "silu",
    functional.tanh: "tanh", torch.tanh: "tanh", Tensor.tanh: "tanh",
    functional.sigmoid: "sigmoid", torch.sigmoid: "sigmoid", Tensor.sigmoid: "sigmoid",
    functional.leaky_relu: "leaky_relu", functional.elu: "elu",
}  # fmt: skip
_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d,
                 functional.conv1d, functional.conv2d, functional.conv3d}  # fmt: skip
_NORMS = {functional.batch_norm, functional.layer_norm, functional.group_norm,
          torch.batch_norm, torch.layer_norm, torch.group_norm,
          functional.instance_norm}  # fmt: skip
MOST_PARTS = 4096
"""Passes forward that are remembered until the optimizer steps."""

MOST_MARKED = 1 << 20
"""Elements of an output that is looked through in every step where nobody has to wait for it."""


class ActivationMode(TorchFunctionMode):
    """Look at every activation of one forward pass, functions and modules alike."""

    def __init__(self, collector: ActivationCollector) -> None:
        super().__init__()
        self._collector = collector

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._collector.saw(func, args, kwargs or {}, out)
        return out


class ActivationCollector:
    """Counters of the activations of a model, named after the weight before each."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._counters: dict[str, Counter] = {}
        self._seen: dict[str, int] = {}
        self._weight = ""
        self._convolution = False
        self._last_output: tuple[str, int] | None = None
        self.follows: dict[str, str] = {}
        self.normalized: set[str] = set()
        self.first_rows = FirstRows()
        self.first_weight = ""

    def begin(self) -> None:
        """Begin a forward pass."""
        self._seen.clear()
        self._weight, self._convolution = "", False
        self._last_output = None

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        """Look at one operation."""
        activation = _ACTIVATIONS.get(func)
        if activation is not None:
            self._activation(activation, out)
        elif func is functional.linear or func in _CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            first, self._weight = not self._weight, self._names.get(id(weight), "")
            if first:
                self.first_weight = self._weight
                self.first_rows.add(args[0] if args else None)
            self._convolution = func in _CONVOLUTIONS
        elif func in _NORMS and self._weight:
            self.normalized.add(self._weight)

    def first_inputs(self, step: int) -> FirstInputs | None:
        """Return what entered the first weights, once, when enough of it was seen."""
        return self.first_rows.taken(step, self.first_weight in self.normalized)

    def _activation(self, activation: str, out: Tensor) -> None:
        owner = self._weight.removesuffix(".weight") or activation
        count = self._seen[owner] = self._seen.get(owner, 0) + 1
        name = owner if count == 1 else f"{owner} ({count})"
        if self._weight:
            self.follows.setdefault(self._weight, activation)
        if out.dim() < 2 or not out.is_floating_point() or out.numel() == 0:
            return
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = Counter(activation)
        counter.add(out, 1 if self._convolution or out.dim() > 3 else out.dim() - 1)
        self._last_output = name, out.data_ptr()

    def end(self, output: Any) -> None:
        """End a forward pass: an activation that is the output is not a hidden one."""
        if self._last_output is not None and isinstance(output, Tensor):
            name, pointer = self._last_output
            self._counters[name].is_output = output.data_ptr() == pointer

    def units(self, step: int, curve: LossCurve | None) -> list[Units]:
        """Return what was counted so far."""
        return [c.units(name, step, curve) for name, c in self._counters.items()]

    def scales(self, step: int) -> Scales:
        """Return the standard deviations of the activations."""
        rows = self.units(step, None)
        return Scales(step, {u.name: u.std for u in rows if not u.is_output})

    @property
    def n_batches(self) -> int:
        """Batches that were counted."""
        return max((c.n_batches for c in self._counters.values()), default=0)

    @property
    def n_samples(self) -> int:
        """Samples that were counted, of the activation with the fewest."""
        return min((c.n_samples for c in self._counters.values()), default=0)

    def reset(self) -> None:
        """Begin to count again."""
        self._counters.clear()


def first_tensor(value: Any) -> Tensor | None:
    """Return the predictions in what a model returned: a tensor, a tuple, a ModelOutput."""
    if isinstance(value, Tensor):
        return value
    logits = getattr(value, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    items: Any = value.values() if isinstance(value, dict) else value
    if isinstance(items, (list, tuple)) or isinstance(value, dict):
        return next((v for v in items if isinstance(v, Tensor) and v.dim() > 0), None)
    return None


def classes_last(outputs: Tensor, targets: Any) -> Tensor | None:
    """Return the scores of a classifier with the classes as their last axis.

    Parameters
    ----------
    outputs : Tensor, shape (N, K), (N, K, ...) or (N, ..., K)
        The second is what torch's losses take, the third what sequence models return.
    targets : Tensor
        Class numbers, one for each row of scores, flattened or not; or shares of the classes.

    Returns
    -------
    Tensor or None
        None where the targets belong to neither form.
    """
    if outputs.dim() < 2 or not isinstance(targets, Tensor):
        return None
    shape = tuple(targets.shape)
    second, last = (outputs.shape[0], *outputs.shape[2:]), tuple(outputs.shape[:-1])
    if shape == second or shape == tuple(outputs.shape):
        return outputs.movedim(1, -1)
    flat = len(shape) == 1 and targets.numel() == outputs[..., 0].numel()
    return outputs if shape == last or flat else None


def unwrapped(model: Any) -> Any:
    """Return the model itself, out of DistributedDataParallel and compiled wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def is_compiled(model: Any) -> bool:
    """Tell whether a model, or a part of it, runs as a compiled graph."""
    if hasattr(model, "_orig_mod"):
        return True
    return any(
        getattr(m, "_compiled_call_impl", None) is not None or hasattr(m, "_orig_mod")
        for m in model.modules()
    )


@dataclass(frozen=True)
class Call:
    """What a model was called with: references, no copies."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    device: str
    dtype: torch.dtype | None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the autocast of the call."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, self.dtype)


def _call(args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor | None) -> Call:
    device = "cpu" if x is None else x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return Call(args, dict(kwargs), device, dtype)


class ForwardCollector:
    """Hooks on the whole model: what went in and came out, and how it stood.

    Attributes
    ----------
    inputs, output : Tensor or None
        What went into the last pass and came out, detached, while `keep` is set.
    loss : Tensor or None
        What a model that computes its own loss returned.
    last_call : Call or None
        How the model was called in the last pass with gradients.
    entering : Entering
        What went into the model in training and in evaluations, of a few batches.
    output_node : graph node or None
        What made the last output, while `keep` is set.
    mark : Tensor or None
        A scalar that is finite if all outputs since it was last taken are; not every pass counts.
    unasked : bool
        A pass without gradients had modules in training mode.
    """

    def __init__(
        self,
        model: Any,
        names: dict[int, str],
        sample: Callable[[], bool],
        due: Callable[[], bool],
    ) -> None:
        self.activations = ActivationCollector(names)
        self.keep = True
        self.inputs: Tensor | None = None
        self.output: Tensor | None = None
        self.labels: Tensor | None = None
        self.loss: Tensor | None = None
        self._losses: deque[tuple[Tensor, int]] = deque(maxlen=MOST_PARTS)
        self._are_shares = False
        self.n_samples: int | None = None
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.keep_arguments = False
        self.paused = False
        self.wrong_mode = False
        self._sample, self._due = sample, due
        self.mark: Tensor | None = None
        self.entering = Entering()
        self.output_node: Any = None
        self.compiled = is_compiled(model)
        self.last_call: Call | None = None
        self._mode: ActivationMode | None = None
        self._dependent = dependent_modules(model)
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True, always_call=True),
        ]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def training_modules(self) -> list[str]:
        """Return the modules that behave otherwise in training and are in that mode."""
        return [name for name, module in self._dependent if module.training]

    @property
    def dependent(self) -> list[str]:
        """Modules that behave otherwise in training."""
        return [name for name, _ in self._dependent]

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        if self.paused or torch.compiler.is_compiling():
            return
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        self.n_samples = int(x.shape[0]) if x is not None and x.dim() else None
        grad = torch.is_grad_enabled()
        if not grad and module.training and not self.wrong_mode and self.training_modules():
            self.wrong_mode = True
            self.keep_arguments = True
        if self.keep_arguments and not grad:
            self.arguments = (args, dict(kwargs))
            self.keep_arguments = False
        if not grad and not module.training:
            self.entering.evaluated.add(x)
        if grad:
            if module.training and self._sample():
                self.entering.trained.add(x)
            self.inputs = None if x is None else x.detach()
            self.last_call = _call(args, kwargs, x)
            # transformers: the losses of the parts of a batch are divided by the whole of it.
            self._are_shares = kwargs.get("num_items_in_batch") is not None
            labels = kwargs.get("labels")
            self.labels = labels.detach() if isinstance(labels, Tensor) else None
            if module.training and not self.compiled and self._sample():
                self.activations.begin()
                self._mode = ActivationMode(self.activations)
                cast(Any, self._mode).__enter__()

    def _after(self, module: Any, args: Any, kwargs: Any, result: Any) -> None:
        mode, self._mode = self._mode, None
        if mode is not None:
            cast(Any, mode).__exit__(None, None, None)
        if self.paused or torch.compiler.is_compiling():
            return
        out = first_tensor(result)
        if mode is not None:
            self.activations.end(out)
        if torch.is_grad_enabled():
            self._note_finite(out)
            self.output = out.detach() if self.keep and out is not None else None
            self.output_node = out.grad_fn if self.keep and out is not None else None
            loss = getattr(result, "loss", None)
            # The loss keeps its graph only at first, when the graph is read for what it says of the
            # loss.
            self.loss = loss if isinstance(loss, Tensor) else None
            if self.loss is not None:
                self._losses.append((self.loss.detach(), self.n_samples or 1))
                if not self.keep:
                    self.loss = self.loss.detach()

    def taken_loss(self) -> tuple[Tensor | None, int | None]:
        """Return the loss of all passes since the last call, and their samples.

        They are the parts of one batch where gradients are accumulated.
        """
        parts = list(self._losses)
        self._losses.clear()
        if not parts:
            return None, None
        n = sum(count for _, count in parts)
        weights = [1.0 if self._are_shares else count / n for _, count in parts]
        total = [loss * w for (loss, _), w in zip(parts, weights, strict=True)]
        return (total[0] if len(total) == 1 else torch.stack(total).sum()), n

    def _note_finite(self, out: Tensor | None) -> None:
        """Keep whether an output is finite: of small ones, and in steps that are looked at."""
        if out is None or not (out.is_floating_point() and out.numel()):
            return
        cheap = out.device.type == "cpu" and out.numel() <= MOST_MARKED
        if cheap or self._due():
            mark = (out.detach() * 0).sum()
            same = self.mark is not None and self.mark.device == mark.device
            self.mark = mark + self.mark if same and self.mark is not None else mark


def dependent_modules(model: Any) -> list[tuple[str, Any]]:
    """Return the modules of a model that behave otherwise in training."""
    norm = torch.nn.modules.batchnorm._NormBase
    dropout = torch.nn.modules.dropout._DropoutNd
    found = []
    for name, m in model.named_modules():
        by_dropout = isinstance(m, dropout) and m.p > 0
        by_norm = isinstance(m, norm) and m.track_running_stats
        inside = isinstance(m, torch.nn.MultiheadAttention | torch.nn.RNNBase) and m.dropout > 0
        if by_dropout or by_norm or inside:
            found.append((name, m))
    return found
