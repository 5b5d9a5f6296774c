"""Where device kernels run in the tests: on a GPU, or in the emulator with host memory."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from cuda_emulation import COMPILER, build

from pyspectra import ops
from pyspectra._cuda import devices as cuda_devices
from pyspectra.analysis import analyze
from pyspectra.optim._fused import base as _fused
from pyspectra.optim._fused import device_plan as _device

BACKENDS = [
    "emulated-ascending",
    "emulated-descending",
    pytest.param("cuda", marks=pytest.mark.gpu),
]
# For what is not about barriers: the emulator takes its time.
ONE_ORDER = pytest.mark.parametrize("device", [BACKENDS[0], BACKENDS[2]], indirect=True)


@pytest.fixture(scope="session")
def emulated_module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    pytest.importorskip("pybind11")
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(params=BACKENDS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device of tensors, and of `analyze`, whose kernels are those of CUDA."""
    backend: str = request.param
    if backend == "cuda":
        yield "cuda"
        torch.cuda.synchronize()
        return
    module: Any = request.getfixturevalue("emulated_module")
    module.set_descending(backend.endswith("descending"))
    for domain in ("linalg", "optim", "powerlaw"):
        emulated = getattr(module, domain)
        for name in dir(emulated):
            if name.startswith("device_"):
                monkeypatch.setattr(ops, name, getattr(emulated, name))
    monkeypatch.setattr(_fused, "plan_class", lambda *_: _device.DevicePlan)
    monkeypatch.setattr(cuda_devices, "current_stream", lambda _: (0, 0))
    monkeypatch.setattr(cuda_devices, "free_bytes", lambda _: 1 << 20)
    monkeypatch.setattr(
        analyze,
        "resolve_device",
        lambda name, _: torch.device("cpu") if name == "cuda" else None,
    )
    monkeypatch.setattr(_device, "_capturing", lambda: False)
    yield "cpu"
