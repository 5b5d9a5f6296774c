"""A child of fork(): nothing that other threads of its parent held stays held in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pyspectra._support import cached
from pyspectra._support.cached import cached_property

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="fork with threads: Linux only"
)


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=600, check=False,
        cwd=os.path.dirname(sys.executable),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


STRESS = """
import os, signal, sys, threading, time
import numpy as np
import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray
ps.set_num_threads({threads})
rng = np.random.default_rng(0)
weights = {{f"l{{i}}.weight": rng.standard_normal((64 + i, 32)) for i in range(6)}}
A = rng.standard_normal((1100, 1100)); A = A + A.T
small = rng.standard_normal((40, 40)); small = small + small.T
X = rng.standard_normal((500, 480))
def check():
    ps.analyze(weights)
    ops.eigvals([small] * 5)
    ops.svdvals([HostArray(X, "float64")])
def work():
    ps.analyze(weights)
    ops.eigvals([A])
    ops.svdvals([HostArray(X, "float64")])
check()
stop = False
def loop():
    while not stop: work()
threads = [threading.Thread(target=loop) for _ in range(2)]
for t in threads: t.start()
codes = []
for i in range({rounds}):
    time.sleep(0.01 * rng.random())
    child = os.fork()
    if child == 0:
        signal.alarm(120)  # a deadlock ends as an error
        try:
            check()
            os._exit(0)
        finally:
            os._exit(1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
for t in threads: t.join()
print(set(codes))
"""


@pytest.mark.parametrize("threads", [2, 8])
def test_a_child_forked_while_other_threads_analyse_can_analyse(threads: int) -> None:
    """With 8 threads LAPACK takes the matrix of order 1100, with all threads of BLAS."""
    assert run(STRESS.format(threads=threads, rounds=15)) == "{0}"


def test_a_property_being_computed_in_another_thread_does_not_stop_a_child() -> None:
    """functools' has one lock for all instances, held while the function runs (Python < 3.12)."""
    begun, end = threading.Event(), threading.Event()

    class Slow:
        def __init__(self, wait: bool) -> None:
            self.wait = wait

        @cached_property
        def value(self) -> int:
            """Seven."""
            if self.wait:
                begun.set()
                end.wait()
            return 7

    thread = threading.Thread(target=lambda: Slow(True).value)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(Slow(False).value)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end.set()
    thread.join()
    assert code == 7
    assert Slow.value.__doc__ == "Seven."


def test_no_property_of_the_package_is_functools_own() -> None:
    sources = Path(cached.__file__).parents[1].rglob("*.py")
    lines = [line for source in sources for line in source.read_text("utf-8").splitlines()]
    assert len(lines) > 1000
    own = ("@functools.cached_property", "from functools import cached_property")
    assert [line for line in lines if line.strip().startswith(own)] == []


FORK_IN_HANDLER = """
import os, signal
import numpy as np
import pyspectra as ps
from pyspectra import ops
ps.set_num_threads(3)
rng = np.random.default_rng(0)
A = rng.standard_normal((18, 900, 900)); A = A + A.swapaxes(1, 2)
want = ps.eigvals(A)
inside = os.getpid()
children = []
def handler(signum, frame):
    if not children: children.append(os.fork())
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.04)
try:
    same = ps.eigvals(A).tobytes() == want.tobytes()
except RuntimeError as error:
    if os.getpid() == inside: raise
    assert "forked inside a kernel" in str(error)
    signal.alarm(120)
    os._exit(0 if ps.eigvals(A).tobytes() == want.tobytes() else 3)
if os.getpid() != inside: os._exit(4)
print(same, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""


FORK_IN_HANDLER_OF_ONE = """
import os, signal
import numpy as np
import pyspectra as ps
from pyspectra import ops
from pyspectra._arrays import HostArray
ps.set_num_threads(3)
rng = np.random.default_rng(0)
A = rng.standard_normal((2600, 2600)); A = A + A.T
X = HostArray(A[:1300, :1200], "float64")
inside = os.getpid()
children = []
def handler(signum, frame):
    if os.getpid() != inside: return
    children.append(os.fork())
    if children[-1]:
        signal.setitimer(signal.ITIMER_REAL, 0.04)
    else:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(120)  # a deadlock ends as an error
for solve in (lambda: ps.eigvals(A), lambda: ops.svdvals([X])[0][0]):
    want = solve().tobytes()
    children.clear()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        got = solve().tobytes()
    except RuntimeError as error:
        if os.getpid() == inside: raise
        os._exit(0 if "forked inside a kernel" in str(error) else 3)
    if os.getpid() != inside: os._exit(0 if got == want else 4)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(got == want, {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children})
"""


def test_children_forked_by_a_signal_handler_wait_for_no_thread_of_their_parent() -> None:
    """At any stage of one large matrix, whose tasks follow each other."""
    assert run(FORK_IN_HANDLER_OF_ONE) == "True {0}\nTrue {0}"


def test_a_child_forked_by_a_signal_handler_inside_a_kernel_gets_an_error() -> None:
    """The threads that had their part in it are the parent's; the parent's call goes on."""
    assert run(FORK_IN_HANDLER) == "True 0"
