"""Eigenvalues of one matrix that is spread over all threads: wide band and bisection."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import tolerances as tol
from csrc.linalg.test_linalg_kernels import assert_evals, gram_matrix, kinds_of, random_symmetric

import pyspectra as ps
from pyspectra import ops
from pyspectra.types import Status

SMALLEST = ops.SPREAD_ORDER


# The baseline leaves these orders to LAPACK.
ISAS = [isa for isa in ops.available_isas() if isa != "baseline"]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Run the test once on each instruction set that has kernels for a large matrix."""
    name: str = request.param
    ops.set_isa(name)
    return name


def test_every_kind(isa: str) -> None:
    """The order is one less than a multiple of the width of the band; others are below."""
    for kind, (A, want) in kinds_of(SMALLEST + 31).items():
        (evals,), (status,) = ops.eigvals([A])
        assert status is Status.OK, kind
        assert_evals(evals, want, kind)


def test_a_matrix_of_many_panels() -> None:
    """Its band takes more memory than order times stride: a write past the end would be seen."""
    A = random_symmetric(2500)
    (evals,), _ = ops.eigvals([A])
    assert_evals(evals, np.linalg.eigvalsh(A))


def test_the_bits_are_the_same_for_any_number_of_threads_and_beside_another_call(isa: str) -> None:
    A = gram_matrix(1100)
    ops.set_num_threads(1)
    (want,), _ = ops.eigvals([A])
    for threads in (2, 3, 8):
        ops.set_num_threads(threads)
        for _ in range(3):
            np.testing.assert_array_equal(ops.eigvals([A])[0][0], want)
    found: list[np.ndarray] = []
    callers = [
        threading.Thread(target=lambda: found.append(ops.eigvals([A])[0][0])) for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for evals in found:
        np.testing.assert_array_equal(evals, want)


def test_only_the_lower_triangle_is_read_and_nothing_is_written(isa: str) -> None:
    A = random_symmetric(1056)
    hidden = np.tril(A) + np.triu(np.full(A.shape, np.nan), 1)
    want = ps.eigvals(A)
    spread = np.full((2112, 2112), np.nan)[::2, ::2]
    spread[:] = hidden
    for data in (hidden, np.asfortranarray(hidden), spread):
        kept = data.copy()
        data.flags.writeable = False
        np.testing.assert_array_equal(ops.eigvals([data])[0][0], want)
        np.testing.assert_array_equal(data, kept)


def test_scaling_by_a_power_of_two_is_exact(isa: str) -> None:
    A = gram_matrix(1030)
    plain = ps.eigvals(A)
    for power in (-1000, -460, 3, 460, 950):
        np.testing.assert_array_equal(
            ps.eigvals(np.ldexp(A, power)), np.ldexp(plain, power), err_msg=str(power)
        )


def test_what_has_no_eigenvalues_has_a_status(isa: str) -> None:
    A = random_symmetric(1050)
    A[500, 2] = np.nan
    (evals,), (status,) = ops.eigvals([A])
    assert status is Status.NOT_FINITE
    assert np.isnan(evals).all()
    (evals,), (status,) = ops.eigvals([np.full((1056, 1056), 1e307)])
    assert status is Status.NOT_FINITE
    (zeros,), (status,) = ops.eigvals([np.zeros((1056, 1056))])
    assert status is Status.OK
    np.testing.assert_array_equal(zeros, 0.0)


def test_weakly_coupled_equal_entries(isa: str) -> None:
    """The counts keep couplings far below the diagonal apart: clusters come out to first order."""
    n, e = 1040, 2.0**-40
    A = np.eye(n) + e * (np.eye(n, k=1) + np.eye(n, k=-1))
    want = 1.0 - 2.0 * e * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))
    np.testing.assert_allclose(ps.eigvals(A), want, rtol=4.0 * tol.EXACT_FACTOR)


def test_it_agrees_with_the_same_matrix_in_a_batch(isa: str) -> None:
    A = gram_matrix(1090)
    batch = ps.eigvals(np.stack([A, A, A]))
    alone = ps.eigvals(A)
    np.testing.assert_allclose(
        alone, batch[1], rtol=0.0, atol=tol.eigvals_atol(len(A), float(alone[-1]))
    )


MEMORY = """
import numpy as np
from pyspectra import ops

def resident(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(field))

n = 2048
A = np.random.default_rng(0).standard_normal((n, n))
ops.eigvals([A[:1030, :1030]])
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = resident("VmRSS")
ops.eigvals([A])
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_it_takes_less_memory_than_the_matrix_itself() -> None:
    """As docs/spectra.md says: n^2 / 2 + 900 n numbers, to which huge pages add their rounding."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    ).stdout
    n = 2048
    assert int(out) < 8 * (n * n // 2 + 900 * n) + 8 * 2**20
