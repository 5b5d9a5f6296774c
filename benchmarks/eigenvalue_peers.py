"""One library that finds eigenvalues, in a process of its own: what `eigenvalues.py` asks.

Threads that wait for work, two OpenMP runtimes in one process and symbols of one BLAS that another
one finds are thus kept apart. A worker reads a request in JSON from a line, and answers by a line.
"""

import ctypes
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

# n^3 of all matrices together, below which a request is solved several times.
REPEATED_WORK = 5e7


class Missing(Exception):
    """The library is not installed; the message says what is missing."""


def _folders():
    """Folders that may hold the libraries which wheels bring as data: VENV/lib, or --target/lib."""
    return [Path(sys.prefix) / "lib", *(Path(p) / "lib" for p in sys.path if p)]


def find_library(name):
    for folder in _folders():
        found = sorted(folder.glob(f"{name}.so*"))
        if found:
            return found[0]
    raise Missing(f"{name} was not found")


class Lapack:
    """Drivers for values only of a LAPACK that ctypes loads; matrices are column-major."""

    def __init__(self, library, symbol, integer):
        self.library, self.symbol, self.integer = library, symbol, integer
        self.queries = {}

    def routine(self, name):
        routine = getattr(self.library, self.symbol.format(name))
        routine.restype = None
        return routine

    def _ints(self, *values):
        return [ctypes.byref(self.integer(v)) for v in values]

    def dgemm(self, A, B, C):
        n = len(A)
        letters = [ctypes.c_char_p(b"N")] * 2
        one, zero = ctypes.byref(ctypes.c_double(1)), ctypes.byref(ctypes.c_double(0))
        size = self._ints(n)[0]
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (A, B, C)]
        self.routine("dgemm")(
            *letters, size, size, size, one, pointers[0], size, pointers[1], size, zero,
            pointers[2], size,
        )  # fmt: skip

    def solve(self, driver, a, w):
        """Eigenvalues of a (n, n), which is lost, to w (n,)."""
        n = len(w)
        if (driver, n) not in self.queries:
            work, iwork = np.zeros(1), np.zeros(1, np.int64)
            self._call(driver, a, w, work, -1, iwork, -1)
            sizes = int(work[0]), int(iwork.view(self.integer)[0])
            self.queries[driver, n] = sizes
        size, isize = self.queries[driver, n]
        work, iwork = np.empty(max(size, 1)), np.empty(max(isize, 1), np.int64)
        info = self._call(driver, a, w, work, size, iwork, isize)
        if info:
            raise RuntimeError(f"{driver}: info = {info}")

    def _call(self, driver, a, w, work, size, iwork, isize):
        n = len(w)
        order, lwork, liwork, info = (self.integer(v) for v in (n, size, isize, 0))
        ref, address = ctypes.byref, lambda x: ctypes.c_void_p(x.ctypes.data)
        letters = ctypes.c_char_p(b"N"), ctypes.c_char_p(b"L")
        matrix = [ref(order), address(a), ref(order)]
        tail = [address(work), ref(lwork)]
        itail = [address(iwork), ref(liwork), ref(info)]
        if driver.startswith("dsyevd"):
            self.routine(driver)(*letters, *matrix, address(w), *tail, *itail)
        elif driver.startswith("dsyevr"):
            nothing, found = ref(ctypes.c_double(0)), self.integer(0)
            support, vectors = np.empty(2 * n, np.int64), np.empty(1)
            one = self.integer(1)
            self.routine(driver)(
                letters[0], ctypes.c_char_p(b"A"), letters[1], *matrix, nothing, nothing, ref(one),
                ref(one), nothing, ref(found), address(w), address(vectors), ref(one),
                address(support), *tail, *itail,
            )  # fmt: skip
        else:
            self.routine(driver)(*letters, *matrix, address(w), *tail, ref(info))
        return info.value


def lapack_ways(lapack, threads, hold):
    """Ways of a LAPACK: its drivers with threads inside; and a matrix a thread where several are.

    `hold(k)` sets the library's own threads, for the calling thread at least.
    """

    def solve_one(driver, a, w):
        lapack.solve(driver, a, w)

    def inside(driver):
        def run(stack, out):
            hold(threads)
            for a, w in zip(stack, out, strict=True):
                lapack.solve(driver, a, w)

        return run

    pool = ThreadPoolExecutor(threads)

    def beside(stack, out):
        hold(1)
        list(pool.map(lambda pair: solve_one("dsyevd", *pair), zip(stack, out, strict=True)))

    ways = {driver: inside(driver) for driver in ("dsyevd", "dsyevr", "dsyev_2stage")}
    ways["dsyevd, a matrix a thread"] = beside

    def dgemm(A, B, C):
        hold(threads)
        lapack.dgemm(A, B, C)

    return ways, dgemm


