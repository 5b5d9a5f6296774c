"""Every public docstring stands on its own, and its examples run."""

from __future__ import annotations

import doctest
import inspect
import itertools
from types import ModuleType
from typing import Any

import pytest

import pyspectra as ps

PACKAGES = (ps, ps.optim, ps.finetune, ps.training, ps.training.search)
PUBLIC = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in PACKAGES
    for name in package.__all__
    if not isinstance(getattr(package, name), ModuleType)
}
DOCUMENTED = {
    name: value
    for name, value in PUBLIC.items()
    # An exception shows in the "Raises" of what raises it.
    if not (isinstance(value, type) and issubclass(value, ps.PyspectraError))
}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def sections(value: Any) -> list[str]:
    lines = (inspect.getdoc(value) or "").splitlines()
    return [a for a, b in itertools.pairwise(lines) if b and set(b) == {"-"}]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_name_has_an_example(name: str) -> None:
    assert "Examples" in sections(DOCUMENTED[name])
    assert doctest.DocTestFinder(recurse=False).find(DOCUMENTED[name], name)[0].examples


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name: str) -> None:
    """Those of the methods of a class, too."""
    for package in ("pandas", "optuna"):
        if package in (inspect.getdoc(PUBLIC[name]) or ""):
            pytest.importorskip(package)
    threads = ps.get_num_threads()
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    said: list[str] = []
    for test in doctest.DocTestFinder().find(PUBLIC[name], name):
        runner.run(test, out=said.append)
    ps.set_num_threads(threads)
    assert runner.failures == 0, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    function = FUNCTIONS[name]
    found = sections(function)
    if inspect.signature(function).parameters:
        assert "Parameters" in found
        text = inspect.getdoc(function) or ""
        for parameter in inspect.signature(function).parameters:
            assert f"{parameter}" in text.split("Returns\n---")[0], parameter
        assert "Raises" in found
    returns = inspect.signature(function).return_annotation
    if returns not in (None, "None"):
        assert "Returns" in found or "Yields" in found
