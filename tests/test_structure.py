"""The rules of the house plan that a linter does not know."""

import ast
import os
import re
import subprocess
import sys
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
    domains = ("core", "linalg", "optim", "powerlaw", "spectra")
    assert users == {f"pyspectra/ops/{domain}.py" for domain in domains}


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


def own_lines(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_functions_are_short():
    long = {
        f"{path.name}:{node.name}": n
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (n := own_lines(node)) > 60
    }
    assert long == {}


def names_given(tree):
    """Yield line and name of all that a module names: variables, arguments, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def test_names_say_what():
    """Not `there` or `here`; `where` is the field of a finding that names a place of the model."""
    tests = Path(__file__).parent.rglob("*.py")
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (*MODULES, *tests)
        for line, name in names_given(ast.parse(path.read_text()))
        if name.strip("_") in ("there", "here")
    ]
    assert found == []
    assert list(names_given(ast.parse("def f(here): pass"))) == [(1, "f"), (1, "here")]


# --- messages -----------------------------------------------------------------------------------

# What takes text apart, or asks what it says.
PARSERS = {
    "endswith", "find", "findall", "finditer", "fullmatch", "index", "match", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rpartition", "rsplit", "search", "split",
    "splitlines", "startswith", "sub", "subn",
}  # fmt: skip


def messages(tree):
    """Names that hold a caught exception, and those that hold its message."""
    errors = {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
    texts = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_message(node.value, errors, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return errors, texts


def is_message(node, errors, texts):
    """Tell whether an expression is the message of an error: str(e), e.args[0], f"{e}"."""
    if isinstance(node, ast.Name):
        return node.id in texts
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = node.args[0] if node.args else None
        is_error = isinstance(given, ast.Name) and given.id in errors
        return node.func.id in ("str", "repr") and is_error
    if isinstance(node, ast.BoolOp):
        return any(is_message(v, errors, texts) for v in node.values)
    if isinstance(node, ast.Subscript):
        return is_message(node.value, errors, texts)
    if isinstance(node, ast.JoinedStr):
        held = [v.value for v in node.values if isinstance(v, ast.FormattedValue)]
        return any(isinstance(v, ast.Name) and v.id in errors for v in held)
    is_args = isinstance(node, ast.Attribute) and node.attr == "args"
    return is_args and isinstance(node.value, ast.Name) and node.value.id in errors


def parsed_messages(source):
    """Lines of a module that take the message of an error apart."""
    tree = ast.parse(source)
    found = set()
    for scope in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.Module)):
        errors, texts = messages(scope)
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr in PARSERS and any(
                    is_message(part, errors, texts) for part in (node.func.value, *node.args)
                ):
                    found.add(node.lineno)
            elif isinstance(node, ast.Compare):
                asked = [op for op in node.ops if isinstance(op, ast.In | ast.NotIn | ast.Eq)]
                parts = (node.left, *node.comparators)
                if asked and any(is_message(part, errors, texts) for part in parts):
                    found.add(node.lineno)
    return sorted(found)


@pytest.mark.parametrize(
    "line",
    [
        "text = str(error).replace('a', 'b')",
        "text = re.sub('a', 'b', str(error))",
        "found = PATTERN.match(str(error) or 'x')",
        "if 'corrupt' in str(error): pass",
        "if f'{error}'.startswith('open'): pass",
        "if error.args[0] == 'corrupt': pass",
        "text = str(error); words = text.split(':')",
    ],
)
def test_the_search_for_parsed_messages_finds_them(line):
    source = f"def f():\n    try:\n        g()\n    except ValueError as error:\n        {line}\n"
    assert parsed_messages(source) == [5]


def test_no_message_is_parsed():
    """Errors and reasons carry codes and fields; their English is written once, for people."""
    parsed = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        for line in parsed_messages(path.read_text())
    }
    assert parsed == set()


# --- imports ------------------------------------------------------------------------------------


def test_imports_point_one_way_and_in_no_circle():
    """The contracts of pyproject.toml; imports for type checkers count like all others."""
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    assert "exclude_type_checking_imports" not in (ROOT / "pyproject.toml").read_text()
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_contracts_name_every_room():
    """A new package must say where it stands."""
    text = (ROOT / "pyproject.toml").read_text()
    layers = text.split("layers = [", 1)[1].split("]", 1)[0]
    rooms = {
        p.stem for p in (ROOT / "pyspectra").iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }  # fmt: skip
    named = set(re.findall(r"pyspectra\.(\w+)", layers))
    assert rooms - {"__init__", "__main__"} == named


# --- the compiled core --------------------------------------------------------------------------


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


def literal_text(message):
    """Text of a message in the source, with a stand-in for what it interpolates."""
    if isinstance(message, ast.BinOp):
        return literal_text(message.left) + literal_text(message.right)
    text = ""
    for part in getattr(message, "values", [message]):
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            # The name of a function, or of an argument in quotes.
            text += "'value'" if part.conversion == ord("r") else "name"
    return text


def hand_written(tree):
    """Yield lines of built-in errors about an argument with a message of their own."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        is_builtin = node.func.id in ("ValueError", "TypeError", "FileNotFoundError", "KeyError")
        if is_builtin and re.match(r"[\w. ]+: '\w+' ", literal_text(node.args[0])):
            yield node.lineno


@pytest.mark.parametrize(
    "line",
    [
        """raise ValueError(f"{owner}: {name!r} must be {x}, got {y!r}.")""",
        """error = TypeError("f: 'x' is odd")""",
        """raise ValueError(f"{f}: 'x' holds nothing" + because(x))""",
        """raise FileNotFoundError("EMA.load: 'path' must be a file")""",
    ],
)
def test_the_search_for_hand_written_errors_finds_them(line):
    assert list(hand_written(ast.parse(line))) == [1]


def test_errors_about_arguments_have_fields():
    """They are ArgumentErrors, which name function and argument as data, and read alike."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in MODULES
        for line in hand_written(ast.parse(path.read_text()))
    ]
    assert found == []
