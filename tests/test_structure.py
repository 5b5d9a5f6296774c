"""The rules of the house plan that a linter does not know."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "pyspectra").rglob("*.py"))
RING = {"core": 0, "linalg": 1, "powerlaw": 1, "optim": 1, "spectra": 1, "bindings": 2}


def imported_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_only_ops_imports_the_compiled_core():
    assert len(MODULES) > 20
    users = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if any("_core" in name.split(".") for name in imported_names(ast.parse(path.read_text())))
    }
    assert users == {"pyspectra/ops.py"}


def test_torch_is_imported_lazily_outside_the_torch_packages():
    """At module level, only the optimizers and the training loop may need torch."""
    for path in MODULES:
        if path.relative_to(ROOT / "pyspectra").parts[0] in ("optim", "finetune", "training"):
            continue
        top = [
            n
            for n in ast.parse(path.read_text()).body
            if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        for node in top:
            names = set(imported_names(ast.Module([node], [])))
            assert not {n.split(".")[0] for n in names} & {"torch", "pandas", "matplotlib"}, path


def test_modules_are_short():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


@pytest.mark.parametrize("domain", sorted(p.name for p in (ROOT / "csrc").iterdir() if p.is_dir()))
def test_rings_of_the_core(domain):
    """core <- {linalg, powerlaw, optim} <- bindings; domains never include each other."""
    for path in (ROOT / "csrc" / domain).rglob("*"):
        if path.suffix not in (".hpp", ".cpp", ".cu"):
            continue
        text = path.read_text()
        included = {m.split("/")[0] for m in re.findall(r'#include "([^"]+)"', text)}
        allowed = {d for d, ring in RING.items() if ring < RING[domain]} | {domain}
        assert included <= allowed, path
        if RING[domain] < 2:
            assert not re.search(r"#include .*(pybind11|Python\.h)", text), path
