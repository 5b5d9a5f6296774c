"""Who works on the batches of an analysis: this process, or the workers of an executor."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pyspectra import ops
from pyspectra.analysis import engine as engines
from pyspectra.analysis.batches import (
    Outcome,
    analyze_each,
    gram_elements,
    run_batch,
    split,
    waiting_elements,
)
from pyspectra.analysis.work import Spent, by_size, work_of
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights import Layer

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    import torch

# Elements of the Gram matrices of a batch for an executor: smaller than for this process, so that
# many workers have something to do. Rows do not depend on it.
SHARED_BATCH = 2**20

# Batches on their way at a time, for each processor: enough to keep workers busy, and few enough
# that weights in memory are not all copied at once.
IN_FLIGHT = 4


def outcomes(
    layers: Sequence[Layer],
    options: AnalyzeOptions,
    device: torch.device | None,
    executor: Executor | None,
    spent: Spent,
) -> list[Outcome]:
    """Return the rows of the layers, in order; `spent` hears of the work as it is done."""
    order = by_size(layers, lambda layer: gram_elements(layer, options))
    solved = [layers[i] for i in order]
    if executor is not None:
        each = _shared(solved, options, executor, spent)
    else:
        each = _in_this_process(solved, options, device, spent)
    found = dict(zip(order, each, strict=True))
    return [row for i in range(len(layers)) for row in found[i]]


def _in_this_process(
    layers: Sequence[Layer],
    options: AnalyzeOptions,
    device: torch.device | None,
    spent: Spent,
) -> Iterator[list[Outcome]]:
    engine: engines.Engine
    if device is None:
        batches = split(layers, options, engines.PENDING_BYTES // 8, shares_threads=True)
        engine = engines.host_engine(
            [sum(waiting_elements(x, options) for x in b) for b in batches]
        )
    else:
        engine = engines.device_engine(device)
        batches = split(layers, options, engine.capacity)
    # One generator reads for all batches: on a device it reads ahead, and ends if solving fails.
    with contextlib.closing(engine.reads(layers)) as reads:
        for batch in batches:
            yield from run_batch(batch, reads, engine, options, spent)


def _shared(
    layers: Sequence[Layer], options: AnalyzeOptions, executor: Executor, spent: Spent
) -> Iterator[list[Outcome]]:
    threads = ops.get_num_threads()
    waiting = deque(split(layers, options, SHARED_BATCH))
    running: deque[tuple[tuple[Layer, ...], Future[list[list[Outcome]]]]] = deque()
    limit = IN_FLIGHT * (os.cpu_count() or 1)
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                batch = waiting.popleft()
                running.append((batch, executor.submit(_work, batch, options, threads)))
            batch, future = running.popleft()
            yield from future.result()
            for layer in batch:
                spent(work_of(layer, options), layer.name)
    finally:
        for _, future in running:
            future.cancel()


def _work(layers: Sequence[Layer], options: AnalyzeOptions, threads: int) -> list[list[Outcome]]:
    """Do a batch with as many threads as the caller has: the last bits of large matrices differ."""
    if ops.get_num_threads() != threads:
        ops.set_num_threads(threads)
    return analyze_each(layers, options)
