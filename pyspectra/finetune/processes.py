"""The processes among which a model and its data are spread, for scores of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyspectra._support.arguments import shown
from pyspectra.errors import ArgumentTypeError, ArgumentValueError
from pyspectra.optim._fused import sharded

T = TypeVar("T")

# What a process tells the others before a forward pass that needs all of them.
_HAS, _DONE, _EMPTY, _FAILED = range(4)


class Processes:
    """The processes that score the same model, each with mini-batches of its own.

    Parameters
    ----------
    function : str
        Public function that messages name.
    model : torch.nn.Module
        As the caller has it, wrapped or not.
    group : "auto", process group or None
        "auto": the group of DistributedDataParallel, else all processes of the run. None: this
        process alone.
    """

    def __init__(self, function: str, model: nn.Module, group: Any) -> None:
        self._function = function
        parallel = [
            m for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel)
        ]
        # Its hooks would wait for gradients that are taken by themselves.
        self._named = model
        self.model: nn.Module = model.module if model in parallel else model
        self._shards: list[Any] = [m for m in model.modules() if _is_fsdp(m)]
        self._refuse_flat(model)
        self._group: Any = self._checked(group, parallel)
        # Do forward passes communicate? Then all processes have to take the same number of them.
        # (FSDP2 may have left whole parameters in place after a forward pass.)
        cut = bool(self._shards) or any(map(sharded.is_sharded, model.parameters()))
        self._in_step = self._group is not None and cut

    def _refuse_flat(self, model: nn.Module) -> None:
        if any(type(m).__name__ == "FullyShardedDataParallel" for m in model.modules()):
            raise ArgumentTypeError(
                self._function,
                "model",
                "have parameters of its own",
                "one in FullyShardedDataParallel, which flattens them",
                "use torch.distributed.fsdp.fully_shard, or score the model before it is wrapped",
            )

    def _checked(self, group: Any, parallel: list[Any]) -> Any:
        d = torch.distributed
        runs = d.is_available() and d.is_initialized()
        if isinstance(group, str) and group == "auto":
            if not runs:
                return None
            group = parallel[0].process_group if parallel else d.group.WORLD
        elif group is not None and not (runs and isinstance(group, d.ProcessGroup)):
            raise ArgumentTypeError(
                self._function,
                "process_group",
                "be 'auto', None or a process group of torch.distributed, which is initialised",
                shown(group),
            )
        return group if group is not None and d.get_world_size(group) > 1 else None

    def leaves(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the tensors that a backward pass of this process alone has gradients for.

        Those of FSDP2 are the gathered ones that its forward passes use: the gradients of the
        shards would be means over the processes.
        """
        self._reshard()
        found: dict[str, Tensor] = dict(self._parameters())
        own = dict(found)
        for module in self._shards:
            module.unshard()
            found.update((name, p) for name, p in self._parameters() if p is not own[name])
            self._reshard()
        return {name: found[name] for name in names}

    def _reshard(self) -> None:
        for module in self._shards:
            module.reshard()

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._named.named_parameters())

    def rounds(self, parts: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """Yield what there is to pass through the model, and whether it counts.

        Where forward passes communicate, a process that has nothing left repeats its last part.
        """
        last: T | None = None
        iterator = iter(parts)
        while True:
            part = next(iterator, None)
            if self._in_step:
                state = _HAS if part is not None else _DONE if last is not None else _EMPTY
                states = self._gathered(state)
                if _HAS not in states or _FAILED in states:
                    return
                if _EMPTY in states:
                    raise ArgumentValueError(
                        self._function,
                        "loader",
                        "give at least one batch in every process",
                        f"none in process {states.index(_EMPTY)}",
                    )
            elif part is None:
                return
            counts, last = part is not None, last if part is None else part
            assert last is not None
            yield last, counts

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let all processes fail where one does, instead of waiting for it."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
            if self._in_step and not isinstance(raised, ArgumentValueError):
                self._gathered(_FAILED)
        finally:
            self._reshard()
        if self._group is not None:
            texts = self._gathered(None if error is None else f"{type(error).__name__}: {error}")
            for rank, text in enumerate(texts):
                if error is None and text is not None:
                    raise RuntimeError(f"{self._function}: process {rank} failed with {text}")
        if error is not None:
            raise error

    def add(self, scores: Mapping[str, Tensor], count: int) -> int:
        """Add up scores, in place, and counts over the processes; return the count of all."""
        if self._group is None:
            return count
        shapes = [(name, tuple(score.shape)) for name, score in scores.items()]
        told = self._gathered((shapes, count))
        if any(other != shapes for other, _ in told):
            raise ArgumentValueError(
                self._function,
                "model",
                "have the same parameters to score in all processes",
                "others in another process",
                "process_group=... says which processes have copies of this model",
            )
        for score in scores.values():
            torch.distributed.all_reduce(score, group=self._group)
        return sum(others for _, others in told)

    def of_first(self, value: T) -> T:
        """Return the value that the first process has."""
        if self._group is None:
            return value
        first: T = self._gathered(value)[0]
        return first

    def _gathered(self, value: Any) -> list[Any]:
        out: list[Any] = [None] * torch.distributed.get_world_size(self._group)
        torch.distributed.all_gather_object(out, value, group=self._group)
        return out


def _is_fsdp(module: nn.Module) -> bool:
    """Tell whether a module is one of ``fully_shard``, without importing what defines it."""
    return any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__)
