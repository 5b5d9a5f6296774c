"""Who works on the batches of an analysis: this process, or the workers of an executor."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pyspectra import ops
from pyspectra._support.progress import Advance
from pyspectra.analysis import engine as engines
from pyspectra.analysis.batches import (
    Outcome,
    analyze_batch,
    gram_elements,
    run_batch,
    split,
    steps_a_layer,
)
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
    advance: Advance,
) -> Iterator[Outcome]:
    """Yield the rows of the layers, in order; `advance` hears the name of each that is done."""
    if executor is not None:
        yield from _shared(layers, options, executor, advance)
    else:
        yield from _in_this_process(layers, options, device, advance)


def _in_this_process(
    layers: Sequence[Layer],
    options: AnalyzeOptions,
    device: torch.device | None,
    advance: Advance,
) -> Iterator[Outcome]:
    engine: engines.Engine
    if device is None:
        batches = split(layers, options, engines.PENDING_BYTES // 8)
        engine = engines.host_engine([_elements(batch, options) for batch in batches])
    else:
        engine = engines.device_engine(device)
        batches = split(layers, options, engine.capacity)
    # One generator reads for all batches: on a device it reads ahead, and ends if solving fails.
    with contextlib.closing(engine.reads(layers)) as reads:
        for batch in batches:
            yield from run_batch(batch, reads, engine, options, advance)


def _elements(batch: Sequence[Layer], options: AnalyzeOptions) -> int:
    # With method "svd" there are no Gram matrices that need room.
    return 0 if options.method == "svd" else sum(gram_elements(x, options) for x in batch)


def _shared(
    layers: Sequence[Layer], options: AnalyzeOptions, executor: Executor, advance: Advance
) -> Iterator[Outcome]:
    threads = ops.get_num_threads()
    waiting = deque(split(layers, options, SHARED_BATCH))
    running: deque[tuple[tuple[Layer, ...], Future[list[Outcome]]]] = deque()
    limit = IN_FLIGHT * (os.cpu_count() or 1)
    try:
        while waiting or running:
            while waiting and len(running) < limit:
                batch = waiting.popleft()
                running.append((batch, executor.submit(_work, batch, options, threads)))
            batch, future = running.popleft()
            yield from future.result()
            for layer in batch:
                advance(layer.name, steps_a_layer(options))
    finally:
        for _, future in running:
            future.cancel()


def _work(layers: Sequence[Layer], options: AnalyzeOptions, threads: int) -> list[Outcome]:
    """Do a batch with as many threads as the caller has: the last bits of large matrices differ."""
    if ops.get_num_threads() != threads:
        ops.set_num_threads(threads)
    return analyze_batch(layers, options)