def mkl(threads):
    ctypes.CDLL(str(find_library("libiomp5")), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(find_library("libmkl_rt")))
    library.MKL_Set_Threading_Layer(0)  # libiomp5's
    version = ctypes.create_string_buffer(200)
    library.MKL_Get_Version_String(version, 200)
    lapack = Lapack(library, "{}_", ctypes.c_int32)

    def hold(count):
        library.MKL_Set_Num_Threads(count)

    return *lapack_ways(lapack, threads, hold), version.value.decode().strip()


def openblas(threads):
    try:
        import scipy_openblas64 as wheel
    except ModuleNotFoundError as missing:
        raise Missing("scipy-openblas64 is not installed") from missing
    folder = Path(wheel.get_lib_dir())
    library = ctypes.CDLL(str(next(folder.glob("libscipy_openblas64_.*"))))
    library.scipy_openblas_get_config64_.restype = ctypes.c_char_p
    version = library.scipy_openblas_get_config64_().decode()
    lapack = Lapack(library, "scipy_{}_64_", ctypes.c_int64)
    ways, dgemm = lapack_ways(lapack, threads, library.scipy_openblas_set_num_threads64_)
    return ways, dgemm, version.strip()


def numpy_dgemm(A, B, C):
    np.matmul(A, B, out=C)


def numpys(threads):
    def run(stack, out):
        out[:] = np.linalg.eigvalsh(stack)

    return {"eigvalsh": run}, numpy_dgemm, np.__version__


def scipys(threads):
    import scipy.linalg

    def by(driver):
        def run(stack, out):
            for a, w in zip(stack, out, strict=True):
                w[:] = scipy.linalg.eigvalsh(a.T, driver=driver, check_finite=False)

        return run

    return {driver: by(driver) for driver in ("ev", "evd", "evr")}, None, scipy.__version__


def torchs(threads):
    try:
        import torch
    except ModuleNotFoundError as missing:
        raise Missing("torch is not installed") from missing
    torch.set_num_threads(threads)

    def run(stack, out):
        out[:] = torch.linalg.eigvalsh(torch.from_numpy(stack)).numpy()

    def dgemm(A, B, C):
        torch.matmul(torch.from_numpy(A), torch.from_numpy(B), out=torch.from_numpy(C))

    return {"eigvalsh": run}, dgemm, torch.__version__


def ours(threads):
    import pyspectra as ps

    ps.set_num_threads(threads)

    def run(stack, out):
        out[:] = ps.eigvals(stack)

    return {"eigvals": run}, numpy_dgemm, f"{ps.__version__} {ps.show_config().isa}"


