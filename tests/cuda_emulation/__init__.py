"""The package's CUDA sources, compiled by the C++ compiler against an emulated runtime."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
# The bindings of a domain name its CPU functions too. Nobody calls those here, so they are left
# undefined and looked for when they are called.
SOURCES = (
    HERE / "module.cpp",
    CSRC / "bindings/bind_linalg.cpp",
    CSRC / "bindings/bind_optim.cpp",
    CSRC / "bindings/bind_powerlaw.cpp",
    CSRC / "optim/check.cpp",
)
KERNELS = (
    "linalg/device_chase",
    "linalg/device_eigvals",
    "linalg/device_panel",
    "optim/device_compact",
    "optim/device_step",
    "powerlaw/device_bootstrap",
    "powerlaw/device_fit",
)


def build(folder: Path) -> ModuleType:
    """Compile and import the module; a few seconds."""
    import pybind11

    assert COMPILER is not None
    include = (HERE, CSRC, pybind11.get_include(), sysconfig.get_paths()["include"])
    flags = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"]
    flags += [f"-I{path}" for path in include]
    flags += shlex.split(os.environ.get("CXXFLAGS", ""))  # a sanitizer's

    # A sanitizer that Python was started with is not for the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}

    def compiled(source: Path) -> str:
        out = folder / f"{source.parent.name}_{source.stem}.o"
        # Kernels are run often, the bindings are not.
        level = "-O1" if source.suffix == ".cu" else "-O0"
        command = [COMPILER, "-c", level, *flags, "-x", "c++", str(source), "-o", str(out)]
        subprocess.run(command, check=True, env=environment)
        return str(out)

    sources = [*SOURCES, *(CSRC / f"{kernel}.cu" for kernel in KERNELS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    module = folder / f"emulated{suffix}"
    mac = sys.platform == "darwin"
    undefined = ["-undefined", "dynamic_lookup"] if mac else ["-Wl,-z,lazy"]
    link = [COMPILER, "-shared", *flags, *objects, *undefined, "-o", str(module)]
    subprocess.run(link, check=True, env=environment)
    spec = importlib.util.spec_from_file_location("emulated", module)
    assert spec is not None
    assert spec.loader is not None
    as_usual = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY)
    try:
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    finally:
        sys.setdlopenflags(as_usual)
    return loaded
