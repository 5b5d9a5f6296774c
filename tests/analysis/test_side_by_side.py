"""Work side by side: results in order, one thread at the source, errors and Ctrl-C end it."""

from __future__ import annotations

import contextvars
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import pyspectra as ps
from pyspectra import ops
from pyspectra._support import blas_threads
from pyspectra.analysis import batches, work
from pyspectra.analysis.side_by_side import _Helper, _Shared, side_by_side
from pyspectra.weights import Layer


def nothing(_number: int) -> None:
    pass


def meeting(threads: int) -> Callable[[int], int]:
    """Return work that ends only where as many items are worked on at once."""
    met = threading.Barrier(threads)

    def work(x: int) -> int:
        met.wait(timeout=30.0)
        return x * x

    return work


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_from_as_many_threads_as_kernels_may_have(threads: int) -> None:
    ops.set_num_threads(threads)
    assert side_by_side(meeting(threads), iter(range(8)), 8, nothing) == [x * x for x in range(8)]


def test_no_more_items_are_taken_than_are_wanted_and_each_is_reported_once() -> None:
    ops.set_num_threads(3)
    items = iter(range(100))
    done: list[int] = []
    assert side_by_side(str, items, 5, done.append) == list("01234")
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert next(items) == 5
    assert side_by_side(str, items, 0, done.append) == []


def test_one_thread_at_a_time_takes_an_item() -> None:
    ops.set_num_threads(4)
    inside = itertools.count()

    def items() -> Iterator[int]:  # a generator raises ValueError where two threads ask it at once
        for i in range(200):
            yield i + 0 * next(inside)

    assert side_by_side(lambda x: x, items(), 200, nothing) == list(range(200))


def test_kernels_called_by_the_work_stay_in_its_thread_and_outside_of_it_do_not() -> None:
    ops.set_num_threads(3)
    assert side_by_side(lambda _: ops.get_num_threads(), iter(range(6)), 6, nothing) == [1] * 6
    assert ops.get_num_threads() == 3
    with ops.one_thread():
        with ops.one_thread():
            assert ops.get_num_threads() == 1
        assert ops.get_num_threads() == 1
    assert ops.get_num_threads() == 3


def test_blas_has_one_thread_beside_others_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ops.set_num_threads(2)
    seen = set[int]()
    decompose = np.linalg.eigh

    def eigh(*args: Any, **options: Any) -> Any:
        seen.update(lib["num_threads"] for lib in blas_threads._blas().info())
        return decompose(*args, **options)

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    rng = np.random.default_rng(0)
    weights = {f"{i}.weight": rng.standard_normal((40, 30)) for i in range(5)}
    for model in (weights, dict(list(weights.items())[:1])):
        ps.analyze(model, vectors=True, goodness=False, progress=False)
        assert seen == {1}
        seen.clear()


@pytest.mark.parametrize("where", ["work", "items", "done"])
def test_an_error_ends_the_work_and_is_raised_once_nobody_works(where: str) -> None:
    ops.set_num_threads(3)
    at_work, worked = set[int](), list[int]()

    def failing(place: str, x: int) -> int:
        if place == where and x == 4:
            raise KeyError("four")
        return x

    def work(x: int) -> None:
        at_work.add(x)
        try:
            worked.append(failing("work", x))
        finally:
            at_work.remove(x)

    items = (failing("items", x) for x in range(1000))
    with pytest.raises(KeyError, match="four"):
        side_by_side(work, items, 1000, lambda x: void(failing("done", x)))
    assert not at_work
    assert len(worked) < 1000


def void(_value: Any) -> None:
    pass


def test_the_error_of_the_source_is_raised_and_not_that_it_has_ended() -> None:
    """A lock that lets the others in before the error is known, so that they ask once more."""
    ops.set_num_threads(3)

    class Lock:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_error: Any) -> None:
            self.lock.release()
            time.sleep(0.01)

    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyError("three")

    for _ in range(5):
        shared = _Shared(lambda x: x, items(), 10, nothing)
        shared._lock = Lock()  # type: ignore[assignment]
        with pytest.raises(KeyError, match="three"):
            shared.results()


def test_callers_in_several_threads_share_the_helpers_of_one() -> None:
    callers, threads = 4, 6
    ops.set_num_threads(threads)
    begun = threading.Barrier(callers)  # all are at work at once
    before, most = threading.active_count(), 0

    def work(x: int) -> int:
        nonlocal most
        if x == 0:
            begun.wait(timeout=30.0)
        most = max(most, threading.active_count())
        return x

    def ask() -> list[int]:
        return side_by_side(work, iter(range(40)), 40, nothing)

    with ThreadPoolExecutor(callers) as executor:
        each = [executor.submit(ask) for _ in range(callers)]
        assert [one.result() for one in each] == [list(range(40))] * callers
    # Callers that look at the same moment may start one each.
    assert most - before <= callers + (threads - 1) + (callers - 1)


def test_ctrl_c_in_the_callers_thread_ends_all() -> None:
    ops.set_num_threads(2)
    caller = threading.current_thread()
    interrupted = threading.Event()
    worked: list[int] = []

    def work(x: int) -> None:
        worked.append(x)
        if threading.current_thread() is caller:
            interrupted.set()
            raise KeyboardInterrupt
        assert interrupted.wait(timeout=30.0)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, iter(range(100)), 100, nothing)
    assert len(worked) <= 3
    assert threading.active_count() == before