class Elpa:
    """ELPA through ctypes: each MPI process holds every other block of columns."""

    BLOCK = 64

    def __init__(self):
        try:
            self.mpi = ctypes.CDLL("libmpi.so.40", mode=ctypes.RTLD_GLOBAL)
            self.elpa = ctypes.CDLL("libelpa.so.19")
        except OSError as missing:
            raise Missing(f"{missing} (Debian: libelpa-dev)") from missing
        self.mpi.MPI_Init(None, None)
        world = ctypes.addressof(ctypes.c_char.in_dll(self.mpi, "ompi_mpi_comm_world"))
        self.world = ctypes.c_void_p(world)
        rank, size = ctypes.c_int(), ctypes.c_int()
        self.mpi.MPI_Comm_rank(self.world, ctypes.byref(rank))
        self.mpi.MPI_Comm_size(self.world, ctypes.byref(size))
        self.rank, self.size = rank.value, size.value
        self.check(self.elpa.elpa_init(20220501))
        self.elpa.elpa_allocate.restype = ctypes.c_void_p
        self.handles = {}

    @staticmethod
    def check(code):
        if code:
            raise RuntimeError(f"ELPA: error {code}")

    def barrier(self):
        self.mpi.MPI_Barrier(self.world)

    def handle(self, n, columns, solver):
        if (n, solver) not in self.handles:
            error = ctypes.c_int()
            made = ctypes.c_void_p(self.elpa.elpa_allocate(ctypes.byref(error)))
            facts = {
                "na": n, "nev": n, "local_nrows": n, "local_ncols": columns, "nblk": self.BLOCK,
                "mpi_comm_parent": 0, "process_row": 0, "process_col": self.rank,
            }  # fmt: skip
            for name, value in facts.items():
                self.elpa.elpa_set_integer(made, name.encode(), value, ctypes.byref(error))
                self.check(error.value)
            self.check(self.elpa.elpa_setup(made))
            self.elpa.elpa_set_integer(made, b"solver", solver, ctypes.byref(error))
            self.check(error.value)
            self.handles[n, solver] = made
        return self.handles[n, solver]

    def mine(self, n):
        return [j for j in range(n) if j // self.BLOCK % self.size == self.rank]

    def ways(self):
        def by(solver):
            def run(stack, out):
                for a, w in zip(stack, out, strict=True):
                    error = ctypes.c_int()
                    self.elpa.elpa_eigenvalues_a_h_a_d(
                        self.handle(len(w), len(a), solver), ctypes.c_void_p(a.ctypes.data),
                        ctypes.c_void_p(w.ctypes.data), ctypes.byref(error),
                    )  # fmt: skip
                    self.check(error.value)

            return run

        return {"1 stage": by(1), "2 stage": by(2)}


LIBRARIES = {"pyspectra": ours, "numpy": numpys, "scipy": scipys, "torch": torchs, "mkl": mkl,
             "openblas64": openblas}  # fmt: skip


def dgemm_rate(dgemm, n):
    rng = np.random.default_rng(0)
    A, B, C = rng.standard_normal((n, n)), rng.standard_normal((n, n)), np.empty((n, n))
    dgemm(A, B, C)
    begin = time.perf_counter()
    dgemm(A, B, C)
    return 2 * n**3 / (time.perf_counter() - begin)


class Worker:
    def __init__(self, name, threads):
        self.elpa = Elpa() if name == "elpa" else None
        if self.elpa:
            self.ways, self.dgemm, self.version = self.elpa.ways(), None, "2022.11"
        else:
            self.ways, self.dgemm, self.version = LIBRARIES[name](threads)

    def facts(self):
        return {"ways": list(self.ways), "dgemm": self.dgemm is not None, "version": self.version}

    def answer(self, request):
        if "dgemm" in request:
            return {"rate": dgemm_rate(self.dgemm, request["dgemm"])}
        stack = np.load(request["matrices"], mmap_mode="r")
        expected = np.load(request["expected"])
        if self.elpa:  # symmetric: a row is a column
            stack = stack[:, self.elpa.mine(stack.shape[1])]
        # LAPACK overwrites its matrices: copies, whose making is not timed. There are many of them
        # where one solution would be over too soon.
        repeats = int(np.clip(REPEATED_WORK / stack.shape[0] / stack.shape[2] ** 3, 1, 100))
        copies = [np.array(stack, order="C") for _ in range(repeats)]
        out = np.full_like(expected, np.nan)
        if self.elpa:
            self.elpa.barrier()
        begin = time.perf_counter()
        for each in copies:
            self.ways[request["way"]](each, out)
        took = (time.perf_counter() - begin) / repeats
        error = np.max(np.abs(out - expected) / np.max(np.abs(expected), axis=1, keepdims=True))
        return {"seconds": took, "error": float(error)}


def main():
    name, threads = sys.argv[1], int(sys.argv[2])
    try:
        worker = Worker(name, threads)
    except Missing as missing:
        print(json.dumps({"missing": str(missing)}), flush=True)
        return
    rank = worker.elpa.rank if worker.elpa else 0
    # mpirun hands standard input to the first process alone, and waiting inside MPI would spin.
    requests = open(f"{sys.argv[3]}.{rank}") if worker.elpa else sys.stdin  # noqa: SIM115
    if rank == 0:
        print(json.dumps(worker.facts()), flush=True)
    for line in requests:
        answer = worker.answer(json.loads(line))
        if rank == 0:
            print(json.dumps(answer), flush=True)
    if worker.elpa:
        worker.elpa.mpi.MPI_Finalize()


if __name__ == "__main__":
    # A library that prints to standard output would be taken for an answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(answers, "w")
    main()
