"""torch loads with `pyspectra.optim`, never with `pyspectra`."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_alone_loads_neither_torch_nor_the_optimizers() -> None:
    code = "import sys, pyspectra; print('torch' in sys.modules, 'pyspectra.optim' in sys.modules)"
    assert run(code).stdout.split() == ["False", "False"]


def test_without_torch_the_error_names_the_extra() -> None:
    pytest.importorskip("torch")
    code = "import sys; sys.modules['torch'] = None; import pyspectra.optim"
    assert "pyspectra-nn[" in run(code).stderr


@pytest.mark.parametrize(
    ("framework", "module", "extra"),
    [("transformers", "hf", "hf"), ("lightning pytorch_lightning", "lightning", "lightning")],
)
def test_callbacks_without_their_framework_name_the_extra(
    framework: str, module: str, extra: str
) -> None:
    pytest.importorskip("torch")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({framework.split()!r}));"
        f"import pyspectra.training.callbacks.{module}"
    )
    assert f'"pyspectra-nn[{extra}]"' in run(code).stderr
