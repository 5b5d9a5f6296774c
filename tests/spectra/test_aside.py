"""Work in a thread beside: what it returns and raises, and where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from pyspectra.spectra.aside import WORTH_A_THREAD, run_aside

INTERRUPTIBLE = pytest.mark.skipif(
    os.name != "posix", reason="os.kill ends a process on Windows, and interrupts none"
)


def thread_name() -> str:
    return threading.current_thread().name


def test_long_work_has_a_thread_and_short_work_none() -> None:
    assert run_aside(thread_name, 2 * WORTH_A_THREAD) == "pyspectra-aside"
    assert run_aside(thread_name, WORTH_A_THREAD / 2) == threading.main_thread().name


def test_no_signal_comes_to_another_thread_which_works_itself() -> None:
    found: list[str] = []
    thread = threading.Thread(
        target=lambda: found.append(run_aside(thread_name, 2 * WORTH_A_THREAD)), name="own"
    )
    thread.start()
    thread.join()
    assert found == ["own"]


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        run_aside(lambda: np.linalg.inv(np.zeros((3, 3))), 2 * WORTH_A_THREAD)


def test_where_the_system_grants_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert run_aside(thread_name, 2 * WORTH_A_THREAD) == threading.main_thread().name


FORK = """
import os, signal, time
from pyspectra.spectra.aside import run_aside
parent, children = os.getpid(), []

def handler(signum, frame):
    child = os.fork()
    if child:
        children.append(child)

def work():
    if os.getpid() == parent:
        time.sleep(1)
    return "done"

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.2)
assert run_aside(work, 1e12) == "done"
if os.getpid() != parent:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no fork")
def test_a_child_that_a_handler_forks_works_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("7\n", "")


@INTERRUPTIBLE
def test_ctrl_c_does_not_wait_for_the_work() -> None:
    finished = threading.Event()
    release = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        release.wait()
        finished.set()

    # A shell starts what runs in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_aside(work, 2 * WORTH_A_THREAD)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not finished.is_set()
    release.set()
    assert finished.wait(60)


EXIT = """
import os, signal, threading, time
from pyspectra.spectra.aside import run_aside

# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    os.write(1, b"came to its end\\n")

try:
    run_aside(work, 1e12)
except KeyboardInterrupt:
    os.write(1, b"interrupted\\n")
"""


@INTERRUPTIBLE
def test_a_process_does_not_end_under_the_work() -> None:
    """OpenBLAS, which takes its threads down at exit, waits for ever for one that works."""
    done = subprocess.run(
        [sys.executable, "-c", EXIT], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout, done.stderr) == ("interrupted\ncame to its end\n", "")
    assert done.returncode == 0
