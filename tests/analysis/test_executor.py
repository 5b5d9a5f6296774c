"""`analyze(executor=)`: whoever works on the layers, the report is the same to the last bit."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra.analysis import executor as executors
from pyspectra.analysis.batches import analyze_batch, split
from pyspectra.report.options import AnalyzeOptions
from pyspectra.weights import SkippedLayer, open_weights

save_file = pytest.importorskip("safetensors.numpy").save_file

OPTIONS: dict[str, Any] = {
    "randomize": True, "mp_fit": True, "vectors": True, "bootstrap": 20, "seed": 3, "detx": True,
}  # fmt: skip


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = {f"block.{i}.fc.weight": rng.standard_t(3, (60 + i, 40)) for i in range(6)}
    state |= {f"block.{i}.conv.weight": rng.standard_t(3, (12, 10, 3, 3)) for i in range(3)}
    state["low.weight"] = np.outer(np.arange(30.0), np.arange(20.0))
    state["broken.weight"] = np.full((20, 20), np.nan)
    return {k: v.astype(np.float32) for k, v in state.items()}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "SHARED_BATCH", 4000)


def everything(report: ps.Report) -> bytes:
    """All of a report, to the last bit."""
    arrays = [m.tobytes() for layer in report.layers for m in layer.esd.matrix_evals]
    vectors = [layer.vectors.vec_entropy.tobytes() for layer in report.layers if layer.vectors]
    return repr((report.to_json(), arrays, vectors)).encode()


def processes(count: int) -> ProcessPoolExecutor:
    # No fork: this process has threads by now.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_make_the_same_report(count: int, tmp_path: Path, small_batches: None) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    want = ps.analyze(tmp_path / "model.safetensors", **OPTIONS)
    with processes(count) as executor:
        got = ps.analyze(tmp_path / "model.safetensors", executor=executor, **OPTIONS)
    assert everything(got) == everything(want)


def test_a_dask_cluster_makes_the_same_report(tmp_path: Path, small_batches: None) -> None:
    distributed = pytest.importorskip("distributed", reason="dask's scheduler is not installed")
    save_file(weights(), tmp_path / "model.safetensors")
    want = ps.analyze(tmp_path / "model.safetensors", **OPTIONS)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client, client.get_executor() as executor:
        got = ps.analyze(tmp_path / "model.safetensors", executor=executor, **OPTIONS)
    assert everything(got) == everything(want)


def test_threads_serve_and_weights_in_memory_too(small_batches: None) -> None:
    want = ps.analyze(weights(), **OPTIONS)
    with ThreadPoolExecutor(3) as executor:
        assert everything(ps.analyze(weights(), executor=executor, **OPTIONS)) == everything(want)


def test_weights_in_memory_are_sent_to_processes(small_batches: None) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Conv2d(9, 11, 3))
    want = ps.analyze(model)
    with processes(1) as executor:
        assert everything(ps.analyze(model, executor=executor)) == everything(want)


class Counting(Executor):
    """Works at once, and counts; what it is given must survive pickling."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        fn, args = pickle.loads(pickle.dumps((fn, args)))
        future: Future[Any] = Future()
        self.sizes.append(len(args[0]))
        future.set_result(fn(*args, **kwargs))
        return future


def test_batches_are_cut_by_the_work_in_them(tmp_path: Path, small_batches: None) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    executor = Counting()
    report = ps.analyze(tmp_path / "model.safetensors", executor=executor)
    assert sum(executor.sizes) == len(report.layers) == 11
    assert len(executor.sizes) > 3


def test_every_layer_is_in_one_batch_in_order() -> None:
    with open_weights(weights()) as source:
        options = AnalyzeOptions()
        for capacity in (0, 1, 2000, 10**9):
            batches = split(source.layers, options, capacity)
            assert [x.name for batch in batches for x in batch] == [x.name for x in source.layers]
            assert all(batches)


def test_a_batch_is_a_pure_function(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "model.safetensors")
    with open_weights(tmp_path / "model.safetensors") as source:
        layers = source.layers
        alone = [x for layer in layers for x in analyze_batch([layer], AnalyzeOptions())]
        together = analyze_batch(layers, AnalyzeOptions())
    assert [x.name for x in alone] == [x.name for x in together]
    for a, b in zip(alone, together, strict=True):
        assert not isinstance(a, SkippedLayer)
        assert not isinstance(b, SkippedLayer)
        assert a.esd.evals.tobytes() == b.esd.evals.tobytes()


class Failing(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(RuntimeError("the worker is gone"))
        return future


def test_a_lost_worker_is_an_error_of_its_own() -> None:
    with pytest.raises(RuntimeError, match="the worker is gone"):
        ps.analyze(weights(), executor=Failing())


@pytest.mark.parametrize("executor", [3, "processes", ProcessPoolExecutor])
def test_what_is_no_executor_is_refused(executor: Any) -> None:
    with pytest.raises(TypeError, match=r"^analyze: 'executor' must be a concurrent\.futures\."):
        ps.analyze(weights(), executor=executor)


@pytest.fixture
def interrupted() -> type[Executor]:
    class Interrupted(Failing):
        cancelled = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Any = Future()
            if Interrupted.cancelled == 0 and len(args[0]):
                future.cancel = self._cancel
            future.result = self._interrupt
            return future  # type: ignore[no-any-return]

        def _interrupt(self, timeout: float | None = None) -> Any:
            raise KeyboardInterrupt

        def _cancel(self) -> bool:
            Interrupted.cancelled += 1
            return True

    return Interrupted


def test_an_interrupt_calls_off_what_waits(
    interrupted: type[Executor], small_batches: None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ps.analyze(weights(), executor=interrupted())
    assert interrupted.cancelled > 0  # type: ignore[attr-defined]


def test_reads_that_run_ahead_end_when_the_solving_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds the frames of the analysis, so that nothing ends by being let go of."""
    open_reads: list[str] = []

    def reads(self: Any, layers: Any) -> Any:
        open_reads.append("a reader")
        try:
            for _ in layers:
                yield lambda: None
        finally:
            open_reads.clear()

    def fail(batch: Any, given: Any, *_: Any) -> Any:
        next(given)
        raise MemoryError

    monkeypatch.setattr(type(executors.engines.host_engine([1])), "reads", reads)
    monkeypatch.setattr(executors, "run_batch", fail)
    with pytest.raises(MemoryError) as caught:
        ps.analyze(weights())
    assert not open_reads, caught
