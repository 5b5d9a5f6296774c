"""Instruction-set units leak nothing: no symbol of theirs may replace another unit's.

A weak symbol (an inline function, a template, an inline variable) is merged by the linker with
those of the same name in other units, and which one survives is anyone's guess: compiled with
-mavx512f it would crash machines without AVX-512.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNITS = sorted(
    p.relative_to(ROOT).as_posix()
    for isa in ("avx2", "avx512", "amx")
    for p in ROOT.glob(f"csrc/**/*.{isa}.cpp")
)
LEAKS = "WwVvu"

COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="the units are for x86-64"
    ),
]


def cmake_list(name: str) -> list[str]:
    """The value of ``set(NAME ...)`` in CMakeLists.txt."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = re.findall(rf'^\s*set\({name}\s+"?([^")]*)"?\)', text, re.MULTILINE)
    assert len(found) == 1, f"CMakeLists.txt sets {name} {len(found)} times"
    return str(found[0]).split()


def domain_options(unit: str) -> list[str]:
    """Flags that CMakeLists.txt gives to the whole domain of a unit."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    domain = unit.split("/")[1]
    pattern = rf"target_compile_options\(pyspectra_{domain} PRIVATE ([^)]*)\)"
    return [flag for options in re.findall(pattern, text) for flag in options.split()]


def flags(unit: str) -> list[str]:
    isa = unit.split(".")[-2].upper()
    standard = cmake_list("CMAKE_CXX_STANDARD")
    return [
        f"-std=c++{standard[0]}",
        *cmake_list("CMAKE_CXX_FLAGS_RELEASE"),
        "-fPIC",
        "-fvisibility=hidden",
        "-fvisibility-inlines-hidden",
        "-DPYSPECTRA_X86_UNITS",
        f"-I{ROOT / 'csrc'}",
        *cmake_list(f"{isa}_FLAGS"),
        *domain_options(unit),
    ]


def symbols(unit: Path, options: list[str], folder: Path) -> list[tuple[str, str]]:
    """(type, name) of what the object of a unit defines, by nm."""
    assert COMPILER is not None
    target = folder / "unit.o"
    build = subprocess.run(
        [COMPILER, *options, "-c", str(unit), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    text = subprocess.run(
        ["nm", "--defined-only", "-C", str(target)], capture_output=True, text=True, check=True
    ).stdout
    parsed = [line.split(maxsplit=2) for line in text.splitlines() if line.strip()]
    return [(kind, name) for _, kind, name in parsed]


def test_there_are_units_to_look_at() -> None:
    stems = {unit.rsplit(".", 2)[0] for unit in UNITS if ".amx." not in unit}
    assert {"csrc/linalg/gram", "csrc/powerlaw/fit"} <= stems
    for stem in stems:
        assert {f"{stem}.avx2.cpp", f"{stem}.avx512.cpp"} <= set(UNITS)


def test_the_flags_are_those_of_the_build() -> None:
    assert "-mavx2" in cmake_list("AVX2_FLAGS")
    assert "-mavx512f" in cmake_list("AVX512_FLAGS")
    everything = " ".join(flag for unit in UNITS for flag in flags(unit))
    assert "-O3" in everything
    assert "-ffp-contract=off" in " ".join(flags("csrc/powerlaw/fit.avx2.cpp"))
    assert "-ffast-math" not in everything
    assert "-march=native" not in everything


@pytest.mark.parametrize("unit", UNITS)
def test_units_define_no_weak_symbols(unit: str, tmp_path: Path) -> None:
    found = symbols(ROOT / unit, flags(unit), tmp_path)
    assert [(kind, name) for kind, name in found if kind in LEAKS] == []
    exported = [name for kind, name in found if kind.isupper()]
    assert len(exported) >= 1
    isa = unit.split(".")[-2]
    assert [name for name in exported if isa not in name] == []


def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    """The check itself: an inline function in a unit is a weak symbol, and nm says so."""
    source = tmp_path / "leaky.avx2.cpp"
    source.write_text(
        "template <typename T> __attribute__((noinline)) T twice(T x) { return x + x; }\n"
        "double kernel_avx2(double x) { return twice(x); }\n",
        encoding="utf-8",
    )
    found = symbols(source, flags("csrc/linalg/gram.avx2.cpp"), tmp_path)
    assert any(kind in LEAKS for kind, _ in found)
