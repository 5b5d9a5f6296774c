"""Evaluations: the modes of the model, the same batch twice, and what came out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyspectra.training.collect.forward import ForwardCollector, classes_last, first_tensor
from pyspectra.training.preserve import preserved
from pyspectra.training.processes import Alone, is_distributed
from pyspectra.training.rules.facts import Classes, Evaluation
from pyspectra.training.shared_records import merged_sums

MOST_CLASSES = 2048

ROUNDING = 16
"""Units of rounding, of the largest output, that a row may differ by for no other reason."""


_DRAWING = {
    torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.randint_like,
    torch.randperm, torch.normal, torch.bernoulli, torch.multinomial, torch.poisson,
    Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.bernoulli, Tensor.exponential_,
    Tensor.multinomial, Tensor.random_, Tensor.cauchy_, Tensor.log_normal_, Tensor.geometric_,
}  # fmt: skip


class Draws(TorchFunctionMode):
    """Notice that a model draws random numbers by itself, and not in dropout.

    Attributes
    ----------
    made : bool
    """

    def __init__(self) -> None:
        super().__init__()
        self.made = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.made = self.made or func in _DRAWING
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Confirmed:
    """What a second look at one batch of an evaluation showed, as in `Evaluation`."""

    difference: float | None = None
    batch_difference: float | None = None
    draws: bool = False


class EvaluationCollector:
    """What happens while the model is evaluated."""

    def __init__(self, model: Any, forward: ForwardCollector) -> None:
        self._model, self._forward = model, forward
        self._confirmed = False
        self._sums: dict[str, Any] = {}
        self._n = 0
        self._has_graph = False
        self._inside = False
        self._facts: list[Evaluation] = []
        self._confusion: np.ndarray[Any, Any] | None = None
        self._reported_unasked = False

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate in eval mode, without gradients; restore the mode of every module."""
        modes = [(m, m.training) for m in self._model.modules()]
        self._sums, self._n, self._has_graph = {}, 0, False
        self._confusion = None
        self._model.eval()
        self._forward.keep_arguments = not self._confirmed
        self._inside = True
        try:
            with torch.no_grad():
                yield
                wrong = self._forward.training_modules()
                confirmed = Confirmed() if self._confirmed else self._confirm()
        finally:
            self._inside = False
            self._forward.keep_arguments = False
            for module, training in modes:
                module.training = training
        self._facts.append(_evaluation(0, wrong, confirmed, self._has_graph))

    def _confirm(self) -> Confirmed:
        """Pass one batch twice, and its outer rows alone; return the relative differences."""
        taken, self._forward.arguments = self._forward.arguments, None
        if taken is None or is_distributed():
            return Confirmed()
        self._confirmed = True
        args, kwargs = taken
        self._forward.paused = True
        try:
            with preserved(self._model, weights=False):
                # Both under the same mode: attention takes another path where there is none, and
                # rounds otherwise.
                with Draws() as draws:
                    first = first_tensor(self._model(*args, **kwargs))
                    second = first_tensor(self._model(*args, **kwargs))
                # Where rows are taken for times, the first depends on no other; the last does.
                rows = [self._row_alone(args, kwargs, first, place) for place in (0, -1)]
        finally:
            self._forward.paused = False
        known = [x for x in rows if x is not None]
        repeat = None if first is None or second is None else relative(first, second)
        return Confirmed(repeat, max(known) if known else None, draws.made)

    def _row_alone(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], whole: Tensor | None, place: int
    ) -> float | None:
        """Return how far a row alone differs from the same row in its batch."""
        given = [*args, *kwargs.values()]
        tensors = [v for v in given if isinstance(v, Tensor)]
        sizes = {t.shape[0] if t.dim() else 0 for t in tensors}
        if len(tensors) != len(given) or len(sizes) != 1 or max(sizes) < 2 or whole is None:
            return None
        k = range(max(sizes))[place]
        named = {name: v[k : k + 1] for name, v in kwargs.items()}
        try:
            alone = first_tensor(self._model(*[v[k : k + 1] for v in args], **named))
        except (RuntimeError, ValueError, IndexError):
            return None  # a network over one fixed graph, say, takes all rows or none
        if alone is None or not whole.is_floating_point():
            return None
        if whole.shape[:1] != (max(sizes),) or alone.shape[1:] != whole.shape[1:]:
            return None
        by = relative(whole[k : k + 1], alone)
        # Products of other shapes round otherwise: in bfloat16 by more than a per cent.
        return by if by > ROUNDING * torch.finfo(whole.dtype).eps else 0.0

    def add(
        self, loss: Any, outputs: Tensor | None, targets: Any, n: int, kind: str | None,
        metrics: dict[str, Any],
    ) -> None:  # fmt: skip
        """Add the results of a batch."""
        if isinstance(loss, Tensor) and loss.requires_grad:
            self._has_graph = True
        values = dict(metrics) if loss is None else {"loss": loss, **metrics}
        for name, value in values.items():
            x = value.detach().float().mean() if isinstance(value, Tensor) else float(value)
            self._sums[name] = self._sums.get(name, 0.0) + x * n
        self._n += n
        if kind in ("cross_entropy", "nll") and outputs is not None and isinstance(targets, Tensor):
            self._count(outputs, targets)

    def _count(self, outputs: Tensor, targets: Tensor) -> None:
        scores = None if targets.is_floating_point() else classes_last(outputs.detach(), targets)
        if scores is None or not 1 < scores.shape[-1] <= MOST_CLASSES:
            return
        classes = scores.shape[-1]
        said, true = scores.argmax(-1).reshape(-1), targets.reshape(-1)
        valid = (true >= 0) & (true < classes)
        pairs = (true[valid] * classes + said[valid]).cpu().numpy()
        counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
        self._confusion = counts if self._confusion is None else self._confusion + counts

    def taken(self, processes: Alone) -> tuple[dict[str, float], int | None]:
        """Return the means of the evaluation that has just ended, in all processes together."""
        sums = {name: float(total) for name, total in self._sums.items()}
        sums, self._n, self._confusion = merged_sums(processes, sums, self._n, self._confusion)
        values = {name: total / self._n for name, total in sums.items()}
        if self._confusion is not None and self._confusion.sum():
            values["accuracy"] = float(np.trace(self._confusion) / self._confusion.sum())
        return values, self._n or None

    def classes(self, step: int) -> Classes | None:
        """Return the confusion matrix of the last evaluation, once."""
        confusion, self._confusion = self._confusion, None
        return None if confusion is None else Classes(step, confusion)

    def facts(self, step: int) -> list[object]:
        """Return how the model stood in evaluations since the last call."""
        facts = [dataclasses.replace(e, step=step) for e in self._facts]
        self._facts.clear()
        return list(facts)

    def unasked(self, step: int) -> list[object]:
        """Return evaluations outside of `evaluating` with modules in training mode."""
        if not self._forward.wrong_mode or self._reported_unasked:
            return []
        self._reported_unasked = True
        names = self._forward.training_modules()
        with torch.no_grad():
            confirmed = self._confirm()
        return [_evaluation(step, names, confirmed)]


def _evaluation(
    step: int, wrong: Sequence[str], confirmed: Confirmed, has_graph: bool = False
) -> Evaluation:
    return Evaluation(
        step, wrong, confirmed.difference, confirmed.batch_difference, has_graph, confirmed.draws
    )


def relative(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors over the largest magnitude of the first."""
    scale = float(a.float().abs().max()) if a.numel() else 0.0
    return float((a.float() - b.float()).abs().max()) / scale if scale > 0 else 0.0
