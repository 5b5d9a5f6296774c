"""What the installed package is made of: its imports, its libraries, its names, its environment."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import pyspectra as ps
from pyspectra import Status, _core, ops
from pyspectra._support.blas_threads import _blas, blas_libraries


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, away from the source tree."""
    inherited = {
        k: v for k, v in os.environ.items() if k not in ("PYSPECTRA_ISA", "PYSPECTRA_NUM_THREADS")
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, **environment},
        cwd=os.path.dirname(sys.executable),
        capture_output=True,
        text=True,
        check=False,
    )


def printed(code: str, **environment: str) -> str:
    result = python(code, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# --- imports ------------------------------------------------------------------------------------


def test_importing_the_package_is_light() -> None:
    code = "import sys, pyspectra; print(' '.join(sorted(sys.modules)))"
    loaded = set(printed(code).split())
    assert "pyspectra._core" in loaded
    heavy = {"torch", "pandas", "matplotlib", "safetensors", "h5py", "transformers"}
    assert not loaded & heavy
    assert not loaded & {"scipy", "rich", "concurrent.futures", "pyspectra.analysis"}


# What is loaded when the command has parsed its arguments, opened the model and is about to read.
BEFORE_READING = """
import sys
from pyspectra.weights.layer import Layer
def load(*_):
    print(*sorted(sys.modules))
    raise SystemExit
Layer.load_with_change = load
from pyspectra.cli.main import main
main(["analyze", "-q", sys.argv[1]])
"""


def test_the_command_reads_before_it_loads_what_it_does_not_need(tmp_path: Path) -> None:
    path = tmp_path / "model.npy"
    np.save(path, np.ones((64, 64)))
    code = BEFORE_READING.replace("sys.argv[1]", repr(str(path)))
    loaded = set(printed(code).split())
    assert "pyspectra.weights.formats.npy" in loaded
    assert not loaded & {"torch", "pandas", "matplotlib", "scipy", "rich", "concurrent.futures"}
    other = ("onnx", "keras", "torch_checkpoint")
    assert not loaded & {f"pyspectra.weights.formats.{name}" for name in other}
    assert not loaded & {"pyspectra.edit", "pyspectra.training", "pyspectra.optim"}


@pytest.mark.parametrize(("isa", "loaded"), [("avx2", "False"), ("baseline", "True")])
def test_lapack_is_loaded_by_the_first_kernel_that_needs_it(isa: str, loaded: str) -> None:
    """Without vectors LAPACK reduces what is larger than 64."""
    if isa not in ops.available_isas():
        pytest.skip(f"there is no {isa}")
    code = (
        "import sys, numpy as np, pyspectra as ps\n"
        "W = np.random.default_rng(0).standard_normal((300, 100))\n"
        "evals = ps.esd(W).evals\n"
        "print('scipy.linalg' in sys.modules)\n"
        "print(np.allclose(evals, np.linalg.eigvalsh(W.T @ W)))"
    )
    assert printed(code, PYSPECTRA_ISA=isa).split() == [loaded, "True"]


def test_ctrl_c_does_not_leave_half_of_scipy() -> None:
    """Python keeps modules whose import was interrupted by halves; other threads get no Ctrl-C."""
    code = (
        "import sys, threading, numpy as np\n"
        "from pyspectra import ops\n"
        "from pyspectra._arrays import HostArray\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'scipy':\n"
        "            print(threading.current_thread() is threading.main_thread())\n"
        "sys.meta_path.insert(0, Watch())\n"
        "ops.svdvals([HostArray(np.eye(40, 60), 'float64')])\n"
        "print('scipy' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]


def test_a_blas_that_is_loaded_while_blas_is_held_is_held_too() -> None:
    code = (
        "from pyspectra import ops\n"
        "from pyspectra._support import blas_threads\n"
        "from pyspectra.config import show_config\n"
        "n = lambda: [lib['num_threads'] for lib in blas_threads._blas().info()]\n"
        "with ops.linalg._blas_threads_for([300, 300]):\n"
        "    before = len(n())\n"
        "    show_config()\n"
        "    print(before < len(n()), set(n()))\n"
        "print(set(n()))"
    )
    assert printed(code, OPENBLAS_NUM_THREADS="2").split() == ["True", "{1}", "{2}"]


def test_the_table_of_public_names_is_what_type_checkers_read() -> None:
    source = Path(ps.__file__).read_text(encoding="utf-8")
    (block,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    told = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "pyspectra"
        for alias in node.names
    }
    assert told == ps._HOMES
    assert set(told) | set(ps._MODULES) >= set(ps.__all__)


def test_modules_of_the_package_are_attributes_without_an_import() -> None:
    code = "import pyspectra as ps; print(ps.weights.open_weights is ps.open_weights)"
    assert printed(code) == "True"


def test_analysing_numpy_arrays_needs_none_of_the_optional_packages() -> None:
    code = (
        "import sys, numpy as np\n"
        "for name in ('torch', 'pandas', 'matplotlib', 'safetensors'): sys.modules[name] = None\n"
        "import pyspectra as ps\n"
        "W = np.random.default_rng(0).standard_normal((30, 20))\n"
        "report = ps.analyze({'a.weight': W})\n"
        "print(report.layers[0].status, len(report.to_json()) > 100)"
    )
    assert printed(code) == "ok True"


def test_public_names_exist_and_are_documented() -> None:
    assert len(ps.__all__) == len(set(ps.__all__))
    for name in ps.__all__:
        value = getattr(ps, name)
        assert (value.__doc__ or "").strip(), name
        home = value.__name__ if isinstance(value, ModuleType) else value.__module__
        assert home.startswith("pyspectra"), name
    assert set(ps.__all__) <= set(dir(ps))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", ps.__version__)


def test_packages_that_need_torch_are_attributes_that_load_on_first_use() -> None:
    code = (
        "import sys, pyspectra as ps\n"
        "assert {'optim', 'finetune', 'training'} <= set(dir(ps))\n"
        "assert 'torch' not in sys.modules\n"
        "print(ps.optim.ChildAdamW.__name__, ps.finetune.select.__name__, ps.training.__name__)\n"
        "assert 'torch' in sys.modules\n"
        "ps.optimm\n"
    )
    result = python(code)
    assert result.stdout.split() == ["ChildAdamW", "select", "pyspectra.training"], result.stderr
    assert "module 'pyspectra' has no attribute 'optimm'" in result.stderr.splitlines()[-1]


def test_a_source_tree_says_that_it_is_one(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "*.dylib", "__pycache__")
    shutil.copytree(Path(ps.__file__).parent, tmp_path / "pyspectra", ignore=ignored)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", "import pyspectra"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: pyspectra: ")
    assert str(tmp_path) in last
    assert "run Python from another folder" in last
    assert "circular" not in last


USER_SCRIPT = """
from typing_extensions import assert_type

import numpy as np
import pyspectra as ps

report = ps.analyze("model.safetensors", layers=["fc"], bootstrap=10, progress=False)
assert_type(report, ps.Report)
assert_type(report.layers, tuple[ps.LayerReport, ...])
fit = ps.fit_powerlaw(np.ones(10))
assert_type(fit, ps.PowerLawFit)
assert_type(fit.alpha, float)
assert_type(ps.esd(np.ones((3, 4))).N, int)
optimizer: type = ps.optim.ChildAdamW
ps.analyze("model.safetensors", bootstrapp=10)  # WRONG: there is no such option
ps.fit_powerlawn  # WRONG: there is no such name
fit.alpha.upper()  # WRONG: a float
"""


def test_type_checkers_see_the_types_of_the_installed_package(tmp_path: Path) -> None:
    package = Path(ps.__file__).parent
    assert (package / "py.typed").is_file()
    pytest.importorskip("mypy", reason="mypy is not installed")
    if package.parent.name != "site-packages":
        pytest.skip("runs on a source tree: mypy would check the package itself")
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", script],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = [n for n, line in enumerate(USER_SCRIPT.splitlines(), 1) if "WRONG" in line]
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert found == wrong, done.stdout


def test_status_codes_are_those_of_the_core() -> None:
    assert {s.name.lower(): int(s) for s in Status} == _core.status_names()
    assert str(Status.TOO_FEW_POINTS) == "too_few_points"


def test_errors_are_also_what_a_caller_would_expect() -> None:
    for error, builtin in (
        (ps.FormatError, ValueError),
        (ps.DeviceError, RuntimeError),
        (ps.CudaError, RuntimeError),
        (ps.ConvergenceError, ArithmeticError),
        (ps.MissingDependencyError, ImportError),
    ):
        assert issubclass(error, builtin)
        assert issubclass(error, ps.PyspectraError)


# --- libraries ----------------------------------------------------------------------------------


def needed_libraries() -> list[str]:
    if sys.platform == "darwin":
        text = subprocess.run(
            ["otool", "-L", _core.__file__], capture_output=True, text=True, check=True
        ).stdout
        return [line.split()[0] for line in text.splitlines()[1:] if line.strip()]
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    text = subprocess.run(
        ["readelf", "-d", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def test_the_core_needs_no_tensor_library_no_blas_and_no_openmp() -> None:
    libraries = needed_libraries()
    assert any("libstdc++" in lib or "libc++" in lib for lib in libraries)
    unwanted = re.compile(
        r"torch|c10|blas|lapack|mkl|gomp|iomp|\bomp|cudart|cublas|cusolver|python", re.IGNORECASE
    )
    assert [lib for lib in libraries if unwanted.search(lib)] == []


def test_the_core_exports_its_entry_point_only() -> None:
    if sys.platform == "darwin" or shutil.which("nm") is None:
        pytest.skip("needs GNU nm")
    text = subprocess.run(
        ["nm", "-D", "--defined-only", "-C", _core.__file__],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split(maxsplit=2)[-1] for line in text.splitlines()]
    assert "PyInit__core" in names
    assert [name for name in names if name.startswith("pyspectra::")] == []


# --- environment --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ops.available_isas())
def test_the_instruction_set_can_be_chosen_from_outside(name: str) -> None:
    code = "from pyspectra import ops; print(ops.get_isa())"
    assert printed(code, PYSPECTRA_ISA=name) == name


def test_by_default_the_best_instruction_set_is_used() -> None:
    code = "from pyspectra import ops; print(ops.get_isa(), ops.available_isas()[-1])"
    for environment in ({}, {"PYSPECTRA_ISA": ""}):
        used, best = printed(code, **environment).split()
        assert used == best
    assert ops.available_isas()[0] == "baseline"


@pytest.mark.parametrize("threads", ["1", "3", "17"])
def test_the_number_of_threads_can_be_chosen_from_outside(threads: str) -> None:
    code = "import pyspectra as ps; print(ps.get_num_threads())"
    assert printed(code, PYSPECTRA_NUM_THREADS=threads) == threads


def clear_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """The interpreter lives, and the last line of the traceback tells a person what to change."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" in result.stderr
    assert "terminate called" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last


USE = (
    "import numpy as np, pyspectra as ps\n"
    "ps.get_num_threads()\n"
    "ps.esd(np.eye(30))\n"
    "ps.fit_powerlaw(np.arange(1.0, 50.0))"
)


@pytest.mark.parametrize("value", ["sse9", "AVX2", "avx2 "])
def test_an_unknown_instruction_set_is_a_clear_error(value: str) -> None:
    clear_error(
        python(USE, PYSPECTRA_ISA=value), "PYSPECTRA_ISA", "ValueError", "avx512", repr(value)
    )


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "3x", "99999999999999999999", "4097"])
def test_a_bad_number_of_threads_is_a_clear_error(value: str) -> None:
    clear_error(
        python(USE, PYSPECTRA_NUM_THREADS=value),
        "ValueError",
        "PYSPECTRA_NUM_THREADS",
        "1 to 4096",
        repr(value),
    )


# --- settings -----------------------------------------------------------------------------------


def test_the_instruction_set_can_be_changed_and_unknown_ones_are_refused() -> None:
    for name in ops.available_isas():
        ops.set_isa(name)
        assert ops.get_isa() == name
    with pytest.raises(ValueError, match="must be one of 'baseline', 'avx2', 'avx512', got 'sse9'"):
        ops.set_isa("sse9")
    missing = {"baseline", "avx2", "avx512"} - set(ops.available_isas())
    for name in missing:
        with pytest.raises(ValueError, match=name):
            ops.set_isa(name)
    assert ops.get_isa() == ops.available_isas()[-1]


def test_the_number_of_threads_can_be_changed_and_nonsense_is_refused() -> None:
    for n in (1, 5, 2):
        ps.set_num_threads(n)
        assert ps.get_num_threads() == n
    for bad in (0, -1):
        with pytest.raises(ValueError, match=r"^set_num_threads: 'n' must be an integer from 1 to"):
            ps.set_num_threads(bad)
    for wrong in (2.0, "2", True, None):
        with pytest.raises(TypeError, match=r"^set_num_threads: 'n' must be an integer from 1 to"):
            ps.set_num_threads(wrong)  # type: ignore[arg-type]
    ps.set_num_threads(np.int64(2))
    assert ps.get_num_threads() == 2


def test_the_configuration_describes_itself() -> None:
    config = ps.show_config()
    assert config.version == ps.__version__
    assert config.isa == ops.get_isa()
    assert config.isa in config.available_isas
    assert config.threads == ps.get_num_threads()
    table = str(config)
    for word in ("compiler", "isa", "threads", "blas", "numpy", "scipy", config.compiler):
        assert word in table
    with pytest.raises(AttributeError):
        config.threads = 3  # type: ignore[misc]


# --- what a call leaves behind ------------------------------------------------------------------


def blas_threads() -> list[int]:
    blas_libraries()  # SciPy's is loaded late
    return [lib["num_threads"] for lib in _blas().info()]


def test_whoever_leaves_last_gives_blas_back() -> None:
    before = blas_threads()
    entered, left = threading.Event(), threading.Event()

    def first_in() -> None:
        with ops.linalg._blas_threads_for([300, 300]):
            entered.set()
            left.wait(10)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(first_in)
        entered.wait(10)
        with ops.linalg._blas_threads_for([300, 300]):
            left.set()
            first.result()
            assert set(blas_threads()) == {1}
        assert blas_threads() == before  # while the thread that came first is still alive


def test_overlapping_calls_leave_blas_as_it_was() -> None:
    before = blas_threads()
    W = np.random.default_rng(0).standard_normal((300, 200))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ps.esd(W, method="svd"), range(60)))
    assert blas_threads() == before


def test_blas_is_held_to_one_thread_in_a_batch_and_to_ours_for_one_large_matrix() -> None:
    before = blas_threads()
    with ops.linalg._blas_threads_for([300, 300]):
        assert set(blas_threads()) == {1}
        with ops.linalg._blas_threads_for([5000]):
            assert set(blas_threads()) == {1}
    assert blas_threads() == before
    ps.set_num_threads(1)
    with ops.linalg._blas_threads_for([5000]):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_a_forked_child_ignores_a_changed_environment() -> None:
    code = (
        "import os, numpy as np, pyspectra as ps; ps.eigvals(np.eye(4));"
        "os.environ['PYSPECTRA_NUM_THREADS'] = 'abc'; pid = os.fork();\n"
        "if pid == 0:\n"
        "    ok = (ps.eigvals(np.eye(4)) == 1).all()\n"
        "    os._exit(0 if ok else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_threads_that_the_system_refuses_are_done_without() -> None:
    code = (
        "import resource, numpy as np, pyspectra as ps\n"
        "A = np.array([np.diag([1.0, 2.0, 3.0])] * 8)\n"
        "ps.eigvals(A)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "limit = used + 512 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "ps.set_num_threads(3000)\n"
        "print(ps.eigvals(A)[7].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[1.0, 2.0, 3.0]", done.stderr


def test_too_many_threads_are_refused() -> None:
    for bad in (4097, 2**31, 2**70):
        with pytest.raises(ValueError, match=r"^set_num_threads: 'n' .* to 4096, got"):
            ps.set_num_threads(bad)
