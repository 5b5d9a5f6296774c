"""What every test shares: the way to `reference` and `tolerances`, and engine settings put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyspectra import ops

# Tests import `reference` and `tolerances` by these names; the source tree itself stays off the
# path, so that it is the installed package that is tested.
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["devices"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, or a package without CUDA."""
    if ops.build_info()["cuda_available"]:
        return
    skip = pytest.mark.skip(reason="needs a CUDA device and a package built with CUDA")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _engine_settings_restored() -> Iterator[None]:
    """Instruction set and thread count are global to the process: put them back after each test."""
    isa, threads = ops.get_isa(), ops.get_num_threads()
    yield
    ops.set_isa(isa)
    ops.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _torch_seeded() -> None:
    """What a test draws from torch does not depend on the tests that ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(params=ops.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Run the test once on each instruction set of this machine."""
    name: str = request.param
    ops.set_isa(name)
    return name