class Stop(BaseException):
    """What a signal handler raises."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_an_interrupt_at_any_time_ends_the_other_threads_too() -> None:
    ops.set_num_threads(3)
    rng = np.random.default_rng(0)
    finished = stopped = 0

    def helpers() -> int:
        # Python lists threads that an interrupt kept from starting, for ever.
        return sum(isinstance(t, _Helper) and t.is_alive() for t in threading.enumerate())

    def stop(_signal: int, _frame: Any) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for seconds in rng.uniform(1e-5, 4e-3, 60):
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                side_by_side(lambda _: time.sleep(1e-5), iter(range(5000)), 5000, nothing)
                finished += 1  # Python loses what is raised while it collects garbage
            except Stop:
                stopped += 1
            assert ops.get_num_threads() == 3
            # A helper that was just being started finds that there is nothing left to do.
            for _ in range(1000):
                if not helpers():
                    break
                time.sleep(1e-3)
            assert helpers() == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert stopped > finished


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_thread_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    """The caller works alone; but what a signal handler raised inside of `start` is not lost."""
    ops.set_num_threads(3)

    def start(_helper: threading.Thread) -> None:
        try:
            if interrupted:
                raise Stop
        finally:
            raise RuntimeError("as a lock that is released without being held")

    monkeypatch.setattr(_Helper, "start", start)
    if interrupted:
        with pytest.raises(Stop):
            side_by_side(str, iter(range(4)), 4, nothing)
    else:
        assert side_by_side(str, iter(range(4)), 4, nothing) == list("0123")


def test_threads_see_what_the_caller_has_set_for_itself() -> None:
    ops.set_num_threads(3)
    setting = contextvars.ContextVar("setting", default=0)
    setting.set(7)
    work = meeting(3)
    assert (
        side_by_side(lambda x: (work(x), setting.get())[1], iter(range(3)), 3, nothing) == [7] * 3
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_child_of_a_fork_inside_is_told_that_others_will_not_finish() -> None:
    ops.set_num_threads(1)
    reading, writing = os.pipe()
    child = 0

    def forks(x: int) -> int:
        nonlocal child
        if x == 1:
            child = os.fork()
        return x

    try:
        side_by_side(forks, iter(range(4)), 4, nothing)
    except RuntimeError as error:
        if child == 0:
            os.write(writing, str(error).encode())
            os._exit(0)
        raise
    if child == 0:
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 100) == b"the process forked inside an analysis, which ends here"
    os.close(reading)
    os.close(writing)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_child_of_a_fork_while_helpers_are_waited_for_is_told_so() -> None:
    ops.set_num_threads(2)
    caller = threading.current_thread()
    children: list[int] = []

    def fork(_signal: int, _frame: Any) -> None:
        children.append(os.fork())

    def work(x: int) -> int:
        if threading.current_thread() is not caller:
            time.sleep(0.1)  # the caller is done with the other item
            os.kill(os.getpid(), signal.SIGUSR1)  # which the main thread handles
            time.sleep(0.4)
        return x

    met = threading.Barrier(2)
    before = signal.signal(signal.SIGUSR1, fork)
    try:
        found = side_by_side(lambda x: (met.wait(30.0), work(x))[1], iter(range(2)), 2, nothing)
    except RuntimeError as error:
        os._exit(0 if children == [0] and "forked inside an analysis" in str(error) else 1)
    finally:
        if children == [0]:
            os._exit(2)
        signal.signal(signal.SIGUSR1, before)
    assert found == [0, 1]
    assert len(children) == 1
    assert os.waitpid(children[0], 0)[1] == 0


# --- analyses -----------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"randomize": True, "mp_fit": True, "vectors": True, "seed": 3}


def model() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    state = {f"block.{i}.fc.weight": rng.standard_t(3, (60 + i, 40)) for i in range(7)}
    state |= {f"block.{i}.conv.weight": rng.standard_t(3, (12, 10, 3, 3)) for i in range(3)}
    state["tall.weight"] = rng.standard_normal((900, 130))
    state["low.weight"] = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 120))
    state["broken.weight"] = np.full((20, 20), np.nan)
    return {k: v.astype(np.float32) for k, v in state.items()}


def analysed(threads: int) -> ps.Report:
    ps.set_num_threads(threads)
    return ps.analyze(model(), **OPTIONS)


def test_a_report_does_not_depend_on_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = analysed(1)
    for threads in (2, 3, 5):
        assert analysed(threads).to_json() == alone.to_json()
    monkeypatch.setattr(work, "SMALL", 0)  # every layer by all threads
    assert analysed(3).to_json() == alone.to_json()


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the first reading and at the second, which some layers need for an SVD."""
    real = Layer.load
    reads: dict[str, int] = {}

    def load(layer: Layer, *args: Any) -> Any:
        reads[layer.name] = reads.get(layer.name, 0) + 1
        if layer.name == "block.2.fc" or (layer.name == "low" and reads["low"] == 2):
            raise OSError(f"{layer.name} is gone")
        return real(layer, *args)

    monkeypatch.setattr(Layer, "load", load)
    ps.set_num_threads(3)
    report = ps.analyze(model())
    lost = {s.name: s.reason for s in report.skipped}
    assert set(lost) == {"block.2.fc", "low"}
    assert "block.2.fc is gone" in lost["block.2.fc"]
    assert "low is gone" in lost["low"]
    assert len(report.layers) == len(model()) - 2


@pytest.mark.parametrize(
    ("count", "threads", "together"),
    [(39, 2, 38), (38, 2, 38), (1, 2, 0), (3, 4, 3), (2, 4, 0), (6, 4, 4), (7, 4, 7), (5, 1, 5)],
)
def test_the_last_few_layers_get_all_threads(count: int, threads: int, together: int) -> None:
    ops.set_num_threads(threads)
    assert batches._together(count) == together
